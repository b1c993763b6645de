"""The attention layers of a diffusers network, changed for one call of the network through diffusers' public setter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.guidance import Denoiser
from iterinv.locks import Lock
from iterinv.models import CountingDenoiser, WatchedDenoiser

_CHANGING = Lock()  # two threads that change the processors of one network would put each other's back
_PARTS = ("down_blocks", "mid_block", "up_blocks")

KNOWN = {
    f"{how}Attn{added}Processor{version}"
    for how in ("", "Sliced", "XFormers")
    for added in ("", "AddedKV")
    for version in ("", "2_0")
}
"""The names of diffusers' processors that compute plain attention or attention with added keys, in any way."""


@dataclass(frozen=True)
class Layer:
    """An attention layer of a network, by its ``name`` there.

    Its keys are those of the ``text``, of the ``image``, or of both in one softmax (IF's added keys and values: the
    text's first).
    """

    name: str
    text: bool
    image: bool

    @property
    def part(self) -> str:
        """The part of the network that it lies in: ``down_blocks``, ``mid_block`` or ``up_blocks``."""
        return self.name.split(".")[0]

    @property
    def block(self) -> str:
        """The transformer, or the attention, that it belongs to: one follows each residual block."""
        return self.name.split(".transformer_blocks.")[0]

    @property
    def features(self) -> str:
        """The layer whose output is the residual branch of the residual block before it."""
        return f"{self.block.replace('.attentions.', '.resnets.')}.conv2"


@dataclass(frozen=True, eq=False)
class Attended:
    """A layer during a call: ``query`` (rows, heads, positions, width), ``key`` and ``value`` (rows, heads, keys,
    width), of which the first ``text`` belong to the text."""

    layer: Layer
    text: int
    query: Tensor
    key: Tensor
    value: Tensor
    module: Any = field(repr=False)

    @property
    def positions(self) -> int:
        """The number of positions of the picture."""
        return self.query.shape[2]

    def maps(self) -> Tensor:
        """The attention probabilities (rows, heads, positions, keys)."""
        query, key = self.query.flatten(0, 1), self.key.flatten(0, 1)
        maps: Tensor = self.module.get_attention_scores(query, key)
        return maps.unflatten(0, self.query.shape[:2])

    def weighted(self, maps: Tensor) -> Tensor:
        """The values weighted by maps."""
        return maps @ self.value

    def fused(self, query: Tensor | None = None, key: Tensor | None = None, value: Tensor | None = None) -> Tensor:
        """The layer's attention with some of its inputs changed, by torch's fused kernel, which makes no maps."""
        query, key, value = (
            own if new is None else new
            for own, new in zip((self.query, self.key, self.value), (query, key, value), strict=True)
        )
        return F.scaled_dot_product_attention(query, key, value, scale=self.module.scale)


Control = Callable[[Attended], Tensor]
"""A change of a layer: the weighted values (rows, heads, positions, width) in place of its own."""


@dataclass(frozen=True, eq=False)
class Changes:
    """Changes of layers for one call of a network: ``attention`` of its attention layers, ``features`` of the outputs
    (rows, channels, h, w) of others, by their names."""

    attention: Mapping[Layer, Control] = field(default_factory=dict)
    features: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)


def network_of(denoiser: Denoiser) -> Any:
    """The diffusers UNet that a denoiser runs; ``None`` for one whose attention diffusers does not set, and for a
    transformer, whose tokens of text and image attend in one sequence."""
    while isinstance(denoiser, (CountingDenoiser, WatchedDenoiser)):
        denoiser = denoiser.denoiser
    network = getattr(denoiser, "network", None)
    return network if all(hasattr(network, name) for name in ("set_attn_processor", *_PARTS)) else None


def layers_of(network: Any) -> list[Layer]:
    """The attention layers of a diffusers network, in the order in which it runs them.

    Raises ``ValueError`` for one whose processor computes something else than diffusers' default ones.
    """
    with _CHANGING:
        processors = network.attn_processors
    modules, layers = dict(network.named_modules()), []
    for key, processor in processors.items():
        name = key.removesuffix(".processor")
        if (kind := type(processor).__name__) not in KNOWN:
            raise ValueError(
                f"the attention layer {name} has a processor of the kind {kind}, which is not changed here: set "
                "diffusers' own by pipe.unet.set_default_attn_processor()"
            )
        module = modules[name]
        joint = module.added_kv_proj_dim is not None and not module.only_cross_attention
        layers.append(Layer(name, module.is_cross_attention, joint or not module.is_cross_attention))
    return sorted(layers, key=lambda layer: _PARTS.index(layer.part))


@contextmanager
def changed(network: Any, changes: Changes) -> Iterator[None]:
    """Change layers of a network while the block runs; its processors and hooks are as they were after it, even after
    an error.

    Other threads wait to change it, and what they compute by it meanwhile is not changed.
    """
    with _CHANGING:
        own, thread = network.attn_processors, threading.get_ident()
        handles = []
        try:
            processors = {f"{layer.name}.processor": (layer, control) for layer, control in changes.attention.items()}
            mine = {key: _Processor(own[key], *each, thread) for key, each in processors.items()}
            network.set_attn_processor({**own, **mine})
            for name, change in changes.features.items():

                def hook(_: Any, __: Any, out: Tensor, change: Callable[[Tensor], Tensor] = change) -> Tensor:
                    return change(out) if threading.get_ident() == thread else out

                handles.append(network.get_submodule(name).register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()
            network.set_attn_processor(dict(own))  # the setter empties the mapping that it is given


@dataclass(frozen=True, eq=False)
class _Processor:
    """A processor of diffusers that hands queries, keys and values to a control; ``own`` works for other threads."""

    own: Callable[..., Tensor]
    layer: Layer
    control: Control
    thread: int

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **more: Any
    ) -> Tensor:
        """Compute the layer as diffusers does, without masks, which no denoiser here gives."""
        if threading.get_ident() != self.thread:
            return self.own(attn, hidden_states, encoder_hidden_states, **more)
        text, x = encoder_hidden_states, hidden_states
        x = x if x.ndim == 3 else x.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        if text is not None and attn.norm_cross:
            text = attn.norm_encoder_hidden_states(text)
        added = attn.added_kv_proj_dim is not None
        pairs = [(attn.add_k_proj(text), attn.add_v_proj(text))] if added else []
        if self.layer.image or not added:
            read = x if self.layer.image else text
            pairs.append((attn.to_k(read), attn.to_v(read)))
        key, value = (torch.cat(each, 1) for each in zip(*pairs, strict=True))
        query, key, value = (attn.head_to_batch_dim(each, out_dim=4) for each in (attn.to_q(x), key, value))
        length = text.shape[1] if self.layer.text and text is not None else 0
        out = self.control(Attended(self.layer, length, query, key, value, attn))
        out = attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2).to(query.dtype)))
        if hidden_states.ndim == 4:
            out = out.transpose(-1, -2).reshape(hidden_states.shape)
        if added or attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor

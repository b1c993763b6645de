"""Stages: a denoiser, its schedule, its text encoder and its codec, of any model.

The oddities of a network stop here. The rest of the package sees predictions in the sample's dtype.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from iterinv.arithmetic import Arithmetic
from iterinv.conditions import FROM_PROMPT, Condition, enlarged
from iterinv.guidance import Denoiser, unguided
from iterinv.levels import Level, Prediction
from iterinv.models.probe import Probe
from iterinv.models.tokens import Tokenize
from iterinv.schedules import Flow, Karras, Schedule
from iterinv.streams import draw_noise

Embed = Callable[[Sequence[str | None]], Condition]
"""Encoded prompts: the entries of :data:`iterinv.conditions.FROM_PROMPT`, and ``guidance`` for a distilled network; a
row for each prompt.

``None`` is the negative prompt where none is given, which some families encode otherwise than the empty prompt."""


class Codec(Protocol):
    """An autoencoder: pictures (batch, 3, h, w) in [-1, 1] to a latent stage's states and back.

    A state is (batch, ``channels``, h / ``factor``, w / ``factor``); of a network of one channel it is the picture's
    grey. The same picture always has the same code.
    """

    @property
    def channels(self) -> int:
        """The number of channels of a state."""
        ...

    @property
    def factor(self) -> int:
        """The number of pixels along one side of a value of the state."""
        ...

    def encode(self, picture: Tensor) -> Tensor:
        """The state of a picture (batch, 3, h, w)."""
        ...

    def decode(self, state: Tensor) -> Tensor:
        """The picture (batch, 3, h, w) of a state, unclamped."""
        ...


@dataclass(frozen=True, eq=False)
class Stage:
    """One diffusion model of a cascade. How it is run is a :class:`iterinv.inversion.Plan`.

    ``embed`` encodes prompts. ``fingerprint`` names the weights, and ``probe`` holds numbers that the networks compute,
    so that an inversion is not reopened under others.
    ``low_level``, in a super-resolution stage, is the level of the noise on the picture from the stage below. A stage
    with a ``codec`` works on latents, one without on pixels. Its pictures are squares of ``size`` px, or of another
    ``rectangle`` (h, w). ``move`` makes the stage on another device. ``tokens`` tells the tokens of a prompt apart,
    ``None`` for a network that reads no words.
    """

    name: str
    size: int
    denoiser: Denoiser
    schedule: Schedule | Karras | Flow
    embed: Embed
    fingerprint: str
    low_level: Level | None = None
    device: str = "cpu"
    codec: Codec | None = None
    move: Callable[[str, Stage | None], Stage] | None = None
    probe: Probe | None = None
    tokens: Tokenize | None = None
    rectangle: tuple[int, int] | None = None

    def to(self, device: str, below: Stage | None = None) -> Stage:
        """Move the networks to a device; ``below`` is the stage below, moved. Raises ``ValueError`` where they take
        turns."""
        if self.move is None:
            raise ValueError(
                f"stage {self.name} cannot be moved, since its networks take turns: load it with device={device!r}"
            )
        return replace(self.move(device, below), probe=self.probe).at(self.rectangle)

    def at(self, rectangle: tuple[int, int] | None) -> Stage:
        """The stage at pictures (h, w) in px, multiples of its :attr:`unit`; ``None`` for its square.

        A flow whose shift depends on the size has the shift of these pictures; an image token is as large as the
        denoiser's ``unit``.
        """
        stage = replace(self, rectangle=rectangle)
        if not isinstance(self.schedule, Flow):
            return stage
        _, height, width = stage.shape
        return replace(stage, schedule=self.schedule.at(height * width // getattr(self.denoiser, "unit", 1) ** 2))

    def __repr__(self) -> str:
        kind = "pixels" if self.codec is None or self.codec.factor == 1 else "latents"
        return f"Stage({self.name}, {self.size} px, {kind} on {self.device}, {self.fingerprint})"

    @property
    def differentiable(self) -> bool:
        """Tell whether the denoiser's predictions have gradients."""
        return bool(getattr(self.denoiser, "differentiable", True))

    def arithmetic(self, batch: int) -> Arithmetic:
        """The arithmetic of this process for a batch at this stage."""
        return Arithmetic.here(self.device, batch, getattr(self.denoiser, "kernels", ""))

    @property
    def extent(self) -> tuple[int, int]:
        """The height and width in px of the stage's pictures."""
        return self.rectangle or (self.size, self.size)

    @property
    def unit(self) -> int | None:
        """The px that both sides of a rectangle are multiples of; ``None`` for a network that takes its square
        alone."""
        unit = getattr(self.denoiser, "unit", None)
        return unit if unit is None or self.codec is None else unit * self.codec.factor

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one state: (channels, h, w)."""
        (height, width), codec = self.extent, self.codec
        return (3, height, width) if codec is None else (codec.channels, height // codec.factor, width // codec.factor)

    def encode(self, picture: Tensor) -> Tensor:
        """The clean state of pictures (batch, 3, h, w) of the stage's extent: themselves, or their latents."""
        return picture if self.codec is None else self.codec.encode(picture).to(picture.dtype)

    def decode(self, state: Tensor) -> Tensor:
        """The pictures of clean states."""
        return state if self.codec is None else self.codec.decode(state).to(state.dtype)

    def enlarged(self, low_image: Tensor) -> Tensor:
        """The clean state of the enlarged picture (batch, 3, h, w) from the stage below."""
        large = enlarged(low_image, self.extent)
        return large if self.codec is None else self.codec.encode(large)

    def first_nonfinite_layer(self, x: Tensor | None, level: Level | None) -> str:
        """A sentence on the network's first layer that makes NaN or infinity of a finite sample; empty where none
        does."""
        network = getattr(self.denoiser, "network", None)
        if not isinstance(network, torch.nn.Module) or x is None or level is None:
            return ""
        first: list[str] = []
        hooks = [
            module.register_forward_hook(lambda _, __, out, name=name: first.append(name) if _ill(out) else None)
            for name, module in network.named_modules()
            if next(module.children(), None) is None
        ]
        condition = self.condition("", x.new_zeros(len(x), 3, 8, 8, dtype=torch.float32))
        try:
            with torch.no_grad():
                unguided(self.denoiser, condition)(x, level)
        finally:
            for hook in hooks:
                hook.remove()
        if not first:
            return ""
        dtype = next((weights.dtype for weights in network.parameters()), torch.float32)
        better = "; try bfloat16" if dtype == torch.float16 else ""
        return f" The network's {first[0]} gives NaN or infinity in {str(dtype).removeprefix('torch.')}{better}."

    def condition(
        self,
        prompt: str | Sequence[str],
        low: Tensor | None = None,
        noise: Tensor | None = None,
        seeds: Sequence[int] = (0,),
    ) -> Condition:
        """The condition of a prompt and, in a super-resolution stage, of the picture below (batch, 3, h, w) in [-1, 1].

        ``prompt`` is one for the whole batch, or one for each picture. The noise on that picture, as high and wide as a
        state, is ``noise`` if given, else drawn from the stream of this stage and of each of ``seeds``, one a picture
        or one for all. Raises ``ValueError`` where the picture below is missing.
        """
        text = self._words([prompt] if isinstance(prompt, str) else list(prompt))
        if self.low_level is None:
            return text
        if low is None:
            raise ValueError(f"stage {self.name} enlarges a smaller picture: pass it as low")
        if noise is None:
            noise = draw_noise((3, *self.shape[1:]), seeds, "low noise", self.name)
            noise = noise.expand(len(low), *noise.shape[1:]) if len(seeds) == 1 else noise
        low = low.clamp(-1, 1).float().to(self.device)
        return text.updated(low_image=low, low_noise=noise.to(self.device))

    def with_prompt(self, condition: Condition, prompt: str | None) -> Condition:
        """A condition with another prompt in place of its own; ``None`` makes the negative condition."""
        return Condition({**self._words([prompt]), **condition.without(*FROM_PROMPT)})

    def _words(self, prompts: Sequence[str | None]) -> Condition:
        """The encoded prompts, for pictures of the stage's extent."""
        text = self.embed(prompts)
        return text if self.rectangle is None else text.at(*self.rectangle)


def unwrapped(network: Any) -> Any:
    """The network within a wrapper that spreads batches over devices; any other network itself."""
    parallel = torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel
    return network.module if isinstance(network, parallel) else network


def frozen(network: Any) -> Any:
    """A network of the same weights, in evaluation and without their gradients; the given one stays as it is.

    The modules are copied and the weights are not. Raises ``ValueError`` for a network that cannot be copied, or whose
    weights are not in memory.
    """
    if lost := [name for name, x in (*network.named_parameters(), *network.named_buffers()) if x.is_meta]:
        raise ValueError(f"the {lost[0]} of a {type(network).__name__} is not in memory: load all of its weights first")
    weights = {
        id(x): torch.nn.Parameter(x.detach(), requires_grad=False) if type(x) is torch.nn.Parameter else x
        for x in network.parameters()
    }
    try:
        return deepcopy(network, {**weights, **{id(x): x for x in network.buffers()}}).eval()
    except Exception as error:  # hooks and attributes that others put there may raise any error
        raise ValueError(
            f"a {type(network).__name__} cannot be copied ({error}): take off the hooks and attributes that were added "
            "to it"
        ) from None


def digest_of(network: torch.nn.Module, settings: str = "") -> str:
    """A hash of a network's weights, in their precision, and of its settings.

    Raises ``ValueError``, naming the first, for weights that are no numbers in memory.
    """
    digest = hashlib.sha256(settings.encode())
    network = getattr(network, "_orig_mod", network)  # torch.compile gives the same weights longer names
    for key, entry in sorted(network.state_dict().items()):
        # A layer that is quantised holds its weights and biases together, and its dtype beside them.
        for x in entry if isinstance(entry, tuple) else (entry,):
            if not isinstance(x, Tensor):
                digest.update(f"{key} {x}".encode())
                continue
            digest.update(f"{key} {x.dtype} {tuple(x.shape)}".encode())
            try:
                plain = x.detach().dequantize() if x.is_quantized else x.detach().to_dense()
                digest.update(plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            except (RuntimeError, TypeError, NotImplementedError) as error:
                raise ValueError(
                    f"the weights {key} of a {type(network).__name__} are of a kind that is not read here "
                    f"({type(x).__name__}: {str(error).splitlines()[0]}): load the model without quantising it"
                ) from None
    return digest.hexdigest()


def _ill(out: object) -> bool:
    return isinstance(out, Tensor) and not bool(torch.isfinite(out).all())


class CountingDenoiser:
    """A denoiser that counts network evaluations of one picture, forward and backward apart.

    Guidance evaluates twice a picture and is counted so, though both halves go through the network as one batch.
    """

    def __init__(self, denoiser: Denoiser, batch: int = 1) -> None:
        self.denoiser, self.batch, self.forward, self.backward = denoiser, batch, 0, 0

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        rows = len(x) // self.batch
        self.forward += rows
        prediction = self.denoiser(x, level, condition)
        if prediction.eps.requires_grad:
            prediction.eps.register_hook(lambda _: self._went_back(rows))
        return prediction

    def _went_back(self, rows: int) -> None:
        self.backward += rows

    def __getattr__(self, name: str) -> object:
        if name == "denoiser":  # not there yet where a copy of this is unpickled
            raise AttributeError(name)
        return getattr(self.denoiser, name)


class WatchedDenoiser:
    """A denoiser that calls a function before every network call; the function may raise to stop the work."""

    def __init__(self, denoiser: Denoiser, before: Callable[[], None]) -> None:
        self.denoiser, self.before = denoiser, before

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        self.before()
        return self.denoiser(x, level, condition)

    def __getattr__(self, name: str) -> object:
        return getattr(self.denoiser, name)

"""A family of diffusion models is one value, which holds all that is its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from iterinv.models import Embed, Stage
from iterinv.models.blueprint import Blueprint
from iterinv.models.memory import CachedTextEncoder
from iterinv.models.text import clip, clip_tokens
from iterinv.models.tokens import Tokenize
from iterinv.models.unet import labelled


def plain_inputs(config: Any, rows: int, dtype: torch.dtype) -> dict[str, Any]:
    """Make examples of a network's inputs besides the sample and its time, by the names of its arguments.

    They are a text (rows, 77, width) and, for a network that enlarges, a label (rows,).
    """
    width = config.encoder_hid_dim or config.cross_attention_dim
    labels = {"class_labels": torch.zeros(rows, dtype=torch.long)} if labelled(config) else {}
    return {"encoder_hidden_states": torch.empty(rows, 77, width, dtype=dtype), **labels}


@dataclass(frozen=True, eq=False)
class Family:
    """A family of models that are loaded, called and prompted alike.

    ``pipelines`` names the classes of diffusers' pipelines whose networks it runs, and ``embed(pipe, size, device,
    clean)`` reads the prompts of one, if that holds the parts for it; ``tokens(pipe, clean)`` tells their tokens apart.
    ``noise_level`` is the label of the noise on the picture from below that those pipelines take where none is given.
    ``cleans`` says that captions can be cleaned, ``any_size`` that the states are as large as the picture below, of any
    size, and ``latent`` that an autoencoder makes them. ``added`` names the entries of a condition that go into
    ``added_cond_kwargs``, and ``inputs(config, rows, dtype)`` makes the arguments of a call with which costs are
    counted. ``published`` holds blueprints by name on the hub.

    ``spare(kind, number, text)`` names the parts of a pipeline that need not be loaded, by its class and its place in
    the cascade; without ``text`` prompts are read apart, where the family can do so: ``words(pipe, folder, dtype,
    place, clean, use_safetensors, variant)`` then reads them, by an encoder in a folder. ``opened(what, name,
    device, allow_pickle)`` makes a stage of a module or a file; a file that runs code when it is opened needs
    ``allow_pickle``.
    """

    pipelines: tuple[str, ...] = ()
    embed: Callable[[Any, int, str, bool], Embed | None] = clip
    tokens: Callable[[Any, bool], Tokenize | None] = clip_tokens
    noise_level: int = 0
    cleans: bool = False
    any_size: bool = False
    latent: bool = True
    added: Mapping[str, str] = field(default_factory=dict)
    inputs: Callable[[Any, int, torch.dtype], dict[str, Any]] = plain_inputs
    published: Mapping[str, Blueprint] = field(default_factory=dict)
    spare: Callable[[str, int, bool], tuple[str, ...]] = lambda *_: ()
    words: Callable[..., CachedTextEncoder | None] = lambda *_, **__: None
    opened: Callable[[Any, str, str, bool], Stage | None] = lambda *_: None

    def side(self, own: int, below: int | None) -> int:
        """Give the height and width of a state: the network's own, or those of the picture below."""
        return below if self.any_size and below else own

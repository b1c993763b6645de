"""A family of diffusion models is one value, which holds all that is its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from iterinv import schedules
from iterinv.guidance import Denoiser
from iterinv.levels import Level
from iterinv.models import Embed, Stage
from iterinv.models.blueprint import Blueprint
from iterinv.models.memory import CachedTextEncoder
from iterinv.models.pipelines import square_side, unet
from iterinv.models.text import clip, clip_tokens
from iterinv.models.tokens import Tokenize
from iterinv.models.unet import labelled
from iterinv.schedules import Flow, Schedule


def plain_inputs(config: Any, rows: int, side: int, dtype: torch.dtype) -> dict[str, Any]:
    """Make examples of a UNet's inputs, by the names of its arguments.

    They are a sample (rows, channels, side, side), its time, a text (rows, 77, width) and, for a network that enlarges,
    a label (rows,).
    """
    width = config.encoder_hid_dim or config.cross_attention_dim
    labels = {"class_labels": torch.zeros(rows, dtype=torch.long)} if labelled(config) else {}
    return {
        "sample": torch.empty(rows, config.in_channels, side, side, dtype=dtype),
        "timestep": torch.zeros(rows, dtype=torch.long),
        "encoder_hidden_states": torch.empty(rows, 77, width, dtype=dtype),
        **labels,
    }


@dataclass(frozen=True, eq=False)
class Family:
    """A family of models that are loaded, called and prompted alike.

    ``pipelines`` names the classes of diffusers' pipelines whose networks it runs, and ``embed(pipe, size, device,
    clean)`` reads the prompts of one, if that holds the parts for it; ``tokens(pipe, clean)`` tells their tokens apart.
    ``noise_level`` is the label of the noise on the picture from below that those pipelines take where none is given.
    ``cleans`` says that captions can be cleaned, ``any_size`` that the states are as large as the picture below, of any
    size, and ``latent`` that an autoencoder makes them, ``shifts`` that its latents are shifted before they are scaled.
    ``side`` is the height and width of a state where the configuration of the network gives none.

    ``network`` names the part of a pipeline that is its network, and ``denoiser(pipe, channels, low_level)`` checks it
    and makes it a denoiser of states of so many channels, with the level of the noise on the picture from below.
    ``schedule(config)`` reads the configuration of a scheduler. ``inputs(config, rows, side, dtype)`` makes the
    arguments of a call with which costs are counted. ``distilled_guidance`` is the guidance scale that a network with
    an input for it takes where none is given. ``published`` holds blueprints by name on the hub.

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
    shifts: bool = False
    side: int | None = None
    network: str = "unet"
    denoiser: Callable[[Any, int, Level | None], Denoiser] = unet
    schedule: Callable[[Mapping[str, Any]], Schedule | Flow] = schedules.from_config
    inputs: Callable[[Any, int, int, torch.dtype], dict[str, Any]] = plain_inputs
    distilled_guidance: float = 1.0
    published: Mapping[str, Blueprint] = field(default_factory=dict)
    spare: Callable[[str, int, bool], tuple[str, ...]] = lambda *_: ()
    words: Callable[..., CachedTextEncoder | None] = lambda *_, **__: None
    opened: Callable[[Any, str, str, bool], Stage | None] = lambda *_: None

    def state_side(self, config: Any, name: str, below: int | None) -> int:
        """Give the height and width of a state: those of the picture below, or of the network's configuration.

        Raises ``ValueError``, in a sentence on ``name``, where that gives none, or not a square.
        """
        own = square_side(config, name, self.network, self.side)
        return below if self.any_size and below else own

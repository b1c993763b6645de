"""Families of diffusion models have a file each, which says which of diffusers' pipelines are theirs and how they
differ.

A family is a :class:`iterinv.families.family.Family`; only :data:`FAMILIES` knows them all.
"""

from __future__ import annotations

from typing import Any

from iterinv.families.deepfloyd import DEEPFLOYD
from iterinv.families.edm import EDM
from iterinv.families.family import Family
from iterinv.families.sdxl import SDXL
from iterinv.families.stable_diffusion import STABLE_DIFFUSION
from iterinv.families.upscaler import UPSCALER
from iterinv.models import Stage, pipelines
from iterinv.models.memory import CachedTextEncoder
from iterinv.models.unet import UNetDenoiser

FAMILIES = [DEEPFLOYD, UPSCALER, STABLE_DIFFUSION, SDXL, EDM]
"""All families; one of your own is found by being listed here."""

PUBLISHED = {name: each for family in FAMILIES for name, each in family.published.items()}
"""All published stages by name on the hub."""


def family_of(kind: str | None, what: object = "this") -> Family:
    """Find the family of a pipeline's class by its name. Raises ``ValueError`` for another class, in a sentence on
    ``what``."""
    for family in FAMILIES:
        if kind in family.pipelines:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.pipelines)
    raise ValueError(f"{what} is a {kind}; a stage of a cascade is one of {known}")


def opened(what: Any, name: str, device: str) -> Stage | None:
    """Open a module or a file by the family that knows it; ``None`` for what no family opens itself."""
    return next((stage for family in FAMILIES if (stage := family.opened(what, name, device))), None)


def stage(
    pipe: Any,
    number: int = 0,
    below: Stage | None = None,
    noise_level: int | None = None,
    clean: bool = False,
    device: str | None = None,
    words: CachedTextEncoder | None = None,
    tiled: bool = False,
) -> Stage:
    """Make a live pipeline the ``number``-th stage of a cascade, from 0; its networks are shared, not copied.

    Networks are set to evaluation, without gradients of their weights and in channels-last layout, an autoencoder to
    float32. ``below`` is the stage whose pictures it enlarges; it reads the words where the pipeline has no text
    encoder, as IF-II may. ``noise_level`` is the label of the noise on the picture from below, in a stage that takes
    one; ``clean`` is IF's ``clean_caption``. ``device`` is where states are, if not where the network is now; ``words``
    reads them in place of the pipeline's encoder; ``tiled`` lets an autoencoder work tile by tile. Raises
    ``ValueError`` for another kind of pipeline, scheduler, prediction or class label, for a network of several
    precisions, and for a noise level that the schedule lacks; ``FileNotFoundError`` where nothing reads the words.
    """
    family = family_of(type(pipe).__name__)
    schedule = pipelines.schedule(pipe.scheduler)  # first, since an unknown scheduler may say no prediction type
    unet = pipelines.unet(pipe)
    device = device or str(unet.device)
    codec = pipelines.autoencoder(pipe, device, tiled)
    size = family.side(unet.config.sample_size, below.size if below else None) * (codec.factor if codec else 1)
    low_level = pipelines.low_level(pipe, family.noise_level if noise_level is None else noise_level)
    embed = words or family.embed(pipe, size, device, clean) or (below.embed if below else None)
    if embed is None:
        raise FileNotFoundError(
            f"{pipelines.whose(pipe)} holds no text encoder or no tokenizer; the first stage of a cascade must "
            "have both"
        )
    label = 0 if low_level is None else int(low_level.t)
    return Stage(
        "I" * (number + 1),
        size,
        UNetDenoiser(unet, pipe.scheduler.config.prediction_type, low_level, family.added),
        schedule,
        embed,
        pipelines.fingerprint(pipe, label, words, tiled and codec is not None),
        low_level,
        device,
        codec,
        None
        if words
        else lambda where, lower: stage(pipe.to(where), number, lower, noise_level, clean, where, None, tiled),
    )

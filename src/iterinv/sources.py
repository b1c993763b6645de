"""Sources of cascades: by name, from folders, from the hub, from pipelines that are loaded already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from iterinv import families
from iterinv.models import Stage, folders
from iterinv.models.memory import CachedTextEncoder, Placement
from iterinv.models.pipelines import PARTS, SCHEDULERS, read_json
from iterinv.presets import Source, presets

ModelSource = str | Path | Any
"""A preset's name, a cascade folder, a diffusers folder, a TorchScript file, a name on the hub (``owner/name``, or
``owner/name@revision``), a live pipeline or module."""

UNUSED = ("safety_checker", "feature_extractor", "watermarker")
"""Parts of pipelines that inversion has no use for."""


def stages(
    what: ModelSource | Sequence[ModelSource],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    noise_level: int | None = None,
    clean: bool | None = None,
    allow_pickle: bool = False,
    mode: str | None = None,
    tiled: bool = False,
    **how: Any,
) -> tuple[Stage, ...]:
    """The stages of a cascade, smallest first; a sequence is a stage each.

    ``mode`` is one of :data:`iterinv.costs.MODES`, for networks that do not fit on the device together; with
    any, a T5 encoder is loaded only to read new words. ``tiled`` lets autoencoders work tile by tile, in less memory.
    ``how`` goes to diffusers' ``from_pretrained``: ``variant``, ``revision``, ``local_files_only``. The words are read
    by the first stage's encoder wherever that of another stage is of the same kind. Raises ``FileNotFoundError`` for
    what is not there, saying how to get it, and ``ValueError`` for what is no stage and for one revision of several
    repositories.
    """
    preset = presets().get(what) if isinstance(what, str) else None
    parts: list[ModelSource] = list(preset.sources) if preset else [what]
    if preset is None and isinstance(what, Sequence) and not isinstance(what, str):
        parts = list(what)
    if preset is not None and noise_level is None:
        noise_level = preset.noise_level
    if len(parts) == 1 and (folder := cascade_folder(parts[0])):
        parts, level = folder
        noise_level = level if noise_level is None else noise_level
    if len(parts) > 1 and how.get("revision"):
        raise ValueError(
            "a revision is of one repository, and this cascade is of several: name each as owner/name@revision"
        )
    clean = preset is not None and preset.clean if clean is None else clean
    place = Placement(device, mode)
    pipes: dict[Any, tuple[Any, CachedTextEncoder | None]] = {}
    found: list[Stage] = []
    for part in parts:
        if own := families.opened(part, "I" * (len(found) + 1), device):
            found.append(own)
            continue
        key = part if isinstance(part, (str, Path, Source)) else id(part)
        new = key not in pipes  # a cascade may have one network twice
        if new:
            pipes[key] = _pipe(part, len(found), dtype, place, clean, allow_pickle, how)
        pipe, words = pipes[key]
        where = place.device if isinstance(part, (str, Path, Source)) else None
        below = found[-1] if found else None
        found.append(families.stage(pipe, len(found), below, noise_level, clean, where, words, tiled))
        if new and where:
            place.settle(pipe)
    return tuple(found)


def cascade_folder(what: ModelSource) -> tuple[list[ModelSource], int] | None:
    """The parts and the noise level of a folder with a ``cascade.json``, ``None`` for anything but a folder of
    stages."""
    if isinstance(what, (str, Path)) and Path(what).is_dir() and not (Path(what) / "model_index.json").exists():
        parts, noise_level = folders.parts(Path(what))
        return list(parts), noise_level
    return None


def _pipe(
    part: ModelSource,
    number: int,
    dtype: torch.dtype,
    place: Placement,
    clean: bool,
    allow_pickle: bool,
    how: dict[str, Any],
) -> tuple[Any, CachedTextEncoder | None]:
    """A pipeline, its networks in main memory; and what reads its words, if its own encoder is not loaded."""
    if not isinstance(part, (str, Path, Source)):
        return part, None
    text, safe = place.mode is None, None if allow_pickle else True
    if not isinstance(part, Source) and Path(part).exists():
        pipe = open_folder(Path(part), number, dtype, allow_pickle, text, **how)
        return pipe, families.family_of(type(pipe).__name__).words(pipe, Path(part), dtype, place, clean)
    source = part
    if not isinstance(source, Source):
        name, _, revision = str(part).partition("@")
        source, how = Source(name), {**how, "revision": revision} if revision else how
    if "/" not in source.name:
        raise FileNotFoundError(
            f"there is no folder {source.name}, and no cascade of that name: take a folder, a name on the hub "
            "(owner/name) or "
            f"one of {', '.join(presets())}"
        )
    reasons = []
    for name in source.names:
        try:
            pipe = from_pretrained(name, number, dtype, safe, text, **how)
            return pipe, families.family_of(type(pipe).__name__).words(pipe, name, dtype, place, clean, **how)
        except OSError as error:
            reasons.append(str(error).split(". ")[0].splitlines()[0].rstrip("."))
    raise FileNotFoundError(
        f"{' and '.join(source.names)} is not on this machine and cannot be fetched ({reasons[0]}): {source.remedy}"
    )


def open_folder(
    folder: Path,
    number: int = 0,
    dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
    text: bool = True,
    **how: Any,
) -> Any:
    """The pipeline in a diffusers folder, as :func:`from_pretrained` loads it.

    ``how`` goes to ``from_pretrained`` (``variant``). Raises ``FileNotFoundError`` for a folder without
    ``model_index.json``, ``ValueError`` for another kind of pipeline and for weights that are there only as pickles,
    unless ``allow_pickle``.
    """
    file = folder / "model_index.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no model_index.json: it is not a diffusers pipeline folder")
    index = read_json(file)
    families.family_of(index.get("_class_name"), folder)
    for part in (*PARTS, *SCHEDULERS):
        if index.get(part, [None])[0] is not None and not any((folder / part).glob("*")):
            raise FileNotFoundError(
                f"{folder} holds no {part}, though its model_index.json names one: get the folder again"
            )
    for part in PARTS:
        held = [each.suffix for each in (folder / part).glob("*") if each.suffix in (".safetensors", ".bin")]
        if held and ".safetensors" not in held and not allow_pickle:
            raise ValueError(
                f"{folder / part} holds its weights only as a pickle (.bin), which runs code when it is read: get the "
                ".safetensors, or allow pickles (allow_pickle=True, --allow-pickle) if you trust who made it"
            )
    return from_pretrained(folder, number, dtype, None if allow_pickle else True, text, **how)


def from_pretrained(
    what: str | Path,
    number: int,
    dtype: torch.dtype,
    use_safetensors: bool | None = True,
    text: bool = True,
    **how: Any,
) -> Any:
    """``DiffusionPipeline.from_pretrained`` for the ``number``-th stage of a cascade: the autoencoder in float32,
    without what inversion has no use for and what its family can do without. ``text`` is whether an encoder is to be
    there from the start. Raises ``ValueError`` for another kind of pipeline."""
    from diffusers import DiffusionPipeline

    where = {key: how[key] for key in ("revision", "local_files_only") if key in how}
    config = DiffusionPipeline.load_config(what, **where)
    kind = config["_class_name"]
    spare = families.family_of(kind, what).spare(kind, number, text)
    absent: dict[str, Any] = {name: None for name in (*UNUSED, *spare) if name in config}
    absent |= {"requires_safety_checker": False} if "requires_safety_checker" in config else {}
    dtypes = {"default": dtype, "vae": torch.float32}
    return DiffusionPipeline.from_pretrained(what, dtype=dtypes, use_safetensors=use_safetensors, **absent, **how)

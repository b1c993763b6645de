"""Sweeps: the requests of a grid of edits, and their contact sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from iterinv import images
from iterinv.cli.options import numbers_of, values_of
from iterinv.commands import edit_command
from iterinv.evaluate.folder import write_json
from iterinv.masks import GivenMask
from iterinv.workbench import EditRequest, Result, made_by

COLUMNS = 6
"""The most pictures in a row."""

AXES = {"prompts": "to", "mask": "region", "strength": "strength", "guidance_scale": "guidance", "edit_seed": "seed"}
"""The fields of a request that a sweep varies, outer to inner, and their names on the sheet."""


def requests_of(
    base: EditRequest,
    strength: str | None,
    guidance: str | None,
    seed: str | None,
    masks: Sequence[Path],
    boxes: Sequence[str],
    own: bool,
) -> list[EditRequest]:
    """A request for every combination of prompts, regions, strengths, guidance scales and seeds. Raises ``ValueError``
    for what is no list of numbers."""
    regions: list[GivenMask | None] = [GivenMask(mask) for mask in masks]
    regions += [GivenMask(box=numbers_of("--box", box, 4)) for box in boxes]  # type: ignore[arg-type]
    values = (
        [(prompt,) for prompt in dict.fromkeys(base.prompts)],
        [None, *regions] if own or not regions else regions,
        values_of("--strength", strength, float),
        values_of("--edit-guidance", guidance, float),
        values_of("--edit-seed", seed, int),
    )
    return [replace(base, **dict(zip(AXES, each, strict=True))) for each in product(*values)]


def write(requests: Sequence[EditRequest], results: Iterable[Result], folder: Path, out: Path) -> list[dict[str, Any]]:
    """Write ``sweep.png``, the labelled pictures, and ``sweep.json``, the settings, report and command of each, to a
    folder; return the latter. ``out`` is the folder that the commands write below."""
    varied = [name for name in AXES if len({getattr(each, name) for each in requests}) > 1]
    shown, cells, done = [], [], list(results)
    (canvas,) = done[0].inversion.canvases
    for k, (request, result) in enumerate(zip(requests, done, strict=True), 1):
        (edit,), settings = result.edits, {AXES[name]: _shown(getattr(request, name)) for name in varied}
        label = "\n".join([f"{k}", *(f"{name} {value}" for name, value in settings.items())])
        shown.append((label, canvas.place(edit.pictures[-1])))
        command = edit_command(replace(request, size=None), out / f"cell-{k}")
        cells.append({"cell": k, "settings": settings, "edit": result.edit_reports[0], "command": command})
    across = len({getattr(each, varied[-1]) for each in requests}) if varied else 1
    columns = min(across, COLUMNS)
    rows = [[("original", canvas.image)], *(shown[k : k + columns] for k in range(0, len(shown), columns))]
    sheet = made_by(None, done[0].cascade, "a sheet of edits")
    sheet["cells"] = [
        {"settings": cell["settings"], **result.settings("an edited picture", result.report(), 0)}
        for cell, result in zip(cells, done, strict=True)
    ]
    images.save(images.labelled(rows), folder / "sweep.png", sheet)
    write_json(folder / "sweep.json", {"cells": cells})
    return cells


def _shown(value: Any) -> Any:
    """A setting as a short text or a number."""
    if isinstance(value, tuple):
        return value[0]
    if isinstance(value, GivenMask):
        return value.file.name if value.file else ",".join(map(str, value.box or ()))
    return "its own" if value is None else value

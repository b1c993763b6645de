"""SceneEdit: editing by words where the right answer exists, since every picture is rendered.

Each task is a held-out scene, its caption, and the caption of the same scene with one thing changed. The editor
receives the two captions and nothing else; :mod:`iterinv.embedded.reader` reads its picture, which is also compared
with the true render.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iterinv import images
from iterinv.cascade import Cascade
from iterinv.edits.site import Editor
from iterinv.embedded.evaluate.tasks import KINDS, SceneEdit, scene_edit
from iterinv.embedded.inspector import SIZE as INSPECTED
from iterinv.embedded.inspector import WEIGHTS as INSPECTOR
from iterinv.embedded.inspector import clean
from iterinv.embedded.reader import WEIGHTS, SceneAttributes, ThingAttributes, features, read
from iterinv.embedded.scenes import OF_SCENE, Scene, render
from iterinv.embedded.seeds import SCENE_EDIT
from iterinv.evaluate.folder import append_line, read_lines, settle
from iterinv.files import writing
from iterinv.inversion import Inversion
from iterinv.methods import plan
from iterinv.metrics import ghost, psnr, sharpness, ssim, st_lpips
from iterinv.metrics.st_lpips import missing
from iterinv.observer import Observer
from iterinv.plans import Plan

SHARES = ("success", "kept", "both", "clean", "good")
MEANS = ("inside", "outside", "ssim", "features", "iou", "leakage", "ghost", "st_lpips", "back", "onward")
"""The figures of a row: yes, no or ``None``, and numbers or ``None``."""

SHOWN = 10
"""Tasks on each contact sheet."""


def evaluate(
    cascade: Cascade,
    editor: Editor,
    folder: Path,
    method: str = "bdia",
    steps: int = 20,
    kinds: Sequence[str] = KINDS,
    count: int = 200,
    share: tuple[int, int] = (1, 1),
    observer: Observer | None = None,
    again: int = 0,
    true_region: bool = False,
    only: Collection[tuple[str, int]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one row per task when it is done, ``count`` scenes by ``kinds``. Each row is a line of
    ``folder/rows.jsonl`` and is not done again; :func:`rows` returns all of them.

    ``share`` (k, n) does the k-th of n shares of the scenes: as many processes may work on one folder. The edits of the
    first ``again`` scenes are edited once more, back and onward (:func:`edited_again`). With ``true_region`` the editor
    is given the region where the true answer differs, in place of its own. ``only`` names the tasks to do, by kind and
    seed, in place of all. Raises ``ValueError`` for a kind or a share that there is not, and where the folder holds
    rows of other settings.
    """
    if not 1 <= share[0] <= share[1]:
        raise ValueError(f"share is {share[0]}/{share[1]}; the shares of n are 1/n to n/n")
    for kind in kinds:
        scene_edit(0, kind)
    how = plan(method, steps)
    facts = {"model": cascade.fingerprint, "editor": str(editor), "method": method, "steps": steps}
    settle(folder, {**facts, "reader": _judges(), "true_region": true_region})
    with writing(folder / "edited"):
        (folder / "edited").mkdir(exist_ok=True)
    done = {(row["kind"], row["seed"]) for row in rows(folder, kinds, count)}
    for seed in range(SCENE_EDIT + share[0] - 1, SCENE_EDIT + count, share[1]):
        inverted: dict[Scene, Inversion] = {}
        for kind in dict.fromkeys(kinds):
            if (kind, seed) in done or (only is not None and (kind, seed) not in only):
                continue
            task, began = scene_edit(seed, kind), time.perf_counter()
            x = _drawn(task.source, cascade.size)
            if task.source not in inverted:
                inverted[task.source] = cascade.invert(x, task.prompt, how, as_needed=True, observer=observer)
            mask = task.region(cascade.size)[0].numpy() if true_region else None
            edit = cascade.edit(inverted[task.source], task.to, editor, mask=mask, observer=observer)
            row = {"kind": kind, "seed": seed, "prompt": task.prompt, "to": task.to}
            row |= score(task, x, edit.pictures[-1].float(), edit.masks[-1] if edit.masks else None)
            row["seconds"] = round(time.perf_counter() - began, 3)
            row |= {"back": None, "onward": None}
            if seed < SCENE_EDIT + again:
                row |= edited_again(cascade, editor, how, task, x, edit.pictures[-1].float())
            settings = {"what": "an edited scene", **{key: row[key] for key in ("kind", "seed", "prompt")}}
            settings |= {"method": method, "steps": steps, "weights": cascade.fingerprint}
            settings["edit"] = {"to": task.to, "editor": str(editor)}
            images.save(images.to_uint8(edit.pictures[-1]), picture_of(folder, row), settings)
            append_line(folder / "rows.jsonl", row)
            yield row


def rows(folder: Path, kinds: Sequence[str] = KINDS, count: int | None = None) -> list[dict[str, Any]]:
    """The rows of a folder, one a task of the first ``count`` scenes by ``kinds``, in the order they were done. Lines
    that are cut off or no rows, and rows whose picture cannot be read, are left out."""
    by_task: dict[tuple[str, int], dict[str, Any]] = {}
    for row in read_lines(folder / "rows.jsonl"):
        if _is_row(row) and row["kind"] in kinds and (count is None or row["seed"] < SCENE_EDIT + count):
            key = row["kind"], row["seed"]
            if key not in by_task and _readable(picture_of(folder, row)):
                by_task[key] = row
    return list(by_task.values())


def _judges() -> str:
    """A hash of the weights of the reader and the inspector."""
    return hashlib.sha256(WEIGHTS.read_bytes() + INSPECTOR.read_bytes()).hexdigest()[:16]


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and set(SHARES) | set(MEANS) | {"kind", "seed", "sharpness"} <= set(row)
        and row["kind"] in KINDS
        and type(row["seed"]) is int
        and row["seed"] >= SCENE_EDIT
        and all(row[key] is None or type(row[key]) is bool for key in SHARES)
        and all(row[key] is None or type(row[key]) in (int, float) for key in (*MEANS, "sharpness"))
    )


def picture_of(folder: Path, row: dict[str, Any]) -> Path:
    """The file of a task's edited picture."""
    return folder / "edited" / f"{row['kind']}-{row['seed']}.png"


def _readable(picture: Path) -> bool:
    try:
        with Image.open(picture) as file:
            file.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def score(task: SceneEdit, x: Tensor, edited: Tensor, mask: Tensor | None) -> dict[str, Any]:
    """Score an edited picture (1, 3, size, size); ``x`` is the source's.

    ``success``: the reader sees the requested change; ``kept``: it sees everything else unchanged; ``both`` of them.
    All three are ``None`` where the reader misreads the true answer, so cannot judge. ``inside`` is the
    PSNR to the truth where the truth differs from the source. ``outside`` is the PSNR to the source elsewhere, ``None``
    where all pixels are equal, and ``ssim`` the SSIM there. ``features`` is the distance to the truth in the reader's
    features, and ``iou`` the overlap of ``mask``, where the edit may change the picture, with the true region.
    ``sharpness`` compares the gradients inside with the truth's, and ``leakage`` is the share of all change that lies
    outside. ``ghost`` is the source's structure that is left inside, and ``st_lpips`` the perceptual distance to the
    truth, ``None`` without its weights. ``clean``: the inspector sees no broken place, ``None`` at other sizes than its
    own; ``good``: all of success, kept and clean.
    """
    size = x.shape[-1]
    truth, region = _drawn(task.target, size), task.region(size)[None]
    inside = region[0, 0].numpy() > 0
    source8, now8 = images.to_uint8(x), images.to_uint8(edited)
    change = np.abs(source8.astype(int) - now8).sum(-1)
    predicted, source, target = read(edited)[0], SceneAttributes.of(task.source), SceneAttributes.of(task.target)
    truth8 = images.to_uint8(truth)
    judges = succeeded, preserved
    answer = read(truth)[0]
    able = all(judge(task.kind, answer, source, target) for judge in judges)
    success, kept = (judge(task.kind, predicted, source, target) if able else None for judge in judges)
    fine = clean(edited)[0] if size == INSPECTED else None
    return {
        "success": success,
        "kept": kept,
        "both": success and kept,
        "clean": fine,
        "good": success and kept and fine is not False if able else None,
        "inside": psnr(truth8, now8, inside),
        "outside": psnr(source8, now8, ~inside),
        "ssim": ssim(source8, now8, ~inside),
        "features": float((features(edited) - features(truth)).norm()),
        "iou": None if mask is None else float((mask * region).sum() / torch.maximum(mask, region).sum()),
        "sharpness": sharpness(truth8, now8, inside),
        "ghost": ghost(source8, truth8, now8, inside),
        "st_lpips": None if missing() else st_lpips(truth8, now8),
        "leakage": float(change[~inside].sum() / change.sum()) if change.any() else None,
    }


def edited_again(
    cascade: Cascade, editor: Editor, how: Plan, task: SceneEdit, x: Tensor, edited: Tensor
) -> dict[str, float | None]:
    """Edit an edited picture (1, 3, size, size) once more. ``back``: by the source's caption, the PSNR to the source's
    picture ``x``. ``onward``: by a caption with another wall too, the PSNR to the true render of both changes."""
    size, now = x.shape[-1], images.from_uint8(images.to_uint8(edited))
    walls = list(OF_SCENE["wall"])
    further = replace(task.target, wall=walls[(walls.index(task.target.wall) + 1) % len(walls)])
    inversion = cascade.invert(now, task.to, how, as_needed=True)
    figures = {}
    for name, words, wanted in (("back", task.prompt, x), ("onward", task.words(further), _drawn(further, size))):
        result = cascade.edit(inversion, words, editor).pictures[-1].float()
        figures[name] = psnr(images.to_uint8(wanted), images.to_uint8(result))
    return figures


def succeeded(kind: str, predicted: SceneAttributes, source: SceneAttributes, target: SceneAttributes) -> bool:
    """Tell whether the reader sees the requested change. A removal must leave the other thing in shape and colour, or
    none; an addition must show all attributes of the new thing."""
    if kind in ("floor", "wall"):
        return bool(getattr(predicted, kind) == getattr(target, kind))
    if len(predicted.things) != len(target.things):
        return False
    if kind == "move":
        return predicted.side == target.side
    if kind in ("remove", "clear"):
        return all(thing[:2] == true[:2] for thing, true in zip(predicted.things, target.things, strict=True))
    if kind == "add":
        k = _new(source, target)
        return predicted.things[k] == target.things[k]
    (k,) = (k for k, look in enumerate(target.things) if look != source.things[k])
    name = {"recolour": "color", "reshape": "shape", "resize": "size"}.get(kind, kind)
    return bool(getattr(predicted.things[k], name) == getattr(target.things[k], name))


def _new(source: SceneAttributes, target: SceneAttributes) -> int:
    """Find the target's thing that the source lacks; the two may look alike."""
    return next(k for k in range(len(target.things)) if target.things[:k] + target.things[k + 1 :] == source.things)


def preserved(kind: str, predicted: SceneAttributes, source: SceneAttributes, target: SceneAttributes) -> bool:
    """Tell whether the reader sees everything else unchanged: the things that stay, the floor and the wall."""
    if any(getattr(predicted, name) != getattr(target, name) for name in ("floor", "wall") if name != kind):
        return False
    if len(source.things) != len(target.things):
        return all(thing in predicted.things for thing in min(source.things, target.things, key=len))
    return len(predicted.things) == len(target.things) and all(
        getattr(each, name) == getattr(look, name)
        for each, before, look in zip(predicted.things, source.things, target.things, strict=True)
        for name in ThingAttributes._fields
        if getattr(before, name) == getattr(look, name)
    )


def summary(task_rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make one row per kind, and one for all: shares and means of those that are known, and the least ``outside``.
    ``judged`` is the number of tasks that the reader can judge. ``outside_exact`` is the share of tasks whose pixels
    outside are all equal, where there is no PSNR to count. ``sharpness`` is a median."""
    summaries = []
    for kind in [*(k for k in KINDS if any(row["kind"] == k for row in task_rows)), "all"]:
        these = [row for row in task_rows if kind in ("all", row["kind"])]
        least = min((row["outside"] for row in these if row["outside"] is not None), default=None)
        means = {key: _mean(row[key] for row in these) for key in (*SHARES, *MEANS)}
        sharp = [row["sharpness"] for row in these if row["sharpness"] is not None]
        means["sharpness"] = float(np.median(sharp)) if sharp else None
        exact = float(np.mean([row["outside"] is None for row in these]))
        able = sum(row["both"] is not None for row in these)
        counts = {"kind": kind, "tasks": len(these), "judged": able}
        summaries.append({**counts, **means, "outside_least": least, "outside_exact": exact})
    return summaries


def draw(task_rows: Sequence[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Draw ``count`` of the rows by a seed, whatever order they were done in."""
    ordered = sorted(task_rows, key=lambda row: (row["seed"], KINDS.index(row["kind"])))
    return random.Random(seed).sample(ordered, min(count, len(ordered)))


def ranked(task_rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows by ``inside``, the best first."""
    return sorted(task_rows, key=lambda row: -math.inf if row["inside"] is None else -row["inside"])


def sheets(
    folder: Path,
    task_rows: Sequence[dict[str, Any]],
    size: int = 128,
    names: Collection[str] = ("best", "median", "worst"),
) -> None:
    """Write ``best.png``, ``median.png`` and ``worst.png``, or those of ``names``, by ``inside``: source, edited,
    truth; two tasks per row."""
    ordered = ranked(task_rows)
    middle = max(0, (len(ordered) - SHOWN) // 2)
    chosen = {"best": ordered[:SHOWN], "median": ordered[middle:][:SHOWN], "worst": ordered[-SHOWN:]}
    for name in names:
        images.save(_sheet(folder, chosen[name], size, 2), folder / f"{name}.png", _shown(name, chosen[name]))


def _sheet(folder: Path, task_rows: Sequence[dict[str, Any]], size: int, across: int) -> Image.Image:
    """A sheet of tasks, ``across`` of them per row: source, edited, truth."""
    sheet = Image.new("RGB", (3 * across * size, -(-len(task_rows) // across) * size), "white")
    for k, row in enumerate(task_rows):
        task = scene_edit(row["seed"], row["kind"])
        with Image.open(picture_of(folder, row)) as file:
            edited = file.convert("RGB")
        drawn = [Image.fromarray(images.to_uint8(_drawn(each, edited.width))) for each in (task.source, task.target)]
        for j, picture in enumerate((drawn[0], edited, drawn[1])):
            sheet.paste(picture.resize((size, size)), ((k % across * 3 + j) * size, k // across * size))
    return sheet


def drawn_sheet(
    folder: Path, task_rows: Sequence[dict[str, Any]], count: int, seed: int, size: int = 128
) -> list[dict[str, Any]]:
    """Write ``drawn.png``: the tasks of :func:`draw`: source, edited, truth; four tasks per row. Returns their rows."""
    chosen = draw(task_rows, count, seed)
    images.save(_sheet(folder, chosen, size, 4), folder / "drawn.png", _shown("drawn", chosen))
    return chosen


def _shown(name: str, task_rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings that a sheet of tasks carries."""
    return {"what": f"a sheet of edits, {name}", "tasks": [[row["kind"], row["seed"]] for row in task_rows]}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return float(np.mean(known)) if known else None


def _drawn(scene: Scene, size: int) -> Tensor:
    """The render (1, 3, size, size), rounded to 8 bits as a picture file is."""
    return images.from_uint8(images.to_uint8(render(scene, size)[None]))

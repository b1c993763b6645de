"""SceneEdit: held-out scenes by ten kinds of edit, by editors after inversion methods.

Resumable: `python benchmarks/scenes.py SIZE:EDITOR:METHOD:COUNT …` does what is missing of COUNT scenes a kind at SIZE
px by each, and reports them; with `:region` behind it the editor is given the true region. The rows in docs/benchmarks
that were measured on the same weights are not measured again: delete them when an editor has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import Progress

from common import COMMIT, OUT, RESUMED, ROOT, STAGES, measured, publish, shipping, short, table
from iterinv.cascade import load
from iterinv.edits import EDITORS
from iterinv.embedded.evaluate import scene_edit as scenes
from iterinv.embedded.evaluate.tasks import KINDS
from iterinv.embedded.seeds import SCENE_EDIT
from iterinv.evaluate.folder import processes

RUNS = ("256:automatic:bdia:44",)
"""Size, editor, method and number of scenes of each run: enough for the reader to judge 40 tasks of each kind."""

SHARES = ("success", "kept", "both", "clean", "good")
Task = tuple[str, int]
"""The kind and the seed of a task."""

AGAIN = 1
"""The number of scenes of each kind whose edits are edited again."""

DRAWN, SEED = 40, 2026
"""The number of edits of the first run that are shown as they were drawn, none chosen; and the seed that draws them."""

BY_EYE: dict[str, dict[str, str]] = {
    "d155bbc3697b": {
        "material 2200005": "no highlight",
        "wall 2200011": "patchy shading of the cylinder",
        "add 2200005": "torn base",
        "remove 2200000": "the sphere that should stay is lumpy",
        "floor 2200016": "blurred horizon",
        "recolour 2200016": "a ghost beside the cone",
        "resize 2200012": "ragged tip",
        "remove 2200022": "a smudge on the floor",
        "recolour 2200023": "a halo",
        "floor 2200020": "ragged outline",
        "reshape 2200033": "jagged outline",
        "clear 2200030": "missing planks",
        "resize 2200031": "rough outline",
        "floor 2200029": "lumpy cube",
        "recolour 2200035": "a halo",
        "clear 2200039": "blurred planks",
        "floor 2200039": "rounded corners",
        "clear 2200034": "bent horizon",
        "resize 2200017": "rough outline",
        "material 2200018": "a ring where the highlight was",
        "reshape 2200038": "pale smear at the base",
        "wall 2200028": "halos",
        "wall 2200031": "pale tip",
        "wall 2200038": "the wall shows through the cube",
    }
}
"""By the pixels of the sheet, the drawn edits that a person takes for no render with the change made, and why."""


def run_all(size: int, editor: str, method: str, count: int, folder: Path, region: bool, only: set[Task]) -> None:
    """Do the tasks ``only``, a process a core, each with its share of the scenes."""
    cores = os.cpu_count() or 1
    jobs = ((size, editor, method, count, folder, (k + 1, cores), region, only) for k in range(cores))
    with processes() as pool:
        done = pool.starmap_async(one_share, jobs, chunksize=1)
        with Progress() as bar:
            task = bar.add_task(folder.name, total=len(only))
            while not done.ready():
                done.wait(5)
                bar.update(task, completed=len(only & {_task(row) for row in scenes.rows(folder, count=count)}))
        done.get()


def one_share(
    size: int, editor: str, method: str, count: int, folder: Path, share: tuple[int, int], region: bool, only: set[Task]
) -> None:
    cascade, again = load().up_to(size), 0 if region else AGAIN
    how = EDITORS[editor](), folder, method, 20, KINDS, count, share, None, again, region, only
    done = scenes.evaluate(cascade, *how)
    for _ in done:
        pass


def main(runs: tuple[str, ...] = RUNS) -> None:
    began, weights, tables = time.time(), short(load()), []
    drawn: list[dict[str, Any]] = []
    for run in runs:
        size, editor, method, count, *region = run.split(":")
        name = "-".join([editor, method, size, *region])
        folder = ROOT / "runs" / "scene-edit" / f"{weights}-{name}"
        work = partial(run_all, int(size), editor, method, int(count), folder, bool(region))
        every = {(kind, seed) for kind in KINDS for seed in range(SCENE_EDIT, SCENE_EDIT + int(count))}
        file = OUT / f"scenes-{name}.jsonl"
        known = {_task(row): row for row in measured(file) if _task(row) in every}
        work(every - set(known))
        known = {_task(row): row for row in scenes.rows(folder, count=int(count))} | known
        if len(known) != len(every):
            raise RuntimeError(f"{folder} holds {len(known)} of {len(every)} tasks: run this again")
        task_rows = sorted(known.values(), key=_order)
        file.write_text("".join(_line(row) for row in task_rows), encoding="utf-8")
        at = Counter(row.get("commit", COMMIT) for row in task_rows)
        commits = ", ".join(f"{number} at {commit}" for commit, number in at.items())
        footer = f"Every edit: [scenes-{name}.jsonl](scenes-{name}.jsonl); {commits}."
        heading = f"## {editor} at {size} px, inverted by {method}{', the true region given' if region else ''}"
        tables.append(f"{heading}\n\n{_table(scenes.summary(task_rows))}\n\n{footer}")
        if run == runs[0]:
            shown = [*scenes.draw(task_rows, DRAWN, SEED), *scenes.ranked(task_rows)[-scenes.SHOWN :]]
            work({_task(row) for row in shown if not scenes.picture_of(folder, row).exists()})
            drawn = scenes.drawn_sheet(folder, task_rows, DRAWN, SEED)
            scenes.sheets(folder, task_rows, names=("worst",))
            for sheet in ("drawn", "worst"):
                shutil.copy(folder / f"{sheet}.png", OUT / f"scenes-{sheet}.png")
    body = f"""
Held-out scenes, as many of each kind as the tables say, by editors with their defaults, which are given the two
captions and nothing else. *Success*: the [reader](reader.md), which reads pictures at 64 px, sees the requested change;
*kept*: it sees everything else unchanged; *both* of them. A task whose true answer the reader misreads is not *judged*:
these shares are of the others. *Clean*: the [inspector](reader.md), which sees 256 px, finds no broken place; *good*:
all three. *Inside*: PSNR to the true render where it differs from the source (the thing, its shadow, its reflections);
*outside*: to the source elsewhere, mean and least, of the pictures where any pixel there differs; *exact* is the share
where none does. *Features*: distance to the truth in the reader's features. *IoU*: of the region where the last stage
may change the picture and the true region. *Sharpness*: gradients inside, in units of the truth's (median). *Leakage*:
the share of all change that lies outside the true region. *Ghost*: the share of the source's fine structure that is
left inside. *ST-LPIPS*: perceptual distance to the true render. *Back* and *onward*: edits of the first scenes ({AGAIN}
of each kind) edited once more, back by the source's caption and onward to another wall, PSNR to the true picture.

{(chr(10) * 2).join(tables)}

## {DRAWN} edits, drawn by a seed

Of the first table, none chosen: source, edited, truth; four tasks per row. {RESUMED}
{_by_eye(drawn, BY_EYE.get(_pixels(OUT / "scenes-drawn.png")))}

![drawn](scenes-drawn.png)

## The worst, by PSNR inside

![worst](scenes-worst.png)
"""
    publish("scenes", "SceneEdit: edits with a known answer", body, began, (*STAGES, "reader", "inspector"))


def _pixels(picture: Path) -> str:
    """The first letters of a hash of a picture's pixels."""
    with Image.open(picture) as file:
        return hashlib.sha256(np.asarray(file.convert("RGB")).tobytes()).hexdigest()[:12]


def _by_eye(drawn: list[dict[str, Any]], failures: dict[str, str] | None) -> str:
    """The count of the drawn edits that a person takes for renders, the failures, and the inspector's agreement."""
    if failures is None:
        return "Nobody has counted those that pass for a render with the change made."
    judged = {f"{row['kind']} {row['seed']}": row["good"] for row in drawn if row["good"] is not None}
    agree = sum((name in failures) != good for name, good in judged.items())
    listed = "; ".join(f"{name}: {why}" for name, why in failures.items())
    count = f"{len(drawn) - len(failures)} of the {len(drawn)} pass for a render with the change made"
    same = f"*Good* says the same of {agree} of {len(judged)}"
    return f"Looked at one by one, {count}. {same}. Those that do not pass: {listed}."


def _task(row: dict[str, Any]) -> Task:
    return row["kind"], row["seed"]


def _order(row: dict[str, Any]) -> tuple[int, int]:
    return row["seed"], KINDS.index(row["kind"])


def _line(row: dict[str, Any]) -> str:
    """A row as a line, without its captions: :func:`iterinv.embedded.evaluate.tasks.scene_edit` makes them of kind and
    seed."""
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    rounded = {"commit": COMMIT, "weights": shipping()} | rounded
    return json.dumps({key: value for key, value in rounded.items() if key not in ("prompt", "to")}) + "\n"


def _table(summary: list[dict[str, Any]]) -> str:
    rows = []
    for row in summary:
        shares = ["" if row[key] is None else f"{100 * row[key]:.0f} %" for key in SHARES]
        figures = [_figure(row[key], ".1f") for key in ("inside", "outside", "outside_least")]
        figures.append(f"{100 * row['outside_exact']:.0f} %")
        others = [_figure(row["features"], ".1f"), _figure(row["iou"], ".2f"), _figure(row["sharpness"], ".2f")]
        others += ["" if row[key] is None else f"{100 * row[key]:.0f} %" for key in ("leakage", "ghost")]
        others += [_figure(row["st_lpips"], ".3f"), _figure(row["back"], ".1f"), _figure(row["onward"], ".1f")]
        rows.append([row["kind"], row["tasks"], row["judged"], *shares, *figures, *others])
    columns = ["kind", "tasks", "judged", *SHARES, "inside dB", "outside dB", "least", "exact", "features", "IoU"]
    columns += ["sharpness", "leakage", "ghost", "ST-LPIPS", "back dB", "onward dB"]
    return table(columns, rows)


def _figure(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or RUNS)

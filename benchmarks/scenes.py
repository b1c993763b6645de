"""SceneEdit: held-out scenes by seven kinds of edit, by editors after inversion methods.

Resumable: `python benchmarks/scenes.py SIZE:EDITOR:METHOD:COUNT …` does what is missing of COUNT scenes a kind at SIZE
px by each, and reports them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress

from common import OUT, RESUMED, ROOT, publish, short, table
from iterinv.cascade import load
from iterinv.edits import EDITORS
from iterinv.embedded.evaluate import scene_edit as scenes
from iterinv.embedded.evaluate.tasks import KINDS
from iterinv.evaluate.folder import processes

RUNS = ("256:automatic:bdia:20", "64:automatic:bdia:20")
SHARES = ("success", "kept", "both")
DRAWN, SEED = 40, 2026
"""The number of edits of the first run that are shown as they were drawn, none chosen; and the seed that draws them."""

BY_EYE = {
    "1858ebc112ad": """Looked at one by one, 24 of the 40 pass for a render with the change made. The other sixteen:
four cubes have round or ragged edges, two spheres are torn, two added things are ragged or float, in two the thing that
should stay is drawn anew and suffers, two leave a piece of the removed thing, two floors are tinted, one surface is
mottled, and one wall keeps a patch of the old colour. The reader, which sees them at 64 px, counts all forty as
successes that keep the rest."""
}
"""By weights, the count of the drawn edits that a person takes for a render with the change made, and the others."""


def run_all(size: int, editor: str, method: str, count: int, folder: Path) -> None:
    """A process a core, each with its share of the scenes."""
    cores = os.cpu_count() or 1
    jobs = ((size, editor, method, count, folder, (k + 1, cores)) for k in range(cores))
    with processes() as pool:
        done = pool.starmap_async(one_share, jobs, chunksize=1)
        with Progress() as bar:
            task = bar.add_task(folder.name, total=count * len(KINDS))
            while not done.ready():
                done.wait(5)
                bar.update(task, completed=len(scenes.rows(folder, count=count)))
        done.get()


def one_share(size: int, editor: str, method: str, count: int, folder: Path, share: tuple[int, int]) -> None:
    for _ in scenes.evaluate(load().up_to(size), EDITORS[editor](), folder, method, 20, KINDS, count, share):
        pass


def main(runs: tuple[str, ...] = RUNS) -> None:
    began, weights = time.time(), short(load())
    tables = []
    for run in runs:
        size, editor, method, count = run.split(":")
        name = f"{editor}-{method}-{size}"
        folder = ROOT / "runs" / "scene-edit" / f"{weights}-{name}"
        run_all(int(size), editor, method, int(count), folder)
        task_rows = scenes.rows(folder, count=int(count))
        if len(task_rows) != int(count) * len(KINDS):
            raise RuntimeError(f"{folder} holds {len(task_rows)} of {int(count) * len(KINDS)} tasks: run this again")
        (OUT / f"scenes-{name}.jsonl").write_text(
            "".join(_line(row) for row in sorted(task_rows, key=_order)), encoding="utf-8"
        )
        footer = f"Every edit: [scenes-{name}.jsonl](scenes-{name}.jsonl)."
        heading = f"## {editor} at {size} px, inverted by {method}"
        tables.append(f"{heading}\n\n{_table(scenes.summary(task_rows))}\n\n{footer}")
        if run == runs[0]:
            scenes.drawn_sheet(folder, task_rows, DRAWN, SEED)
            scenes.sheets(folder, task_rows)
            for sheet in ("drawn", "worst"):
                shutil.copy(folder / f"{sheet}.png", OUT / f"scenes-{sheet}.png")
    body = f"""
Held-out scenes, as many of each kind as the tables say, by editors with their defaults, which are given the two
captions and nothing else. *Success*: the [reader](reader.md), which reads pictures at 64 px, sees the requested change;
*kept*: it sees everything else unchanged; *both* in one picture. *Inside*: PSNR to the true render where it differs
from the source (the thing, its shadow, its reflections); *outside*: to the source elsewhere, mean and least, of the
pictures where any pixel there differs; *exact* is the share where none does. *Features*: distance to the truth in the
reader's features. *IoU*: of the region where the last stage may change the picture and the true region. *Sharpness*:
gradients inside, in units of the truth's (median). *Leakage*: the share of all change that lies outside the true
region.

{(chr(10) * 2).join(tables)}

## {DRAWN} edits, drawn by a seed

Of the first table, none chosen: source, edited, truth; four tasks per row. {BY_EYE.get(weights, "")} {RESUMED}

![drawn](scenes-drawn.png)

## The worst, by PSNR inside

![worst](scenes-worst.png)
"""
    publish("scenes", "SceneEdit: edits with a known answer", body, began)


def _order(row: dict[str, Any]) -> tuple[int, int]:
    return row["seed"], KINDS.index(row["kind"])


def _line(row: dict[str, Any]) -> str:
    """A row as a line, without its captions: :func:`iterinv.embedded.evaluate.tasks.scene_edit` makes them of kind and
    seed."""
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    return json.dumps({key: value for key, value in rounded.items() if key not in ("prompt", "to")}) + "\n"


def _table(summary: list[dict[str, Any]]) -> str:
    rows = []
    for row in summary:
        shares = [f"{100 * row[key]:.0f} %" for key in SHARES]
        figures = [_figure(row[key], ".1f") for key in ("inside", "outside", "outside_least")]
        figures.append(f"{100 * row['outside_exact']:.0f} %")
        others = [_figure(row["features"], ".1f"), _figure(row["iou"], ".2f"), _figure(row["sharpness"], ".2f")]
        others.append("" if row["leakage"] is None else f"{100 * row['leakage']:.0f} %")
        rows.append([row["kind"], row["tasks"], *shares, *figures, *others])
    columns = ["kind", "tasks", *SHARES, "inside dB", "outside dB", "least", "exact", "features", "IoU"]
    columns += ["sharpness", "leakage"]
    return table(columns, rows)


def _figure(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or RUNS)

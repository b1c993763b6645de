"""SceneEdit with the best editor at this time: 200 held-out scenes by seven kinds of edit, inverted by two methods.

Resumable: `python benchmarks/scenes.py SIZE COUNT METHOD …` does what is missing of COUNT scenes a kind at SIZE px, inverted by
these methods, and reports them.
"""

from __future__ import annotations

import shutil
import sys
import time

from rich.progress import track

from common import OUT, ROOT, publish, table
from iterinv.app import load
from iterinv.edits import DiffEdit
from iterinv.evaluate import scenes

METHODS = ("bdia", "iterinv-anderson")
SHARES = ("success", "kept")


def main(size: int, count: int, methods: tuple[str, ...] = METHODS) -> None:
    began, cascade, ours = time.time(), load().until(size), DiffEdit()
    tables, sheets = [], []
    for method in methods:
        folder = ROOT / "runs" / "scene-edit" / f"{method}-{size}"
        done = scenes.evaluate(cascade, ours, folder, method, 20, scenes.KINDS, count)
        for _ in track(done, description=method, total=count * len(scenes.KINDS)):
            pass
        found = [row for row in scenes.rows(folder) if row["seed"] < scenes.HELD_OUT + count]
        scenes.sheets(folder, found)
        for name in ("best", "median", "worst"):
            shutil.copy(folder / f"{name}.png", OUT / f"scenes-{method}-{name}.png")
        tables.append(f"## {method}\n\n{_table(scenes.summary(found))}")
        sheets.append(f"### {method}: median, worst\n\n" + "\n\n".join(_shown(method, name) for name in ("median", "worst")))
    body = f"""
{count} held-out scenes of each kind at {size} px, by `DiffEdit` with its defaults ({ours.strength:.0%} of the levels,
guidance {ours.guidance:g}), told the two captions and nothing else. *Success*: the [reader](reader.md) sees what was
asked for; *kept*: and everything else as it was. *Inside*: PSNR to the true render where it differs from the source (the
thing, its shadow, its reflections); *outside*: to the source elsewhere, mean and least. *Features*: distance to the truth in
the reader's features. *IoU*: of the editor's mask and the true region.

{(chr(10) * 2).join(tables)}

Source, edited, truth; two tasks a row.

{(chr(10) * 2).join(sheets)}
"""
    publish("scenes", "SceneEdit: edits whose right answer exists", body, began)


def _table(summary: list[dict]) -> str:
    rows = []
    for row in summary:
        shares = [f"{100 * row[key]:.0f} %" for key in SHARES]
        figures = [_figure(row[key], ".1f") for key in ("inside", "outside", "outside_least")]
        rest = [_figure(row["ssim"], ".3f"), _figure(row["features"], ".1f"), _figure(row["iou"], ".2f")]
        rows.append([row["kind"], row["tasks"], *shares, *figures, *rest])
    columns = ["kind", "tasks", *SHARES, "inside dB", "outside dB", "least", "SSIM outside", "features", "IoU"]
    return table(columns, rows)


def _figure(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _shown(method: str, name: str) -> str:
    return f"![{method}, {name}](scenes-{method}-{name}.png)"


if __name__ == "__main__":
    size, count = map(int, sys.argv[1:3] or (256, 200))
    main(size, count, tuple(sys.argv[3:]) or METHODS)

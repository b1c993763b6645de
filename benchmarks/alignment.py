"""Alignment of the embedded cascade's samples with their captions: 1,000 held-out captions, one sample each.

Read at 64 px, where the stages that decide what is shown end; `python benchmarks/alignment.py 256 100` draws 100 whole
ones.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from common import COMMIT, OUT, RESUMED, ROOT, STAGES, publish, short, table
from iterinv.cascade import load
from iterinv.embedded.evaluate import alignment as samples
from iterinv.manifest import versions
from iterinv.steps import DDIM

SHOWN = 32


def main(size: int, count: int) -> None:
    began, cascade = time.time(), load().up_to(size)
    work = ROOT / "runs" / "alignment"
    folder = work / f"{short(cascade)}-{size}"
    for _ in track(
        samples.draw(cascade, folder, count, DDIM()), total=-(-count // samples.BLOCK), description="samples"
    ):
        pass
    report = {**samples.report(folder, count, work / "true"), "commit": COMMIT, "versions": versions()}
    file = OUT / "alignment.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rows = {px: row for px, row in before.items() if _alike(row, report)} | {str(size): report}
    rows = dict(sorted(rows.items(), key=lambda row: int(row[0])))
    file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    side, pictures = min(size, 128), samples.drawn(folder, count)[:SHOWN]
    pictures = np.pad(pictures, ((0, -len(pictures) % 8), (0, 0), (0, 0), (0, 0)), constant_values=255)
    sheet = np.concatenate([np.concatenate(list(pictures[k : k + 8]), 1) for k in range(0, len(pictures), 8)])
    shown = Image.fromarray(sheet)
    shown.resize((8 * side, shown.height * side // size)).save(OUT / f"alignment-{size}.png")
    names = [*samples.CAPTION_ATTRIBUTES, "all"]
    cells = [line for px, row in rows.items() for line in _rows(px, row, names)]
    body = f"""
Share of what the captions say that the [reader](reader.md) sees in the samples, one a caption, none chosen: DDIM,
{report["steps"]} steps a stage, guidance {report["guidance"]:g} at the first. *all*: everything at once. Fréchet
distances are of the reader's features, to as many true pictures; *floor* is that of true pictures to others, ± the
standard deviation between deals of the same true pictures into two sets: of fewer pictures than features (256) it is
nearly all there is.
*True*: what the reader sees in the renders of the same captions. *Shuffled*: the samples against each other's captions.
The figures are in [alignment.json](alignment.json). {RESUMED}

{table(["px", "captions", *names, "Fréchet", "floor"], cells)}

{chr(10).join(f"![{px} px](alignment-{px}.png){chr(10)}" for px in rows)}
"""
    publish("alignment", "Samples against their words", body, began, (*STAGES, "reader"))


def _rows(px: str, row: dict[str, Any], names: list[str]) -> list[list[str]]:
    shares = {"": row, ", true": row["true"], ", shuffled": row["shuffled"]}
    distances = {"": [f"{row['frechet']:.2f}", f"{row['frechet_floor']:.2f} ± {row['frechet_spread']:.2f}"]}
    return [
        [
            f"{px}{of}",
            str(row["captions"]),
            *(f"{100 * each[name]:.1f} %" for name in names),
            *distances.get(of, ["", ""]),
        ]
        for of, each in shares.items()
    ]


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two sizes were drawn with the same settings, by a cascade and its first stages."""
    (few, many) = sorted((one["model"].split("-"), other["model"].split("-")), key=len)
    return few == many[: len(few)] and all(one[key] == other[key] for key in ("rule", "steps", "guidance", "seed"))


if __name__ == "__main__":
    main(*(map(int, sys.argv[1:3]) if sys.argv[1:] else (64, 1000)))

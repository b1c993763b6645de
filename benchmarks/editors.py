"""Every editor after four inversion methods, on SceneEdit at 64 px: what each edit changes, and what it keeps.

One process a core, each of one thread. Resumable: each edit is a line of docs/benchmarks/editors.jsonl, and is not done
twice with the same weights. With a number of minutes it starts nothing new after as many: `python benchmarks/editors.py
30`. `python benchmarks/editors.py pictures` draws docs/editors.png, an edit of three kinds by each editor at 256 px.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from common import OUT, RESUMED, ROOT, STAGES, measure, measured, publish, shipped, table
from iterinv import images
from iterinv.cascade import Cascade, load
from iterinv.edits import EDITORS
from iterinv.embedded.evaluate.scene_edit import score
from iterinv.embedded.evaluate.tasks import KINDS, scene_edit
from iterinv.embedded.scenes import Scene, render
from iterinv.embedded.seeds import SCENE_EDIT
from iterinv.models import CountingDenoiser

FILE = OUT / "editors.jsonl"
COUNT, STEPS = 40, 20
"""Tasks of each kind."""
METHODS = {"bdia": 1.0, "aligned": 1.0, "iterinv-anderson": 1.0, "null-text": 3.0}
"""Inversion methods, each with its guidance: null-text has an effect only under guidance."""
NO_PATH = ("automatic", "adaptive-flow", "redraw", "flow-redraw", "flowedit", "sdedit", "flow-align", "h-edit-r")
"""Editors that read no inverted path, or one only outside their region: after the first method alone."""
ATTENTION = ("prompt-to-prompt", "plug-and-play", "masactrl", "pix2pix-zero")
"""Editors that look into the network."""
EDITS = {"blue": ("red", "blue"), "cube": ("sphere", "cube"), "teal wall": ("beige wall", "teal wall")}
"""The edits of the pictures: words of the caption of examples/red-sphere.png, and what stands in their place."""


@cache
def cascade() -> Cascade:
    return load().up_to(64)


def ways() -> list[tuple[str, str]]:
    """Editors and methods, those after the first method first."""
    return [(editor, method) for method in METHODS for editor in EDITORS if method == "bdia" or editor not in NO_PATH]


def one(job: tuple[str, int, str], end: float, known: set[tuple[str, str, str, int]]) -> list[dict[str, Any]]:
    """The rows of a task by all editors after a method, in a process of the pool; none past the end."""
    method, seed, kind = job
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    edit, inversion = scene_edit(seed, kind), None
    x = _drawn(edit.source)
    for editor in (each for each, after in ways() if after == method):
        if (editor, method, kind, seed) in known or time.time() > end:
            continue
        if inversion is None:
            inversion = cascade().invert(x, edit.prompt, method, STEPS, METHODS[method])
        counted = [CountingDenoiser(stage.denoiser) for stage in cascade().stages]
        stages = tuple(replace(stage, denoiser=each) for stage, each in zip(cascade().stages, counted, strict=True))
        began = time.perf_counter()
        result = replace(cascade(), stages=stages).edit(inversion, edit.to, editor)
        picture = result.pictures[-1].float()
        figures = score(edit, x, picture, result.masks[-1] if result.masks else None)
        rows.append({"editor": editor, "method": method, "kind": kind, "seed": seed})
        for key in ("success", "kept", "good", "inside", "outside", "sharpness", "leakage", "st_lpips"):
            value = figures[key]
            rows[-1][key] = round(value, 4) if isinstance(value, float) else value
        rows[-1]["calls"] = [each.forward + 2 * each.backward for each in counted]
        rows[-1]["seconds"] = round(time.perf_counter() - began, 2)
    return rows


def _drawn(scene: Scene) -> Any:
    return images.from_uint8(images.to_uint8(render(scene, cascade().size)[None]))


def run(minutes: float) -> None:
    end = time.time() + 60 * minutes
    known = {(row["editor"], row["method"], row["kind"], row["seed"]) for row in measured(FILE, 2)}
    todo = [
        (method, seed, kind)
        for method in METHODS
        for seed in range(SCENE_EDIT, SCENE_EDIT + COUNT)
        for kind in KINDS
        if any((editor, after, kind, seed) not in known for editor, after in ways() if after == method)
    ]
    for row in measure(FILE, partial(one, end=end, known=known), todo):
        print(*(row[k] for k in ("method", "kind", "seed", "editor")), flush=True)


def lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    made = []
    for editor, method in sorted(ways(), key=lambda way: list(EDITORS).index(way[0])):
        group = [row for row in rows if (row["editor"], row["method"]) == (editor, method)]
        if not group:
            continue
        shares = [f"{100 * np.mean([row[key] for row in group]):.0f}" for key in ("success", "kept", "good")]
        inside, outside, leakage, perceptual = (
            _mean(group, key) for key in ("inside", "outside", "leakage", "st_lpips")
        )
        exact = 100 * np.mean([row["outside"] is None for row in group])
        calls = [f"{np.mean([row['calls'][k] for row in group]):.0f}" for k in (0, 1)]
        cells = [f"{inside:.1f}", f"{outside:.1f}", f"{exact:.0f}", f"{100 * leakage:.0f}", f"{perceptual:.3f}"]
        made.append([editor, method, str(len(group)), *shares, *cells, " + ".join(calls)])
    return made


def by_kind(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The share of good edits of each editor and kind, after bdia."""
    made = []
    for editor in EDITORS:
        group = [row for row in rows if (row["editor"], row["method"]) == (editor, "bdia")]
        shares = [[row["good"] for row in group if row["kind"] == kind] for kind in KINDS]
        if group:
            made.append([editor, *(f"{100 * np.mean(each):.0f}" if each else "" for each in shares)])
    return made


def _mean(group: list[dict[str, Any]], key: str) -> float:
    known = [row[key] for row in group if row[key] is not None]
    return float(np.mean(known)) if known else math.nan


def plot(rows: list[dict[str, Any]]) -> None:
    """Good edits against calls at the first stage, with standard errors; editors of attention are squares."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    for k, method in enumerate(METHODS):
        for editor in EDITORS:
            group = [row for row in rows if (row["editor"], row["method"]) == (editor, method)]
            if len(group) < 2:
                continue
            good = [100.0 * row["good"] for row in group]
            x, y = np.mean([row["calls"][0] for row in group]), np.mean(good)
            error = np.std(good, ddof=1) / math.sqrt(len(good))
            mark = "s" if editor in ATTENTION else "o"
            axes.errorbar(x, y, error, None, mark, color=f"C{k}", capsize=2, ms=5, alpha=0.8)
            if method == "bdia":
                axes.annotate(editor, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7)
    for k, method in enumerate(METHODS):
        axes.plot([], [], "o", color=f"C{k}", label=method)
    axes.legend()
    axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.set_xlabel("evaluations of the network at stage I in an edit")
    axes.set_ylabel("good edits, %")
    figure.savefig(OUT / "editors.png", dpi=90)


def pictures() -> None:
    """Draw an edit of each kind of ``EDITS`` by each editor, of the shipped picture at 256 px."""
    picture, caption = shipped()["red-sphere"]
    whole = load()
    inversion = whole.invert(picture, caption, "bdia", STEPS)
    cells = []
    for editor in EDITORS:
        for name, (old, new) in EDITS.items():
            edit = whole.edit(inversion, caption.replace(old, new), editor, output_type="np")
            first = name == next(iter(EDITS))
            cells.append((f"{editor if first else ''}\n{name}", np.asarray(edit.images[0])[::2, ::2]))
        print(editor, flush=True)
    across = 2 * len(EDITS)
    rows = [cells[k : k + across] for k in range(0, len(cells), across)]
    images.save(images.labelled(rows), ROOT / "docs" / "editors.png")


def main(minutes: float = math.inf) -> None:
    began = time.time()
    run(minutes)
    rows = [row for row in measured(FILE, 2) if row["good"] is not None]
    plot(rows)
    columns = ["editor", "inverted by", "edits", "success %", "kept %", "good %", "inside dB", "outside dB", "exact %"]
    columns += ["leakage %", "ST-LPIPS", "calls I + II"]
    counts = [sum((row["editor"], row["method"]) == way for row in rows) for way in ways()]
    counts = [count for count in counts if count]
    each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    body = f"""
[SceneEdit](scenes.md) at 64 px: held-out scenes by ten kinds of edit, {each} edits by each,
each editor with its defaults and the two captions alone. *Success*: the reader sees the requested change; *kept*: it
sees everything else unchanged; *good*: both. *Inside*: PSNR to the true render where it differs from the source;
*outside*: to the source elsewhere, and *exact* the share of edits in which no pixel there differs. *Calls*: evaluations
of the network in the edit, a backward one counted twice, at stages I and II, inverting not counted. {STEPS} steps;
null-text inverts at guidance {METHODS["null-text"]:g}. Editors that read no inverted path, or one only outside their
region, are run after bdia alone. Lines that are missing are not measured yet.

{table(columns, lines(rows))}

![Good edits against calls](editors.png)

## Good edits by kind, %, after bdia

{table(["editor", *KINDS], by_kind(rows))}

Every edit: [editors.jsonl](editors.jsonl). {RESUMED}
"""
    publish("editors", "Editors side by side", body, began, (*STAGES[:2], "reader", "inspector"))


if __name__ == "__main__":
    if sys.argv[1:] == ["pictures"]:
        pictures()
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else math.inf)

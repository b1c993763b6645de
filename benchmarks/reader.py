"""Accuracy of the reader on held-out renders, at the sizes that it is used at; and of the inspector on renders,
whole and broken."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from common import ROOT, STAGES, publish, table
from iterinv.embedded.inspector import BROKEN, SURE, inspect
from iterinv.embedded.inspector import WEIGHTS as INSPECTOR
from iterinv.embedded.reader import QUESTIONS, WEIGHTS, answers, features, load
from iterinv.embedded.scenes import OF_SCENE, OF_THING, Scene, render
from iterinv.embedded.seeds import READER
from iterinv.embedded.train import data
from iterinv.embedded.train.inspector import FAULTS, broken, changed, drawn_as_by_networks
from iterinv.images import from_uint8
from iterinv.metrics import frechet

COUNTS = {64: 2000, 256: 100}
LEAST = 20
"""Faults of fewer broken cells are not counted."""


def right(size: int, count: int) -> dict[str, float]:
    """The share of right answers to each question that has one, things taken together."""
    pictures = data.scenes(ROOT / "runs" / "reader", size, count, READER)
    truth = np.array([answers(Scene.random(READER + k)) for k in range(count)])
    said = []
    for first in range(0, count, 50):
        x = torch.cat([from_uint8(each.copy()) for each in pictures[first : first + 50]])
        x = torch.nn.functional.interpolate(x, (64, 64), mode="area")
        said.append(torch.stack([scores.argmax(1) for scores in load()(x)], 1).numpy())
    hits, names = np.concatenate(said) == truth, list(QUESTIONS)
    shares = {}
    for name in ("count", "side", *OF_THING, *OF_SCENE):
        columns = [k for k, each in enumerate(names) if each.split()[-1] == name]
        shares[name] = float(hits[:, columns][truth[:, columns] >= 0].mean())
    return shares


def inspected(count: int) -> list[list[Any]]:
    """Rows of the inspector's figures: pictures it calls broken, and broken cells it finds, by fault."""
    pictures, rows = data.scenes(ROOT / "runs" / "reader", 256, count, READER), list[list[Any]]()
    before = [from_uint8(x.copy())[0] for x in pictures]
    after = [render(changed(Scene.random(READER + k), READER + k), 256) for k in range(count)]
    whole = torch.stack(
        [inspect(drawn_as_by_networks(x[None], np.random.default_rng(k)))[0] for k, x in enumerate(before)]
    )
    rows.append(["none", count, f"{100 * float(((whole > SURE).sum((1, 2)) > BROKEN).float().mean()):.1f} %", "", ""])
    for fault in FAULTS:
        rng, broken_pictures, hits, of, false, others = np.random.default_rng(0), [], 0, 0, 0, 0
        for a, b in zip(before, after, strict=True):
            x, cells = broken(a, b, fault, rng)
            if int(cells.sum()) < LEAST:
                continue
            scores = inspect(drawn_as_by_networks(x[None], rng))[0]
            broken_pictures.append(int((scores > SURE).sum()) > BROKEN)
            hits, of = hits + int((scores > SURE)[cells].sum()), of + int(cells.sum())
            far = ~(torch.nn.functional.max_pool2d(cells.float()[None], 3, 1, 1)[0] > 0)
            false, others = false + int((scores > SURE)[far].sum()), others + int(far.sum())
        shares = [float(np.mean(broken_pictures)), hits / of, false / others]
        rows.append([fault, len(broken_pictures), *(f"{100 * share:.1f} %" for share in shares)])
    return rows


def main() -> None:
    began = time.time()
    torch.set_grad_enabled(False)
    shares = {size: right(size, count) for size, count in COUNTS.items()}
    pictures = data.scenes(ROOT / "runs" / "reader", 64, COUNTS[64], READER)
    each = torch.cat([features(from_uint8(x.copy())) for x in pictures])
    floor = {n: frechet(each[:n], each[n : 2 * n]) for n in (200, 500, 1000)}
    rows = [[name, *(f"{100 * shares[size][name]:.2f} %" for size in COUNTS)] for name in shares[64]]
    floors = ", ".join(f"{value:.2f} for {n}" for n, value in floor.items())
    counts = ", ".join(f"{n} of {size} px" for size, n in COUNTS.items())
    body = f"""
Share of right answers, of pictures that were not trained on ({counts}): of every thing its shape,
colour, material and size, of every scene the rest. The weights are {WEIGHTS.stat().st_size / 1e6:.1f} MB.

{table(["", *(f"{size} px" for size in COUNTS)], rows)}

Fréchet distance between two sets of as many true pictures, which is what a perfect sampler would have: {floors}.
It varies with the pictures: the floors on other pages are of other scenes.

## The inspector

It gives each of 32 by 32 cells of a picture of 256 px a probability that it is broken; a picture with more than
{BROKEN} cells above {SURE} is *broken*. Renders that were not trained on, drawn as a network draws a good picture
(outlines off by a fraction of a pixel, grain, softness, tone), whole and with faults of {LEAST} cells or more. *Cells*:
broken cells that it finds; *false*: cells that it calls broken further than one cell from any. The weights are
{INSPECTOR.stat().st_size / 1e6:.1f} MB. How far it agrees with the eye on edits stands in [SceneEdit](scenes.md).

{table(["fault", "pictures", "called broken", "cells", "false"], inspected(COUNTS[256]))}
"""
    publish("reader", "What the reader and the inspector see", body, began, (*STAGES, "reader", "inspector"))


if __name__ == "__main__":
    main()

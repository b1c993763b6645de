"""Accuracy of the reader on held-out renders, at the sizes that it is used at."""

from __future__ import annotations

import time

import numpy as np
import torch

from common import ROOT, publish, table
from iterinv.embedded.reader import QUESTIONS, WEIGHTS, answers, features, load
from iterinv.embedded.scenes import OF_SCENE, OF_THING, Scene
from iterinv.embedded.seeds import READER
from iterinv.embedded.train import data
from iterinv.images import from_uint8
from iterinv.metrics import frechet

COUNTS = {64: 2000, 256: 300}


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
    for name in ("count", *OF_THING, *OF_SCENE):
        columns = [k for k, each in enumerate(names) if each.split()[-1] == name]
        shares[name] = float(hits[:, columns][truth[:, columns] >= 0].mean())
    return shares


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
"""
    publish("reader", "What the reader reads", body, began)


if __name__ == "__main__":
    main()

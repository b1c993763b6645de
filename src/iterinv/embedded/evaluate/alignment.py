"""Evaluation of samples drawn from captions: agreement with the caption, and distance of the whole set from true
pictures.

The reader, :mod:`iterinv.embedded.reader`, reads both. The prompts are captions of held-out scenes, one sample each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iterinv.cascade import Cascade
from iterinv.embedded.reader import SceneAttributes, features, read
from iterinv.embedded.scenes import OF_THING, Scene, caption
from iterinv.embedded.seeds import CAPTIONS, TRUE_PICTURES
from iterinv.embedded.train import data
from iterinv.evaluate.folder import SETTINGS, read_array, settle, write_array
from iterinv.images import from_uint8, to_uint8
from iterinv.metrics import frechet, grain
from iterinv.steps import Step
from iterinv.typed import Count, checked

BLOCK = 20
"""Samples drawn at once."""

DEALT = 6
"""Number of times that true pictures are dealt into two sets, to measure how far a Fréchet distance is chance."""

CAPTION_ATTRIBUTES = (*OF_THING, "floor", "wall", "count")
"""The attributes that a caption names."""


def draw(
    cascade: Cascade, folder: Path, count: int, rule: Step, steps: int = 10, guidance: float = 2.0, seed: int = 0
) -> Iterator[int]:
    """Draw a sample of each of ``count`` captions into files of ``folder``; yield their number as it grows.

    Samples that are there are not drawn again. Raises ``ValueError`` where the folder holds samples drawn in another
    way.
    """
    steps, guidance = checked(steps, Count, "steps"), checked(guidance, float, "guidance_scale")
    how = {"rule": str(rule), "steps": steps, "guidance": guidance, "seed": seed, "px": cascade.size}
    settle(folder, {"model": cascade.fingerprint, **how})
    for first in range(0, count, BLOCK):
        file, n = folder / f"{first:05d}.npy", min(BLOCK, count - first)
        if read_array(file, n, (cascade.size, cascade.size, 3)) is None:
            words = [caption(Scene.random(CAPTIONS + k)) for k in range(first, first + n)]
            *_, pictures = cascade.sample(words, steps, guidance, rule=rule, seed=1_000_000 * seed + first)
            write_array(file, np.stack([to_uint8(x[None]) for x in pictures]))
        yield first + n


def drawn(folder: Path, count: int) -> np.ndarray:
    """The samples of a folder (count, size, size, 3) uint8."""
    return np.concatenate([np.load(folder / f"{first:05d}.npy") for first in range(0, count, BLOCK)])[:count]


def alignment(pictures: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
    """Return the share of correct attributes, by name: each attribute of a thing, where a missing thing counts against
    all of its own; floor, wall and count; and ``all`` of them together."""
    right: dict[str, list[bool]] = {name: [] for name in (*CAPTION_ATTRIBUTES, "all")}
    for predicted, truth in zip(_each(read, pictures), map(SceneAttributes.of, scenes), strict=True):
        hits = {name: [getattr(predicted, name) == getattr(truth, name)] for name in ("floor", "wall")}
        hits["count"] = [len(predicted.things) == len(truth.things)]
        for name in OF_THING:
            hits[name] = [
                k < len(predicted.things) and getattr(predicted.things[k], name) == getattr(thing, name)
                for k, thing in enumerate(truth.things)
            ]
        for name, these in hits.items():
            right[name] += these
        right["all"].append(all(all(these) for these in hits.values()))
    return {name: float(np.mean(these)) for name, these in right.items()}


def distances(pictures: np.ndarray, cache: Path) -> dict[str, float]:
    """Return the Fréchet distance of the reader's features to as many true pictures, ``frechet``; the distance between
    two such sets of true pictures, ``frechet_floor``; and the standard deviation of that distance over other divisions
    of the true pictures, ``frechet_spread``. True pictures are drawn into ``cache``."""
    n, size = len(pictures), pictures.shape[1]
    sets = pictures, data.scenes(cache, size, n, CAPTIONS), data.scenes(cache, size, n, TRUE_PICTURES)
    samples, captioned, real = (torch.cat(list(_each(lambda x: [features(x)], these))) for these in sets)
    both, generator = torch.cat([captioned, real]), torch.Generator().manual_seed(0)
    halves = [both[torch.randperm(2 * n, generator=generator)].split(n) for _ in range(DEALT)]
    spread = float(np.std([frechet(*pair) for pair in halves], ddof=1))
    return {"frechet": frechet(samples, real), "frechet_floor": frechet(captioned, real), "frechet_spread": spread}


def wall_grain(pictures: np.ndarray) -> float:
    """Return the mean noise of the wall, in 8-bit steps, in the flat upper quarter of each picture (n, size, size,
    3)."""
    return float(np.mean([grain(picture[: len(picture) // 4]) for picture in pictures]))


def report(folder: Path, count: int, cache: Path) -> dict[str, Any]:
    """Return the figures of a folder's samples, rounded to four places, with the settings they were drawn by.

    ``true`` is the alignment of the renders of the same captions, which is the most that the reader can see.
    ``shuffled`` is that of the samples to each other's captions, which is the value of a guess.
    """
    pictures = drawn(folder, count)
    scenes = [Scene.random(CAPTIONS + k) for k in range(count)]
    figures = _rounded({**alignment(pictures, scenes), **distances(pictures, cache)})
    renders = data.scenes(cache, pictures.shape[1], count, CAPTIONS)
    figures |= _rounded({"grain": wall_grain(pictures), "true_grain": wall_grain(renders)})
    true = _rounded(alignment(renders, scenes))
    shuffled = _rounded(alignment(pictures, [*scenes[1:], scenes[0]]))
    how = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return {**figures, "true": true, "shuffled": shuffled, "captions": count, **how}


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def _each(function: Any, pictures: np.ndarray) -> Iterator[Any]:
    for first in range(0, len(pictures), BLOCK):
        yield from function(torch.cat([from_uint8(x.copy()) for x in pictures[first : first + BLOCK]]))

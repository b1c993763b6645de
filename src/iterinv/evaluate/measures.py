"""The columns of an evaluation: a metric of two pictures, and the pixels that it compares.

A reconstruction has each metric as it is. An edit has ``METRIC_source``, against the picture; with a region
``METRIC_outside``, against the picture outside it; with a true answer ``METRIC_truth``; and with both
``METRIC_inside``, against the true answer inside the region.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iterinv.evaluate.measure import choose
from iterinv.metrics import Metric, ghost, metrics, sharpness

Value = float | int | None

OF_EDITS = {"ghost": "lower", "leakage": "lower", "sharpness": ""}
"""Measures of an edit alone, and whether lower or higher is better, empty where neither is: ``ghost`` and ``sharpness``
need a true answer, ``leakage`` a region."""


def metrics_of(names: Sequence[str], weights: Path | None = None) -> dict[str, Metric]:
    """The metrics of two pictures among some names; :data:`OF_EDITS` are left out. ``weights`` is a folder of weights
    that are in no cache.

    Raises ``ValueError`` for a name that is none and for a metric of sets of pictures, and ``ModuleNotFoundError`` for
    a metric that cannot run here.
    """
    for name in names:
        if name not in OF_EDITS and name not in metrics():
            raise ValueError(f"there is no metric {name!r}: the metrics are {', '.join([*metrics(), *OF_EDITS])}")
    pairs = [name for name in names if name not in OF_EDITS]
    chosen = choose(pairs, weights)[0] if pairs else {}
    for name, metric in chosen.items():
        if metric.function is None:
            raise ValueError(f"{name} compares sets of pictures: take `iterinv measure` for it")
    return chosen


def better(column: str) -> str:
    """Say whether ``higher`` or ``lower`` of a column is better; empty where neither is, as for the distance of an edit
    from its source, which no edit at all has least of."""
    name = column.partition("_")[0]
    if column.endswith("_source"):
        return ""
    return metrics()[name].direction if name in metrics() else OF_EDITS.get(name, "")


def of_reconstruction(
    names: Sequence[str], source: np.ndarray, picture: np.ndarray, prompt: str, weights: Path | None = None
) -> dict[str, Value]:
    """The metrics of a reconstruction, pictures (h, w, 3) uint8, by name; ``prompt`` describes both."""
    return {
        name: _number(metric(source, picture, prompts=(prompt, prompt), weights=weights))
        for name, metric in metrics_of(names, weights).items()
    }


def of_edit(
    names: Sequence[str],
    source: np.ndarray,
    edited: np.ndarray,
    inside: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    prompts: tuple[str, str] = ("", ""),
    weights: Path | None = None,
) -> dict[str, Value]:
    """The metrics of an edit, pictures (h, w, 3) uint8, by column; ``inside`` (h, w) bool is the region where it is
    wanted, ``prompts`` those of the source and of the edit. A part without pixels has no value."""
    values: dict[str, Value] = {}
    pairs, wanted = metrics_of(names, weights), (prompts[1], prompts[1])
    for name in names:
        if name in OF_EDITS:
            values |= _of_edit_alone(name, source, edited, inside, truth)
            continue
        values[f"{name}_source"] = pairs[name](source, edited, None, prompts, weights)
        if inside is not None:
            values[f"{name}_outside"] = (
                pairs[name](source, edited, ~inside, prompts, weights) if not inside.all() else None
            )
        if truth is not None:
            values[f"{name}_truth"] = pairs[name](truth, edited, None, wanted, weights)
        if truth is not None and inside is not None:
            values[f"{name}_inside"] = pairs[name](truth, edited, inside, wanted, weights) if inside.any() else None
    return {column: _number(value) for column, value in values.items()}


def _of_edit_alone(
    name: str, source: np.ndarray, edited: np.ndarray, inside: np.ndarray | None, truth: np.ndarray | None
) -> dict[str, Value]:
    """The one column of a name of :data:`OF_EDITS`, or none where it lacks what it needs."""
    if name == "leakage" and inside is not None:
        change = np.abs(source.astype(int) - edited).sum(-1)
        return {name: float(change[~inside].sum() / change.sum()) if change.any() else None}
    if name == "leakage" or truth is None:
        return {}
    return {name: ghost(source, truth, edited, inside) if name == "ghost" else sharpness(truth, edited, inside)}


def _number(value: Any) -> Value:
    """A value that JSON can hold."""
    return None if value is None or not math.isfinite(value) else value

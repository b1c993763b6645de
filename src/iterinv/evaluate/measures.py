"""The measures of a reconstruction and of an edit: a metric and the pixels that it compares.

A reconstruction has each metric as it is. An edit has ``METRIC_source``, against the picture; with a region
``METRIC_outside``, against the picture outside it; with a true answer ``METRIC_truth``; and with both
``METRIC_inside``, against the true answer inside the region.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from iterinv import metrics
from iterinv.metrics.st_lpips import available

Value = float | int | None


class Measure(NamedTuple):
    """A metric of :mod:`iterinv.metrics`, and how it is limited to a part of a picture.

    ``part`` is ``mask`` where the function takes one, ``pixels`` where it looks at each pixel alone, and ``whole``
    where it needs a picture: the rest is then replaced by the reference's. ``better`` is ``more`` or ``less``, empty
    where neither is.
    """

    function: Callable[..., Value]
    part: str
    better: str


MEASURES = {
    "psnr": Measure(metrics.psnr, "mask", "more"),
    "ssim": Measure(metrics.ssim, "mask", "more"),
    "mse": Measure(metrics.mse, "pixels", "less"),
    "exact_pixels": Measure(metrics.exact_pixels, "pixels", "more"),
    "max_abs_8bit": Measure(metrics.max_abs_8bit, "pixels", "less"),
    "sharpness": Measure(metrics.sharpness, "mask", ""),
    "st_lpips": Measure(metrics.st_lpips, "whole", "less"),
}
"""Metrics of two pictures, by name."""

OF_EDITS = {"ghost": "less", "leakage": "less"}
"""Metrics of an edit alone, and whether more or less is better: ``ghost`` needs a true answer, ``leakage`` a region."""

EXACT = ("psnr",)
"""Metrics without a number where two pictures are equal."""


def measure_of(name: str) -> Measure | None:
    """The measure of a name; ``None`` for one of :data:`OF_EDITS`. Raises ``ValueError`` for another name, and
    ``ModuleNotFoundError`` where its weights are missing."""
    if name not in MEASURES and name not in OF_EDITS:
        raise ValueError(f"there is no metric {name!r}: the metrics are {', '.join([*MEASURES, *OF_EDITS])}")
    if name == "st_lpips" and not available():
        raise ModuleNotFoundError("ST-LPIPS needs its trained weights: pip install 'iterinv[metrics]'")
    return MEASURES.get(name)


def better(column: str) -> str:
    """Say whether ``more`` or ``less`` of a column is better; empty where neither is, as for the distance of an edit
    from its source, which no edit at all has least of."""
    if column.endswith("_source"):
        return ""
    name = next((each for each in (*MEASURES, *OF_EDITS) if column == each or column.startswith(f"{each}_")), "")
    return MEASURES[name].better if name in MEASURES else OF_EDITS.get(name, "")


def of_reconstruction(names: Sequence[str], source: np.ndarray, picture: np.ndarray) -> dict[str, Value]:
    """The metrics of a reconstruction, pictures (h, w, 3) uint8, by name."""
    return {name: _number(each.function(source, picture)) for name in names if (each := measure_of(name)) is not None}


def of_edit(
    names: Sequence[str],
    source: np.ndarray,
    edited: np.ndarray,
    inside: np.ndarray | None = None,
    truth: np.ndarray | None = None,
) -> dict[str, Value]:
    """The metrics of an edit, pictures (h, w, 3) uint8, by column; ``inside`` (h, w) bool is the region where it is
    wanted. A part without pixels has no value."""
    values: dict[str, Value] = {}
    for name in names:
        each = measure_of(name)
        if each is None:
            values |= _of_edit_alone(name, source, edited, inside, truth)
            continue
        values[f"{name}_source"] = each.function(source, edited)
        if inside is not None:
            values[f"{name}_outside"] = _within(each, source, edited, ~inside)
        if truth is not None:
            values[f"{name}_truth"] = each.function(truth, edited)
        if truth is not None and inside is not None:
            values[f"{name}_inside"] = _within(each, truth, edited, inside)
    return {column: _number(value) for column, value in values.items()}


def _within(measure: Measure, reference: np.ndarray, picture: np.ndarray, mask: np.ndarray) -> Value:
    if not mask.any():
        return None
    if measure.part == "mask":
        return measure.function(reference, picture, mask)
    if measure.part == "pixels":
        return measure.function(reference[mask][:, None], picture[mask][:, None])
    return measure.function(reference, np.where(mask[..., None], picture, reference))


def _of_edit_alone(
    name: str, source: np.ndarray, edited: np.ndarray, inside: np.ndarray | None, truth: np.ndarray | None
) -> dict[str, Value]:
    if name == "ghost":
        return {} if truth is None else {name: metrics.ghost(source, truth, edited, inside)}
    if inside is None:
        return {}
    change = np.abs(source.astype(int) - edited).sum(-1)
    return {name: float(change[~inside].sum() / change.sum()) if change.any() else None}


def _number(value: Any) -> Value:
    """A value that JSON can hold."""
    return None if value is None or not math.isfinite(value) else value

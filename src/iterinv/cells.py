"""Figures as cells of tables, in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iterinv.evaluate.measure import Measurement


def decibels(psnr: float | None) -> str:
    """Format a PSNR; ``None`` stands for equal pictures."""
    return "exact" if psnr is None else f"{psnr:.1f} dB"


def decibels_by_stage(row: Mapping[str, Any]) -> str:
    """Format the PSNR of each stage of a comparison's row as one cell."""
    cells = [decibels(stage["reconstruction"]["psnr"]).removesuffix(" dB") for stage in row["stages"]]
    return (cells[0] if len(set(cells)) == 1 else " / ".join(cells)) if cells else "failed"


def mean_cell(measurement: Measurement, name: str, region: str) -> str:
    """The mean of a metric over the pictures, and their number where some have no value; ``equal`` for the PSNR of
    equal pictures."""
    mean, count = measurement.mean(name, region)
    with_pixels = sum(row["pixels"][region] > 0 for row in measurement.rows)
    if mean is None:
        return "equal" if name.startswith("psnr") and with_pixels else "none"
    return four_digits(mean) + (f" ({count})" if count < len(measurement.rows) else "")


def four_digits(value: float) -> str:
    """A value with four significant digits, or as many as a whole number has."""
    if value == round(value) or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}" if abs(value) >= 1e-4 else f"{value:.3e}"

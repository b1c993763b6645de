"""Ghost: how much of the old picture's fine structure is left where the true picture has none of it."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from iterinv.metrics.pixels import check_pair

SIGMA = 1 / 64
"""Structure is finer than a Gaussian with this standard deviation, in sides of the picture."""


def ghost(source: np.ndarray, truth: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """Project what a picture has beyond the truth onto what the source has beyond it, in fine structure, within
    ``mask`` (h, w) bool; pictures are (h, w, 3) uint8. 0 is no ghost, 1 is the whole source; below 0 counts as 0.
    ``None`` where source and truth have the same structure. Raises as :func:`iterinv.metrics.pixels.check_pair` does.
    """
    check_pair(source, truth)
    check_pair(source, picture)
    old, now = (_fine(each) - _fine(truth) for each in (source, picture))
    if mask is not None:
        old, now = old[mask], now[mask]
    whole = float((old**2).sum())
    return max(0.0, float((old * now).sum()) / whole) if whole > 0 else None


def _fine(picture: np.ndarray) -> np.ndarray:
    values = picture.astype(np.float64)
    sigma = SIGMA * max(picture.shape[:2])
    return values - gaussian_filter(values, (sigma, sigma, 0), mode="nearest")

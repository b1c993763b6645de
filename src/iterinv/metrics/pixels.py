"""Plain differences of two 8-bit pictures (h, w, 3)."""

from __future__ import annotations

import numpy as np


def mse(reference: np.ndarray, picture: np.ndarray) -> float:
    """Mean squared difference, values scaled to [0, 1].

    >>> mse(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8))
    1.0
    """
    return float(np.mean((reference.astype(np.float64) - picture) ** 2) / 255**2)


def max_abs_8bit(reference: np.ndarray, picture: np.ndarray) -> int:
    """Largest difference of any value, in 8-bit steps: 0 to 255."""
    return int(np.abs(reference.astype(np.int16) - picture).max())


def exact_pixels(reference: np.ndarray, picture: np.ndarray) -> float:
    """Share of pixels whose three values are all equal, in [0, 1]."""
    return float(np.mean((reference == picture).all(-1)))

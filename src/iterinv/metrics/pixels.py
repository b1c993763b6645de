"""Plain differences of two 8-bit pictures (h, w, 3)."""

from __future__ import annotations

import numpy as np


def check_pair(reference: np.ndarray, picture: np.ndarray) -> None:
    """Raise ``ValueError`` unless both are (h, w, 3) uint8 of one shape, with pixels in it."""
    for each in (reference, picture):
        if each.dtype != np.uint8 or each.ndim != 3 or each.shape[2] != 3 or not each.size:
            raise ValueError(
                f"a picture of shape {each.shape} and dtype {each.dtype} is not (h, w, 3) uint8 with pixels"
            )
    if reference.shape != picture.shape:
        raise ValueError(f"pictures of {reference.shape} and {picture.shape} have no distance: bring them to one shape")


def mse(reference: np.ndarray, picture: np.ndarray) -> float:
    """Mean squared difference, values scaled to [0, 1]. Raises as :func:`check_pair` does, as all metrics here do.

    >>> mse(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8))
    1.0
    """
    check_pair(reference, picture)
    return float(np.mean((reference.astype(np.float64) - picture) ** 2) / 255**2)


def max_abs_8bit(reference: np.ndarray, picture: np.ndarray) -> int:
    """Largest difference of any value, in 8-bit steps: 0 to 255."""
    check_pair(reference, picture)
    return int(np.abs(reference.astype(np.int16) - picture).max())


def exact_pixels(reference: np.ndarray, picture: np.ndarray) -> float:
    """Share of pixels whose three values are all equal, in [0, 1]."""
    check_pair(reference, picture)
    return float(np.mean((reference == picture).all(-1)))

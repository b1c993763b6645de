"""Noise of a flat region, by its second differences (Immerkær, 1996, "Fast noise variance estimation")."""

from __future__ import annotations

import numpy as np

KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])


def grain(region: np.ndarray) -> float:
    """Standard deviation, in 8-bit steps, of white noise in a region (h, w, 3) that varies linearly otherwise.

    The median is taken in place of the published mean, so that the edge of a thing in the region counts little.

    >>> ramp = np.arange(64, dtype=np.uint8).reshape(8, 8, 1).repeat(3, 2)
    >>> grain(ramp)
    0.0
    """
    from scipy.ndimage import convolve

    values = np.abs(convolve(region.astype(np.float64), KERNEL[..., None]))[1:-1, 1:-1]
    return float(np.median(values) / 0.6745 / 6)

"""Peak signal-to-noise ratio, ``-10 log10(mse)`` at a data range of 1, by scikit-image."""

from __future__ import annotations

import numpy as np

from iterinv.metrics.pixels import check_pair


def psnr(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """Decibels between two 8-bit pictures (h, w, 3), or between their pixels in a mask (h, w) of booleans; ``None``
    if they are equal there.

    >>> psnr(np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 51, np.uint8))
    13.979...
    """
    from skimage.metrics import peak_signal_noise_ratio

    check_pair(reference, picture, mask)
    if mask is not None:
        reference, picture = reference[mask], picture[mask]
    if np.array_equal(reference, picture):
        return None
    return float(peak_signal_noise_ratio(reference, picture, data_range=255))

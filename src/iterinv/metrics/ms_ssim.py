"""Multi-scale SSIM (Wang, Simoncelli, Bovik, 2003): contrast and structure at five scales, luminance at the last."""

from __future__ import annotations

import numpy as np

from iterinv.metrics.pixels import check_pair
from iterinv.metrics.ssim import WINDOW, clear_windows, similarity_maps

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = WINDOW << (len(WEIGHTS) - 1)
"""The shortest side, in pixels, that still holds a window at the coarsest scale."""


def ms_ssim(
    reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None, border: bool = False
) -> float | None:
    """MS-SSIM of two 8-bit pictures (h, w, 3), over windows that lie wholly in the picture and in the mask (h, w) bool.
    Negative terms count as 0.

    ``border``: the coarsest scale is averaged over the mirrored border too, as torchmetrics does. ``None`` where a side
    is shorter than 176 px, or where a scale has no whole window in the mask.
    """
    check_pair(reference, picture, mask)
    if min(reference.shape[:2]) < SMALLEST:
        return None
    x, y = reference.astype(np.float64), picture.astype(np.float64)
    inside = np.ones(x.shape[:2], bool) if mask is None else mask
    value = 1.0
    for k, weight in enumerate(WEIGHTS):
        last = k == len(WEIGHTS) - 1
        similar, structure = similarity_maps(x, y)
        clear = clear_windows(inside, border=last and border)
        if not clear.any():
            return None
        value *= max(0.0, float((similar if last else structure)[clear].mean())) ** weight
        x, y = _halved(x).mean((1, 3)), _halved(y).mean((1, 3))
        inside = np.asarray(_halved(inside).all((1, 3)))
    return value


def _halved(values: np.ndarray) -> np.ndarray:
    """(h, w, ...) to (h / 2, 2, w / 2, 2, ...), without an odd last row or column."""
    height, width = values.shape[0] // 2, values.shape[1] // 2
    return values[: 2 * height, : 2 * width].reshape(height, 2, width, 2, *values.shape[2:])

"""SSIM with the border that published tables of inversion methods include: torchmetrics mirrors the picture beyond its
edge and averages over all pixels, while the paper averages over whole windows only."""

from __future__ import annotations

import numpy as np

from iterinv.metrics.pixels import check_pair
from iterinv.metrics.ssim import WINDOW, clear_windows, similarity_maps


def ssim_border(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """SSIM of two 8-bit pictures (h, w, 3), border included; masks and ``None`` are as in
    :func:`iterinv.metrics.ssim`."""
    check_pair(reference, picture, mask)
    if min(reference.shape[:2]) < WINDOW or (mask is not None and not mask.any()):
        return None
    similar, _ = similarity_maps(reference.astype(np.float64), picture.astype(np.float64))
    if mask is None:
        return float(similar.mean())
    clear = clear_windows(mask, border=True)
    return float(similar[clear if clear.any() else mask].mean())

"""Structural similarity (Wang, Bovik, Sheikh, Simoncelli, 2004), by scikit-image in the paper's setting:
Gaussian window of sigma 1.5, 11 px wide, valid part only."""

from __future__ import annotations

import numpy as np

from iterinv.metrics.pixels import check_pair

WINDOW = 11


def ssim(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """SSIM of two 8-bit pictures (h, w, 3), mean over channels; ``None`` where a side is shorter than the window
    or the mask is empty.

    With a mask (h, w) of booleans: over the pixels whose window lies wholly in it, or over all of it if none does.
    """
    from scipy.ndimage import binary_erosion
    from skimage.metrics import structural_similarity

    check_pair(reference, picture)
    if min(reference.shape[:2]) < WINDOW or (mask is not None and not mask.any()):
        return None
    how = {"channel_axis": -1, "data_range": 255, "gaussian_weights": True, "sigma": 1.5, "full": mask is not None}
    result = structural_similarity(reference, picture, use_sample_covariance=False, **how)
    if mask is None:
        return float(result)
    clear = binary_erosion(mask, np.ones((WINDOW, WINDOW)), border_value=1)
    return float(result[1].mean(-1)[clear if clear.any() else mask].mean())

"""Structural similarity (Wang, Bovik, Sheikh, Simoncelli, 2004), by scikit-image in the paper's setting:
Gaussian window of sigma 1.5, 11 px wide, valid part only. The maps here are those that its variants share."""

from __future__ import annotations

import numpy as np

from iterinv.metrics.pixels import check_pair

WINDOW = 11


def ssim(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """SSIM of two 8-bit pictures (h, w, 3), mean over channels; ``None`` where a side is shorter than the window
    or the mask is empty.

    With a mask (h, w) of booleans: over the pixels whose window lies wholly in it and in the picture, or over all of
    it if none does.
    """
    from skimage.metrics import structural_similarity

    check_pair(reference, picture, mask)
    if min(reference.shape[:2]) < WINDOW or (mask is not None and not mask.any()):
        return None
    how = {"channel_axis": -1, "data_range": 255, "gaussian_weights": True, "sigma": 1.5, "full": mask is not None}
    result = structural_similarity(reference, picture, use_sample_covariance=False, **how)
    if mask is None:
        return float(result)
    clear = clear_windows(mask, border=False)
    return float(result[1].mean(-1)[clear if clear.any() else mask].mean())


def clear_windows(mask: np.ndarray, border: bool) -> np.ndarray:
    """The pixels (h, w) bool whose window lies wholly in a mask; ``border``: pixels beyond the picture's edge count as
    inside."""
    from scipy.ndimage import binary_erosion

    return np.asarray(binary_erosion(mask, np.ones((WINDOW, WINDOW)), border_value=border))


def similarity_maps(reference: np.ndarray, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The maps of similarity and of contrast and structure alone, of pictures (h, w, 3) with values from 0 to 255 in
    float64. Beyond the edge a picture is mirrored.
    """
    from scipy.ndimage import gaussian_filter

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(gaussian_filter(values, (1.5, 1.5, 0), mode="mirror", truncate=3.5))

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    x, y = mean(reference), mean(picture)
    spread = (mean(reference**2) - x**2).clip(0) + (mean(picture**2) - y**2).clip(0)
    structure = (2 * (mean(reference * picture) - x * y) + c2) / (spread + c2)
    return structure * (2 * x * y + c1) / (x**2 + y**2 + c1), structure

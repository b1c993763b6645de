"""Structural similarity (Wang, Bovik, Sheikh, Simoncelli, 2004), by scikit-image in the paper's setting:
Gaussian window of sigma 1.5, 11 px wide, valid part only."""

from __future__ import annotations

import numpy as np


def ssim(reference: np.ndarray, picture: np.ndarray) -> float | None:
    """SSIM of two 8-bit pictures (h, w, 3), mean over channels; ``None`` where a side is shorter than the window."""
    from skimage.metrics import structural_similarity

    if min(reference.shape[:2]) < 11:
        return None
    return float(
        structural_similarity(
            reference,
            picture,
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )

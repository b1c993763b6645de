"""Metrics, one file each, measure pictures as they are written: (h, w, 3) uint8. Features are tensors.

:data:`METRICS` names the direction, range and needs of each. Both pictures go through the same preprocessing, and the
data range is always that of the format, 0 to 255, never the picture's own.

**No metric returns NaN or infinity.** Where there is no number the value is ``None``: PSNR of equal pictures, any
metric in an empty mask, SSIM of pictures that are smaller than its window, a direction where nothing changes. A mean is
over the pictures that have a value, and stands beside their number; equal pictures are no part of a mean PSNR.
Pictures that a metric cannot compare at all (other shapes, too small for a network) raise ``ValueError``.

In a mask (h, w) bool a metric is over the pixels of the mask: MSE, PSNR and equal pixels exactly; SSIM over the
windows that lie wholly in it; FLIP and (ST-)LPIPS as the mean of their maps over it, where the picture is the reference
outside. DINO, a CLIP direction and the reader look at such a picture as a whole; a CLIP score is of the region on
black.
"""

from __future__ import annotations

import numpy as np

from iterinv.metrics.clip import clip_direction, clip_score
from iterinv.metrics.dino import dino_structure
from iterinv.metrics.flip import flip
from iterinv.metrics.frechet import frechet
from iterinv.metrics.ghost import ghost
from iterinv.metrics.grain import grain
from iterinv.metrics.lpips import lpips
from iterinv.metrics.ms_ssim import ms_ssim
from iterinv.metrics.noise import terminal_noise
from iterinv.metrics.pixels import exact_pixels, max_abs_8bit, mse
from iterinv.metrics.psnr import psnr
from iterinv.metrics.registry import METRICS, Metric, metrics
from iterinv.metrics.sharpness import sharpness
from iterinv.metrics.ssim import ssim
from iterinv.metrics.ssim_border import ssim_border
from iterinv.metrics.st_lpips import st_lpips

__all__ = [
    "METRICS",
    "Metric",
    "clip_direction",
    "clip_score",
    "dino_structure",
    "exact_pixels",
    "fidelity",
    "flip",
    "frechet",
    "ghost",
    "grain",
    "lpips",
    "max_abs_8bit",
    "metrics",
    "ms_ssim",
    "mse",
    "psnr",
    "sharpness",
    "ssim",
    "ssim_border",
    "st_lpips",
    "terminal_noise",
]


def fidelity(reference: np.ndarray, picture: np.ndarray) -> dict[str, float | int | None]:
    """Measure the distance of a picture from its reference. ``psnr`` of equal pictures is ``None``: no number stands
    for it."""
    return {
        "mse": mse(reference, picture),
        "psnr": psnr(reference, picture),
        "ssim": ssim(reference, picture),
        "max_abs_8bit": max_abs_8bit(reference, picture),
        "exact_pixels": exact_pixels(reference, picture),
    }

"""Metrics, one file each, measure pictures as they are written: (h, w, 3) uint8. Features are tensors."""

from __future__ import annotations

import numpy as np

from iterinv.metrics.frechet import frechet
from iterinv.metrics.ghost import ghost
from iterinv.metrics.grain import grain
from iterinv.metrics.noise import terminal_noise
from iterinv.metrics.pixels import exact_pixels, max_abs_8bit, mse
from iterinv.metrics.psnr import psnr
from iterinv.metrics.sharpness import sharpness
from iterinv.metrics.ssim import ssim
from iterinv.metrics.st_lpips import st_lpips

__all__ = [
    "exact_pixels",
    "fidelity",
    "frechet",
    "ghost",
    "grain",
    "max_abs_8bit",
    "mse",
    "psnr",
    "sharpness",
    "ssim",
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

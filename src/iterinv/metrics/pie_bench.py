"""Distances of a region as PIE-Bench's published tables have them (Ju, Zeng, Bian, Liu, Xu, 2023, "Direct Inversion"):
black outside the region in both pictures, and the mean over all pixels, black ones included. They look better than the
region is, the more so the smaller it is. Without a mask they are the plain metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from iterinv.metrics.lpips import lpips
from iterinv.metrics.pixels import check_pair, mse
from iterinv.metrics.psnr import psnr
from iterinv.metrics.ssim_border import ssim_border


def _blackened(
    measure: Callable[..., float | None], reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None
) -> float | None:
    check_pair(reference, picture, mask)
    if mask is None:
        return measure(reference, picture)
    if not mask.any():
        return None
    return measure(*(each * mask[..., None].astype(np.uint8) for each in (reference, picture)))


def mse_pie(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """:func:`iterinv.metrics.mse` over all pixels, with black outside the mask (h, w) bool."""
    return _blackened(mse, reference, picture, mask)


def psnr_pie(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """:func:`iterinv.metrics.psnr` over all pixels, with black outside the mask (h, w) bool."""
    return _blackened(psnr, reference, picture, mask)


def ssim_pie(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """:func:`iterinv.metrics.ssim_border` over all pixels, with black outside the mask (h, w) bool."""
    return _blackened(ssim_border, reference, picture, mask)


def lpips_pie(
    reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None, weights: Path | None = None
) -> float | None:
    """:func:`iterinv.metrics.lpips` of SqueezeNet over all pixels, with black outside the mask (h, w) bool."""
    return _blackened(
        lambda one, other: lpips(one, other, network="squeeze", weights=weights), reference, picture, mask
    )

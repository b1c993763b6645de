"""Sharpness: how much gradient a picture has, compared with a reference's."""

from __future__ import annotations

import numpy as np

from iterinv.metrics.pixels import check_pair


def sharpness(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """Sum of gradient magnitudes of a picture, in units of its reference's, both (h, w, 3) uint8; within ``mask``
    (h, w) bool. 1 is as sharp, less is blurred, more is noise or too many edges. ``None`` where the reference is flat.
    Raises as :func:`iterinv.metrics.pixels.check_pair` does.
    """
    check_pair(reference, picture)
    there, here = (_gradient(each, mask) for each in (reference, picture))
    return here / there if there > 0 else None


def _gradient(picture: np.ndarray, mask: np.ndarray | None) -> float:
    values = picture.astype(np.float64)
    down, right = np.diff(values, axis=0)[:, :-1], np.diff(values, axis=1)[:-1]
    magnitude = np.sqrt((down**2 + right**2).sum(-1))
    return float(magnitude.sum() if mask is None else magnitude[mask[:-1, :-1]].sum())

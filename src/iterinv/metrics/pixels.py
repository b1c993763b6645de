"""Plain differences of two 8-bit pictures (h, w, 3), and the checks that all metrics share."""

from __future__ import annotations

import numpy as np


def check_pair(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Raise ``ValueError`` unless both are (h, w, 3) uint8 of one shape, with pixels in it, and the mask, if there is
    one, is (h, w) bool."""
    for each in (reference, picture):
        if each.dtype != np.uint8 or each.ndim != 3 or each.shape[2] != 3 or not each.size:
            raise ValueError(
                f"a picture of shape {each.shape} and dtype {each.dtype} is not (h, w, 3) uint8 with pixels"
            )
    if reference.shape != picture.shape:
        raise ValueError(f"pictures of {reference.shape} and {picture.shape} have no distance: bring them to one shape")
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != reference.shape[:2]):
        raise ValueError(
            f"a mask of shape {mask.shape} and dtype {mask.dtype} is not {reference.shape[:2]} bool, like its pictures"
        )


def region_of(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The picture with the reference's pixels outside the mask (h, w), so that only differences inside it count."""
    return picture if mask is None else np.where(mask[..., None], picture, reference)


def mean_over(values: np.ndarray, mask: np.ndarray | None) -> float | None:
    """The mean of a map (h, w, ...) over the pixels in a mask (h, w); ``None`` where the mask is empty."""
    if mask is not None and not mask.any():
        return None
    return float((values if mask is None else values[mask]).mean())


def mse(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """Mean squared difference, values scaled to [0, 1]; ``None`` where the mask (h, w) is empty. Raises as
    :func:`check_pair` does, as all metrics here do.

    >>> mse(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8))
    1.0
    """
    check_pair(reference, picture, mask)
    mean = mean_over((reference.astype(np.float64) - picture) ** 2, mask)
    return None if mean is None else mean / 255**2


def max_abs_8bit(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> int | None:
    """Largest difference of any value, in 8-bit steps: 0 to 255; ``None`` where the mask (h, w) is empty."""
    check_pair(reference, picture, mask)
    apart = np.abs(reference.astype(np.int16) - picture)
    apart = apart if mask is None else apart[mask]
    return int(apart.max()) if apart.size else None


def exact_pixels(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """Share of pixels whose three values are all equal, in [0, 1]; ``None`` where the mask (h, w) is empty."""
    check_pair(reference, picture, mask)
    return mean_over((reference == picture).all(-1), mask)

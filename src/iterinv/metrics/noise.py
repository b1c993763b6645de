"""Is the noise that inverting ended in the noise that sampling starts from? Editability depends on it."""

from __future__ import annotations

from torch import Tensor


def terminal_noise(x: Tensor) -> dict[str, float | None]:
    """Statistics of a noise (batch, channels, h, w): 0, 1, 3 and 0 for unit Gaussian noise.

    ``kurtosis`` is the fourth standardised moment; ``autocorrelation`` the mean correlation of neighbours, right and
    below. Both are ``None`` for values that are all equal.
    """
    x = x.double()
    mean, std = x.mean(), x.std()
    if not std > 0:
        return {"mean": float(mean), "std": 0.0, "kurtosis": None, "autocorrelation": None}
    z = (x - mean) / std
    right, below = (z[..., 1:] * z[..., :-1]).mean(), (z[..., 1:, :] * z[..., :-1, :]).mean()
    return {
        "mean": float(mean),
        "std": float(std),
        "kurtosis": float((z**4).mean()),
        "autocorrelation": float((right + below) / 2),
    }

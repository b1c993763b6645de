"""Statistics that compare the noise at the end of an inversion with the noise that sampling starts from; editability
depends on it."""

from __future__ import annotations

from torch import Tensor


def terminal_noise(x: Tensor) -> dict[str, float | None]:
    """Statistics of a noise (batch, channels, h, w): 0, 1, 3 and 0 for unit Gaussian noise.

    ``kurtosis`` is the fourth standardised moment; ``autocorrelation`` the mean correlation of neighbours, right and
    below. A statistic without a value is ``None``: these two for values that are all equal, all four for values that
    are not finite.
    """
    x = x.double()
    if not x.numel() or not bool(x.isfinite().all()):
        return dict.fromkeys(("mean", "std", "kurtosis", "autocorrelation"))
    if x.min() == x.max():
        return {"mean": float(x.min()), "std": 0.0, "kurtosis": None, "autocorrelation": None}
    mean, std = x.mean(), x.std()
    z = (x - mean) / std
    pairs = (z[..., 1:] * z[..., :-1], z[..., 1:, :] * z[..., :-1, :])
    neighbours = [float(each.mean()) for each in pairs if each.numel()]
    return {
        "mean": float(mean),
        "std": float(std),
        "kurtosis": float((z**4).mean()),
        "autocorrelation": sum(neighbours) / len(neighbours) if neighbours else None,
    }

"""Structure and colour: which part of a change of a picture moves outlines, and which only exchanges colours.

Where only colour changed, each picture is, in a small window, an affine function of the other's channels: the local
model of guided image filtering (He, Sun, Tang, 2013), https://doi.org/10.1109/TPAMI.2012.213
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW = 5
"""The side of the windows, in pixels."""

FLAT, RIDGE = 1e-4, 1e-3
"""The variances, in [-1, 1], below which a window counts as flat: to measure structure, and to exchange colours."""

MISSED = 0.3
"""The error of a pixel's colour, in [-1, 1], at which it counts half in the next fit."""

GREY_RIDGE = 0.02
"""The variance of brightness below which an edge counts as one of hue alone."""


def structure_change(before: Tensor, after: Tensor, least: float = 0.07, most: float = 0.2) -> Tensor:
    """Measure where two pictures (batch, 3, h, w) differ by more than colour: (batch, 1, h, w), 0 to 1.

    The rms of the part of each picture that is no affine function of the other's channels, of the worse of the two
    directions, counts from ``least`` to ``most``, in [-1, 1]; it reaches two pixels around.
    """
    before, after = before.double(), after.double()
    rest = torch.maximum(_unexplained(before, after), _unexplained(after, before))
    return F.max_pool2d(((rest - least) / (most - least)).clamp(0, 1), 5, stride=1, padding=2)


def recoloured(before: Tensor, after: Tensor, window: int = WINDOW, fits: int = 1) -> Tensor:
    """The colours of one picture on the structure of another, both (batch, 3, h, w): ``after`` as an affine function of
    the channels of ``before``, fitted in the window around each pixel and averaged over the windows that hold it.

    ``window`` is its side in pixels. The pictures may disagree on the place of an outline by a pixel or two: of several
    ``fits``, each counts a pixel less the more the one before misses it, by Cauchy's weights (iteratively reweighted
    least squares: Holland and Welsch, 1977, https://doi.org/10.1080/03610927708827533).
    """
    guide, x = before.double(), after.double()
    fitted, weight = x, torch.ones_like(guide[:, :1])
    eye = RIDGE * torch.eye(3, dtype=guide.dtype, device=guide.device)
    for _ in range(fits):
        share = _mean(weight, window)
        of_guide, of_x = (_mean(weight * each, window) / share for each in (guide, x))
        squares, between = (
            _pairs(_mean(weight * _products(guide, each), window) / share - _products(of_guide, mean))
            for each, mean in ((guide, of_guide), (x, of_x))
        )
        slope = torch.linalg.solve(squares + eye, between)
        rest = of_x - torch.einsum("nhwij,nihw->njhw", slope, of_guide)
        planes = torch.cat([slope.flatten(3).permute(0, 3, 1, 2), rest], 1)
        planes = _mean(share * planes, window) / _mean(share, window)
        fitted = torch.einsum("nhwij,nihw->njhw", _pairs(planes[:, :9]), guide) + planes[:, 9:]
        weight = 1 / (1 + (fitted - x).square().sum(1, keepdim=True) / MISSED**2)
    return fitted.to(after)


def edge_slope(guide: Tensor, x: Tensor) -> Tensor:
    """The slope (batch, channels of guide, channels of x, h, w) of ``x`` as an affine function of the channels of
    ``guide``, both (batch, 3, h, w): fitted in the window around each pixel and averaged over the windows that hold it,
    by how much of an edge each of them holds.

    A plane in position is fitted beside it, so that the slope explains edges, and is 0 where both only vary slowly: two
    gradients that run beside each other say nothing on finer detail. Hue explains an edge before brightness does, since
    the finer detail is mostly one of brightness, which is to stay.
    """
    guide, x = guide.double(), x.double()
    of_guide, of_x, between = (_edges(*pair) for pair in ((guide, guide), (x, x), (guide, x)))
    eye, grey = torch.eye(3, dtype=guide.dtype, device=guide.device), guide.new_full((3, 3), 1 / 3)
    slope = torch.linalg.solve(of_guide + RIDGE * eye + GREY_RIDGE * grey, between).permute(0, 3, 4, 1, 2)
    edges = (of_guide + of_x).diagonal(dim1=-2, dim2=-1).sum(-1)
    weight = (edges + FLAT)[:, None]
    return (_mean(weight * slope.flatten(1, 2)) / _mean(weight)).reshape(slope.shape)


def carried(before: Tensor, after: Tensor, picture: Tensor) -> Tensor:
    """The change (batch, 3, H, W) of a larger ``picture`` that stands for the change from ``before`` to ``after``, both
    (batch, 3, h, w): the function :func:`edge_slope` of the colours, enlarged and applied to the picture, and the rest
    of the change, enlarged. A new colour ends where the old one does."""
    change, size = (after - before).double(), picture.shape[-2:]
    slope = edge_slope(before, change)
    rest = change - torch.einsum("nijhw,nihw->njhw", slope, before.double())
    planes = torch.cat([slope.flatten(1, 2), rest], 1)
    large = F.interpolate(planes, size, mode="bicubic", align_corners=False)
    slope, rest = large[:, :9].reshape(-1, 3, 3, *size), large[:, 9:]
    return (torch.einsum("nijhw,nihw->njhw", slope, picture.double()) + rest).to(picture)


def _unexplained(guide: Tensor, x: Tensor) -> Tensor:
    """The rms (batch, 1, h, w) of the part of ``x`` that is no affine function of ``guide`` around each pixel."""
    between = _covariance(guide, x)
    rest: Tensor = _covariance(x, x).diagonal(dim1=-2, dim2=-1) - (_slope(guide, x) * between).sum(-2)
    return rest.clamp_min(0).sum(-1)[:, None].sqrt()


def _slope(guide: Tensor, x: Tensor) -> Tensor:
    """The least-squares slope (batch, h, w, channels of guide, channels of x) of ``x`` over ``guide``."""
    eye = torch.eye(guide.shape[1], dtype=guide.dtype, device=guide.device)
    slope: Tensor = torch.linalg.solve(_covariance(guide, guide) + FLAT * eye, _covariance(guide, x))
    return slope


def _edges(a: Tensor, b: Tensor) -> Tensor:
    """:func:`_covariance`, of what planes in position leave of ``a`` and ``b``."""
    place = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    joint, variance = _covariance(a, b), float(place.square().mean())
    for across in (place.expand(WINDOW, WINDOW), place[:, None].expand(WINDOW, WINDOW)):
        slant_a, slant_b = (_weighted_mean(each, across).permute(0, 2, 3, 1) for each in (a, b))
        joint = joint - slant_a[..., :, None] * slant_b[..., None, :] / variance
    return joint


def _weighted_mean(y: Tensor, weights: Tensor) -> Tensor:
    """The mean over the window around each pixel of ``y`` times ``weights`` (WINDOW, WINDOW)."""
    kernel = (weights / WINDOW**2).expand(y.shape[1], 1, WINDOW, WINDOW)
    return F.conv2d(F.pad(y, (WINDOW // 2,) * 4, mode="replicate"), kernel, groups=y.shape[1])


def _covariance(a: Tensor, b: Tensor) -> Tensor:
    """The covariance (batch, h, w, channels of a, channels of b) in the window around each pixel."""
    return _pairs(_mean(_products(a, b)) - _products(_mean(a), _mean(b)))


def _products(a: Tensor, b: Tensor) -> Tensor:
    """The products (batch, 9, h, w) of each channel of ``a`` and each of ``b``."""
    return (a[:, :, None] * b[:, None]).flatten(1, 2)


def _pairs(y: Tensor) -> Tensor:
    """A value for each pair of channels (batch, 9, h, w) as matrices (batch, h, w, 3, 3)."""
    return y.reshape(len(y), 3, 3, *y.shape[2:]).permute(0, 3, 4, 1, 2)


def _mean(y: Tensor, window: int = WINDOW) -> Tensor:
    return F.avg_pool2d(F.pad(y, (window // 2,) * 4, mode="replicate"), window, stride=1)

"""FLIP of 8-bit pictures: the difference that a viewer sees who flips between two pictures (Andersson, Nilsson,
Akenine-Möller, Oskarsson, Åström, Fairchild, 2020, "FLIP: A Difference Evaluator for Alternating Images")."""

from __future__ import annotations

import math

import numpy as np

from iterinv.metrics.pixels import check_pair, mean_over, region_of

PIXELS_PER_DEGREE = 0.7 * 3840 / 0.7 * math.pi / 180
"""Of a viewer at 0.7 m from a screen that is 0.7 m and 3840 pixels wide, as in the paper."""

TO_XYZ = np.array(
    [
        [10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794],
        [2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897],
        [1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382],
    ]
)
WHITE = TO_XYZ.sum(1)
CONTRAST = (((1.0, 0.0047),), ((1.0, 0.0053),), ((34.1, 0.04), (13.5, 0.025)))
"""Contrast sensitivity of lightness, red-green and blue-yellow: sums of Gaussians, each a weight and a width in square
degrees."""

COLOUR_POWER, FEATURE_POWER = 0.7, 0.5
KNEE, AT_KNEE = 0.4, 0.95
FEATURE_WIDTH = 0.082
"""Width of the edges and points that are compared, in degrees."""

AROUND = max(3 * math.sqrt(0.04 / (2 * math.pi**2)), 1.5 * FEATURE_WIDTH)
"""A pixel depends on those so many degrees around it."""

BAND = 256
"""Rows that are computed at once, so that large pictures take little memory."""


def flip(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """The mean of :func:`flip_map` of two 8-bit pictures (h, w, 3), or its mean in a mask (h, w) bool with the
    reference's pixels outside it; ``None`` where the mask is empty."""
    check_pair(reference, picture, mask)
    return mean_over(flip_map(reference, region_of(reference, picture, mask)), mask)


def flip_map(reference: np.ndarray, picture: np.ndarray, pixels_per_degree: float = PIXELS_PER_DEGREE) -> np.ndarray:
    """The difference (h, w) that is seen at each pixel of two 8-bit sRGB pictures (h, w, 3): 0 is none, 1 the most."""
    check_pair(reference, picture)
    margin = math.ceil(AROUND * pixels_per_degree) + 1
    parts = []
    for top in range(0, len(reference), BAND):
        first, end = max(0, top - margin), top + BAND + margin
        part = _band(reference[first:end], picture[first:end], pixels_per_degree)
        parts.append(part[top - first : top - first + BAND])
    return np.concatenate(parts)


def _band(reference: np.ndarray, picture: np.ndarray, pixels_per_degree: float) -> np.ndarray:
    opponents = [_opponents(_linear(each)) for each in (reference, picture)]
    one, other = (_hunt(_seen_colour(each, pixels_per_degree)) for each in opponents)
    colour = _compressed(_apart(one, other) ** COLOUR_POWER)
    there, here = (_features((each[..., 0] + 16) / 116, pixels_per_degree) for each in opponents)
    feature = np.maximum(*(np.abs(a - b) for a, b in zip(there, here, strict=True)))
    return np.asarray(colour ** (1 - (feature / math.sqrt(2)) ** FEATURE_POWER))


def _linear(picture: np.ndarray) -> np.ndarray:
    x = picture.astype(np.float64) / 255
    return np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)


def _opponents(linear: np.ndarray) -> np.ndarray:
    """Linear RGB to YCxCz, where colours may be averaged."""
    x, y, z = np.moveaxis(linear @ TO_XYZ.T / WHITE, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def _from_opponents(values: np.ndarray) -> np.ndarray:
    y = (values[..., 0] + 16) / 116
    xyz = np.stack([y + values[..., 1] / 500, y, y - values[..., 2] / 200], -1) * WHITE
    return np.asarray(xyz @ np.linalg.inv(TO_XYZ).T)


def _seen_colour(opponents: np.ndarray, pixels_per_degree: float) -> np.ndarray:
    """The linear RGB that is left of YCxCz at the viewer's distance."""
    widest = max(width for gaussians in CONTRAST for _, width in gaussians)
    radius = math.ceil(3 * math.sqrt(widest / (2 * math.pi**2)) * pixels_per_degree)
    degrees = np.arange(-radius, radius + 1) / pixels_per_degree
    channels = []
    for k, gaussians in enumerate(CONTRAST):
        kernels = [np.exp(-(math.pi**2) * degrees**2 / width) for _, width in gaussians]
        scales = [weight * math.sqrt(math.pi / width) for weight, width in gaussians]
        whole = sum(scale * kernel.sum() ** 2 for scale, kernel in zip(scales, kernels, strict=True))
        parts = [
            scale / whole * _filtered(opponents[..., k], kernel, kernel)
            for scale, kernel in zip(scales, kernels, strict=True)
        ]
        channels.append(np.sum(parts, 0))
    return _from_opponents(np.stack(channels, -1)).clip(0, 1)


def _filtered(values: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Values (h, w) weighted by a kernel along each axis; the edge goes on beyond the picture."""
    from scipy.ndimage import correlate1d

    return np.asarray(correlate1d(correlate1d(values, down, 0, mode="nearest"), right, 1, mode="nearest"))


def _hunt(linear: np.ndarray) -> np.ndarray:
    """Linear RGB to L*a*b* whose colours are the fainter the darker they are."""
    t = linear @ TO_XYZ.T / WHITE
    small = 6 / 29
    f = np.where(t > small**3, np.cbrt(t), t / (3 * small**2) + 4 / 29)
    lightness = 116 * f[..., 1] - 16
    faint = 0.01 * lightness
    return np.stack([lightness, faint * 500 * (f[..., 0] - f[..., 1]), faint * 200 * (f[..., 1] - f[..., 2])], -1)


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """HyAB distance: that of lightness plus that of colour."""
    apart = one - other
    return np.asarray(np.abs(apart[..., 0]) + np.hypot(apart[..., 1], apart[..., 2]))


def _compressed(difference: np.ndarray) -> np.ndarray:
    """Differences to [0, 1]: linear up to a knee, and linear from there to the distance of pure green and blue."""
    green, blue = _hunt(np.eye(3)[1]), _hunt(np.eye(3)[2])
    most = float(_apart(green, blue)) ** COLOUR_POWER
    knee = KNEE * most
    above = AT_KNEE + (difference - knee) / (most - knee) * (1 - AT_KNEE)
    return np.where(difference < knee, AT_KNEE / knee * difference, above)


def _features(lightness: np.ndarray, pixels_per_degree: float) -> tuple[np.ndarray, np.ndarray]:
    """Strength of edges and of points in a lightness (h, w) in [0, 1]."""
    width = 0.5 * FEATURE_WIDTH * pixels_per_degree
    x = np.arange(-math.ceil(3 * width), math.ceil(3 * width) + 1)
    smooth = np.exp(-(x**2) / (2 * width**2))
    edge, point = -x * smooth, (x**2 / width**2 - 1) * smooth
    smooth = smooth / smooth.sum()
    strengths = []
    for kernel in (edge, point):
        balanced = np.where(kernel > 0, kernel / kernel[kernel > 0].sum(), kernel / -kernel[kernel < 0].sum())
        strengths.append(np.hypot(_filtered(lightness, smooth, balanced), _filtered(lightness, balanced, smooth)))
    return strengths[0], strengths[1]

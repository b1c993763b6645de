"""Networks of convolutions that perceptual distances look through, as lines of text, and the distance of what they
see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.images import from_uint8
from iterinv.metrics.pixels import region_of

LARGEST = 2048**2
"""The most pixels of a picture; features of so many take 4 GB."""

Weights = Mapping[str, Tensor]


def features(x: Tensor, layers: str, weights: Weights) -> list[Tensor]:
    """The features of pictures (batch, 3, h, w) at each ``tap`` of a network.

    ``layers`` are, with commas between them: ``conv`` with the number of its weights, its padding, and its stride if
    that is not 1; ``pool`` with its kernel and stride, which keeps an incomplete window if ``whole`` follows; ``blur``,
    which halves the size; ``fire``, SqueezeNet's block; ``relu``; ``tap``.
    """
    taps = []
    for layer in layers.split(", "):
        kind, *rest = layer.split()
        if kind == "tap":
            taps.append(x)
        elif kind == "conv":
            x = _conv(x, rest[0], weights, int(rest[1]), int(rest[2]) if rest[2:] else 1)
        elif kind == "fire":
            x = _conv(x, f"{rest[0]}.squeeze", weights).relu()
            wide = (_conv(x, f"{rest[0]}.expand{k}x{k}", weights, k // 2) for k in (1, 3))
            x = torch.cat([each.relu() for each in wide], 1)
        elif kind == "blur":
            filters = weights[f"{rest[0]}.filt"]
            x = F.conv2d(F.pad(x, [2] * 4, mode="reflect"), filters, stride=2, groups=len(filters))
        elif kind == "pool":
            x = F.max_pool2d(x, int(rest[0]), int(rest[1]), ceil_mode="whole" in rest)
        else:
            x = x.relu()
    return taps


def _conv(x: Tensor, name: str, weights: Weights, padding: int = 0, stride: int = 1) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding)


@torch.no_grad()
def distance(
    reference: np.ndarray,
    picture: np.ndarray,
    mask: np.ndarray | None,
    layers: str,
    weights: Weights,
    heads: Sequence[Tensor],
    shift: Tensor,
    scale: Tensor,
) -> float | None:
    """Squared differences of normalised features, weighted by a head (1, channels, 1, 1) at each tap, in the mean over
    the picture and in the sum over the taps.

    In a mask (h, w) bool the mean is over the mask, as large at each tap as the features are, and the picture is the
    reference outside it; ``None`` where the mask is empty. ``shift`` and ``scale`` (1, 3, 1, 1) bring values in [-1, 1]
    to those that the network knows.
    """
    if mask is not None and not mask.any():
        return None
    taps = (
        features((from_uint8(each) - shift) / scale, layers, weights)
        for each in (reference, region_of(reference, picture, mask))
    )
    total = 0.0
    for head, one, other in zip(heads, *taps, strict=True):
        apart = F.conv2d((_unit(one) - _unit(other)).square(), head)[0, 0]
        if mask is None:
            total += float(apart.mean())
        else:
            share = F.interpolate(torch.from_numpy(mask)[None, None].float(), apart.shape, mode="area")[0, 0]
            total += float((apart * share).sum() / share.sum())
    return total


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def check_size(reference: np.ndarray, smallest: int, name: str) -> None:
    """Raise ``ValueError`` for a picture with a side of fewer than ``smallest`` pixels, or too large for a network."""
    height, width = reference.shape[:2]
    if min(height, width) < smallest:
        raise ValueError(f"pictures are {width}x{height} px; {name} compares {smallest} px a side or more")
    if height * width > LARGEST:
        most = math.isqrt(LARGEST)
        raise ValueError(f"pictures are {width}x{height} px; {name} compares {most}x{most} at most: reduce both alike")

"""Metrics of the embedded world: distances of what the reader sees. This module registers them."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from iterinv.embedded import reader as network
from iterinv.images import from_uint8
from iterinv.metrics.pixels import check_pair, region_of
from iterinv.metrics.registry import METRICS, Metric


def look(picture: np.ndarray) -> Tensor:
    """The reader's features (256,) of a square picture (n, n, 3) uint8, n of 64 or more. Raises ``ValueError`` for
    another."""
    if picture.shape[0] != picture.shape[1] or len(picture) < network.SIZE:
        raise ValueError(
            f"a picture of {picture.shape[1]}x{picture.shape[0]} px is none that the reader takes: squares of "
            f"{network.SIZE} px or more"
        )
    return network.features(from_uint8(picture))[0]


def reader(reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """Root mean squared difference of the reader's features of two pictures (n, n, 3) uint8.

    In a mask (n, n) bool only differences inside it count: the picture is the reference outside; ``None`` where it is
    empty. Raises as :func:`look` does.
    """
    check_pair(reference, picture, mask)
    if mask is not None and not mask.any():
        return None
    one, other = look(reference), look(region_of(reference, picture, mask))
    return float((one - other).square().mean().sqrt())


OPEN = (0.0, math.inf)
METRICS["reader"] = Metric("difference to the scene reader", "lower", OPEN, function=reader)
METRICS["frechet-reader"] = Metric("distance of folders, by reader", "lower", OPEN, features=look)

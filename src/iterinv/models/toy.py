"""Fields whose truth is known in closed form; the numerics are tested on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iterinv.levels import Field, Grid, Level, Prediction


def arc(steps: int, noisy: float = 1.45, clean: float = 0.02) -> Grid:
    """A grid of ``alpha = cos(a)``, ``sigma = sin(a)``, evenly spaced in the angle, with the same ends for any
    ``steps``."""
    angles = [noisy + (clean - noisy) * k / steps for k in range(steps + 1)]
    return tuple(Level(a, math.cos(a), math.sin(a)) for a in angles)


def gaussian(mean: float = 0.3, std: float = 0.5) -> Field:
    """The prediction for data ``N(mean, std^2)``, each value by itself: a linear field, with :func:`gaussian_flow`."""

    def field(x: Tensor, a: Level) -> Prediction:
        variance, centred = a.alpha**2 * std**2 + a.sigma**2, x - a.alpha * mean
        return Prediction(mean + a.alpha * std**2 / variance * centred, a.sigma / variance * centred)

    return field


def gaussian_flow(x: Tensor, a: Level, b: Level, mean: float = 0.3, std: float = 0.5) -> Tensor:
    """The end at level ``b`` of the probability-flow ODE of :func:`gaussian` from ``x`` at ``a``: it keeps
    quantiles."""

    def spread(level: Level) -> float:
        return math.sqrt(level.alpha**2 * std**2 + level.sigma**2)

    return b.alpha * mean + spread(b) / spread(a) * (x - a.alpha * mean)


def mixture(centre: float = 0.6, std: float = 0.15) -> Field:
    """The prediction for data that is ``+centre`` or ``-centre`` with spread ``std``: a curved field."""

    def field(x: Tensor, a: Level) -> Prediction:
        variance = a.alpha**2 * std**2 + a.sigma**2
        side = torch.tanh(x * a.alpha * centre / variance)  # posterior of +centre less that of -centre
        x0 = (a.alpha * std**2 * x + a.sigma**2 * centre * side) / variance
        return Prediction(x0, a.sigma * (x - a.alpha * centre * side) / variance)

    return field

"""Fields whose truth is known in closed form: what the numerics are tested on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iterinv.levels import Eps, Grid, Level


def arc(steps: int, noisy: float = 1.45, clean: float = 0.02) -> Grid:
    """A grid of ``alpha = cos(a)``, ``sigma = sin(a)``, evenly spaced in the angle, with the same ends for any ``steps``."""
    angles = [noisy + (clean - noisy) * k / steps for k in range(steps + 1)]
    return tuple(Level(a, math.cos(a), math.sin(a)) for a in angles)


def gaussian(mean: float = 0.3, std: float = 0.5) -> Eps:
    """The noise of data ``N(mean, std^2)``, each value by itself: a linear field, its flow known (:func:`gaussian_flow`)."""

    def eps(x: Tensor, a: Level) -> Tensor:
        return a.sigma * (x - a.alpha * mean) / (a.alpha**2 * std**2 + a.sigma**2)

    return eps


def gaussian_flow(x: Tensor, a: Level, b: Level, mean: float = 0.3, std: float = 0.5) -> Tensor:
    """Where the probability-flow ODE of :func:`gaussian` takes ``x`` from level ``a`` to level ``b``: quantiles are kept."""

    def spread(level: Level) -> float:
        return math.sqrt(level.alpha**2 * std**2 + level.sigma**2)

    return b.alpha * mean + spread(b) / spread(a) * (x - a.alpha * mean)


def mixture(centre: float = 0.6, std: float = 0.15) -> Eps:
    """The noise of data that is ``+centre`` or ``-centre`` with spread ``std``: a curved field."""

    def eps(x: Tensor, a: Level) -> Tensor:
        variance = a.alpha**2 * std**2 + a.sigma**2
        side = torch.tanh(x * a.alpha * centre / variance)  # posterior of +centre less that of -centre
        return a.sigma * (x - a.alpha * centre * side) / variance

    return eps

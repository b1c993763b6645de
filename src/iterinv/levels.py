"""Levels of noise, and the one linear map between them.

Everywhere in this package a noisy sample is ``x = alpha * x0 + sigma * eps``: clean data ``x0``, unit noise ``eps``.
Grids run from noisy to clean. Coefficients are Python floats (double precision, no device, hashable).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor


class Level(NamedTuple):
    """A point of the noise schedule. ``t`` is the label that the network is given for it."""

    t: float
    alpha: float
    sigma: float


Grid = Sequence[Level]
"""The levels a run visits, noisy to clean: ``n + 1`` of them for ``n`` steps."""

Eps = Callable[[Tensor, Level], Tensor]
"""The field: predicted noise of a sample (batch, ...) at a level, in the sample's dtype."""

State = tuple[Tensor, ...]
"""All that a rule carries from step to step; ``state[0]`` is the sample."""


def move(x: Tensor, eps: Tensor, a: Level, b: Level) -> Tensor:
    """Carry ``x`` from level ``a`` to level ``b`` along the noise ``eps``: ``b.alpha * x0 + b.sigma * eps``.

    Exact for a fixed ``eps``, and a group: a to b to c is a to c. DDIM (Song, Meng, Ermon, 2021, eq. 12 with eta = 0)
    is this map with ``eps(x, a)``.
    """
    ratio = b.alpha / a.alpha
    return (ratio * x).add_((b.sigma - ratio * a.sigma) * eps)


def constant(e: Tensor) -> Eps:
    """The field that is ``e`` everywhere: for a step whose noise is known."""
    return lambda x, a: e

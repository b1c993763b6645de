"""DPM-Solver++ of second order (Lu, Zhou, Bao, Chen, Li, Zhu, 2022), https://arxiv.org/abs/2211.01095

It integrates the predicted clean data along ``lambda = log(alpha / sigma)``. Of first order it is DDIM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Field, Grid, Level, Prediction, State
from iterinv.steps.one_step import OneStep
from iterinv.steps.step import Multistep


def exponential_step(x: Tensor, x0: Tensor, a: Level, b: Level) -> Tensor:
    """Step from ``a`` to ``b`` with constant clean data ``x0``: ``(sigma_b / sigma_a) x - alpha_b (exp(-h) - 1)
    x0``."""
    return Prediction.from_x0(x, a, x0).at(b)


def _lambda(a: Level) -> float:
    return math.log(a.alpha / a.sigma) if a.alpha > 0 else -math.inf


@dataclass(frozen=True)
class DPMPP2S(OneStep):
    """DPM-Solver++ 2S, the single-step rule: second order, two network calls a step.

    This is algorithm 1 of the paper with ``r_1 = 1``: the inner point is the level that the step arrives at. With
    ``x0`` predicted at ``a`` and ``x0'`` at the end of a DDIM step, the clean data from ``a`` to ``b`` are ``(x0 + x0')
    / 2``. The step into the clean end is DDIM's and costs one call.
    """

    order = 2

    def step_to(self, field: Field, x: Tensor, a: Level, *to: Level) -> tuple[Tensor, ...]:
        """One network call, and one more for each of the levels that is not clean."""
        prediction, ends = field(x, a), []
        for b in to:
            y = prediction.at(b)
            ends.append(y if b.sigma == 0 else exponential_step(x, (prediction.x0 + field(y, b).x0) / 2, a, b))
        return tuple(ends)


@dataclass(frozen=True)
class DPMPP2M(Multistep):
    """DPM-Solver++ 2M, the multistep rule: second order, one network call a step.

    This is algorithm 2 of the paper: the clean data from ``a`` to ``b`` are ``x0_a + (x0_a - x0_p) / (2 r)`` with ``r =
    (lambda_a - lambda_p) / (lambda_b - lambda_a)``. The first step, which has no past, and the last, into the clean
    end, are DDIM. The state is ``(x_a, x0_p)``: the sample, and the clean data predicted at the level before.
    """

    order = 2

    def memory(self, field: Field, x: Tensor, a: Level) -> Tensor:
        """Return the clean data that the rule predicts for a sample at a level."""
        return field(x, a).x0

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        x, *past = state
        a, b = grid[i], grid[i + 1]
        x0 = field(x, a).x0
        return exponential_step(x, extrapolated(x0, past[0], grid, i) if past else x0, a, b), x0


def extrapolated(x0: Tensor, before: Tensor, grid: Grid, i: int) -> Tensor:
    """The clean data half-way into the step from ``grid[i]``, on the line through the last two predictions."""
    p, a, b = grid[i - 1], grid[i], grid[i + 1]
    if b.sigma == 0 or _lambda(b) == _lambda(a) or _lambda(a) == _lambda(p):
        return x0
    r = (_lambda(a) - _lambda(p)) / (_lambda(b) - _lambda(a))
    return x0 + (x0 - before) / (2 * r)

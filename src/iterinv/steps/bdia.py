"""BDIA: Exact Diffusion Inversion via Bi-directional Integration Approximation
(Zhang, Lewis, Kleijn, 2023), https://arxiv.org/abs/2307.10829

The next state is linear in the two before it and in a one-step rule's result from the middle one. The same equation
solved for the *oldest* state runs backwards: exact inversion, with DDIM as the one-step rule at DDIM's price, one
network call a step.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from iterinv.levels import Field, Grid, State, move
from iterinv.steps.ddim import DDIM
from iterinv.steps.dpmpp import exponential_step, extrapolated
from iterinv.steps.fixed_point import Multiples
from iterinv.steps.heun import heun_step
from iterinv.steps.one_step import OneStep
from iterinv.steps.step import Reversible, Step
from iterinv.typed import Checked, Range, Share, check_fields


def bdia_step(base: OneStep, field: Field, state: State, grid: Grid, i: int, gamma: float) -> State:
    """Take BDIA's step ``x_b = D(x_a, a, b) + gamma (x_p - D(x_a, a, p))``: ``p``, ``a``, ``b`` are three levels in a
    row, ``D`` is the base rule.

    Without ``x_p``, the base's own step.
    """
    x, *older = state
    a, b = grid[i], grid[i + 1]
    if not older:
        return *base.step_to(field, x, a, b), x
    there, oldest = base.step_to(field, x, a, b, grid[i - 1])
    return (older[0] - oldest).mul_(gamma).add_(there), x


def bdia_undo(base: OneStep, field: Field, state: State, grid: Grid, i: int, gamma: float) -> State:
    """Solve :func:`bdia_step` for the oldest state."""
    y, x = state
    there, oldest = base.step_to(field, x, grid[i], grid[i + 1], grid[i - 1])
    return x, (y - there).div_(gamma).add_(oldest)


def bdia_init_inverse(field: Field, x: Tensor, grid: Grid) -> State:
    """Make the pair at the clean end: the data, and one DDIM inversion step from it.

    The network is given the destination's timestep, since it was never trained at the clean end.
    """
    clean_end, b = grid[-1], grid[-2]
    return x, move(x, field(x, b).eps, clean_end, b)


class TwoState(Reversible):
    """A rule whose state at ``grid[i]`` is ``(x_i, x_{i-1})``, undone explicitly from the pair at the clean end."""

    first = 1

    def init(self, x: Tensor, *older: Tensor) -> State:
        """Keep the sample and the one before it."""
        return x, *older[:1]

    def init_inverse(self, field: Field, x: Tensor, grid: Grid) -> State:
        """Make :func:`bdia_init_inverse`'s pair from clean data (batch, ...)."""
        return bdia_init_inverse(field, x, grid)


@dataclass(frozen=True)
class BDIA(TwoState):
    """BDIA on a base rule, DDIM by default: exactly reversible, one network call a step.

    ``p``, ``a``, ``b`` are three levels in a row and ``D`` is the base rule (for DDIM ``D = move(x_a, eps, a, .)``)::

        x_b = D(x_a, a, b) + gamma * (x_p - D(x_a, a, p))

    ``gamma`` in (0, 1]. At 1 it is the leapfrog rule: second order, undone without growth of error. Each undone step
    multiplies an error by ``1 / gamma``. The first step of a run is the base's. The state at ``grid[i]`` is
    ``(x_i, x_{i-1})``; the pair at ``grid[1]`` is what reproduces a picture. ``base`` may be any one-step rule that
    carries both ways: DDIM costs one call a step, Heun and DPM-Solver++ 2S three.
    """

    gamma: float = 1.0
    base: OneStep = dataclasses.field(default_factory=DDIM)

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.gamma <= 1:
            raise ValueError(
                f"gamma = {self.gamma} is outside (0, 1]; at 0 the rule is DDIM, which does not undo itself"
            )

    @property
    def order(self) -> int:
        return 2 if self.gamma == 1 else self.base.order

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        return bdia_step(self.base, field, state, grid, i, self.gamma)

    def undo(self, field: Field, state: State, grid: Grid, i: int) -> State:
        return bdia_undo(self.base, field, state, grid, i, self.gamma)

    def growth(self, grid: Grid) -> float:
        return self.gamma ** -(len(grid) - 1 - self.first)


@dataclass(frozen=True)
class FixedPointBDIA(Checked, Reversible):
    """BDIA at gamma = 1 in fixed-point arithmetic: it undoes itself bit for bit, at any steps and guidance.

    ``x_b = x_p + g(x_a)`` with ``g = D(x_a, a, b) - D(x_a, a, p)`` rounded to a multiple of ``2 ** -bits``. All states
    are such multiples, so adding and subtracting ``g`` is exact integer arithmetic: int64, carried as the float64 of
    the same value between steps, which is exact below ``2 ** (53 - bits)``. Raises ``OverflowError`` above. A float32
    carries multiples of ``2 ** -18`` at the finest, below 64: so a half-precision network sees the same input both
    ways, and says the same, where rounding a float32 state to half precision may else fall either way.
    """

    bits: Annotated[int, Range(1, 52)] = 40
    order = 2
    first = 1

    def init(self, x: Tensor, *older: Tensor) -> State:
        return tuple(self._numbers.real(self._numbers.fixed(each), x) for each in (x, *older[:1]))

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        x, *older = state
        if not older:
            (y,) = DDIM().step_to(field, x, grid[i], grid[i + 1])
            return self._numbers.real(self._numbers.fixed(y), x), x
        return self._numbers.real(self._numbers.fixed(older[0]) + self._gain(field, x, grid, i), x), x

    def init_inverse(self, field: Field, x: Tensor, grid: Grid) -> State:
        x = self._numbers.real(self._numbers.fixed(x), x)
        return x, self._numbers.real(self._numbers.fixed(bdia_init_inverse(field, x, grid)[1]), x)

    def undo(self, field: Field, state: State, grid: Grid, i: int) -> State:
        y, x = state
        return x, self._numbers.real(self._numbers.fixed(y) - self._gain(field, x, grid, i), x)

    def growth(self, grid: Grid) -> float:
        return 1.0

    def _gain(self, field: Field, x: Tensor, grid: Grid, i: int) -> Tensor:
        there, oldest = DDIM().step_to(field, x, grid[i], grid[i + 1], grid[i - 1])
        return self._numbers.fixed(there - oldest)

    @property
    def _numbers(self) -> Multiples:
        return Multiples(self.bits)


@dataclass(frozen=True)
class BDIAHeun(Checked, Step):
    """BDIA on Heun for sampling: it reuses the last slope and makes as many network calls as Heun.

    ``D(x_a, a, p)`` is the trapezoid of the slopes at ``a`` and ``p``, both known. It cannot be undone explicitly,
    since the kept slope depends on the oldest state: for that, ``BDIA(base=Heun())``. The state is ``(x_a, x_p, e_p)``.
    """

    gamma: Share = 1.0
    order = 2

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        x, *past = state
        a, b = grid[i], grid[i + 1]
        prediction = field(x, a)
        y = heun_step(field, x, prediction, a, b)
        if past:
            older, slope = past
            y = y + self.gamma * (older - move(x, (prediction.eps + slope) / 2, a, grid[i - 1]))
        return y, x, prediction.eps


@dataclass(frozen=True)
class BDIADPMPP(Checked, Step):
    """BDIA on DPM-Solver++ 2M for sampling: one network call a step.

    ``D(x_a, a, p)`` holds the mean of the clean data predicted at ``a`` and ``p``. Not explicitly undone; at gamma near
    1 it is not stable. The state is ``(x_a, x0_p, x_p)``.
    """

    gamma: Share = 0.5
    order = 2

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        x, *past = state
        a, b = grid[i], grid[i + 1]
        x0 = field(x, a).x0
        if not past:
            return exponential_step(x, x0, a, b), x0, x
        before, older = past
        y = exponential_step(x, extrapolated(x0, before, grid, i), a, b)
        return y + self.gamma * (older - exponential_step(x, (x0 + before) / 2, a, grid[i - 1])), x0, x

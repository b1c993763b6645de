"""EDICT: Exact Diffusion Inversion via Coupled Transformations (Wallace, Gokul, Naik, 2023),
https://arxiv.org/abs/2211.12446

Two states step along each other's noise, as in an affine coupling layer, and are then drawn together; every part of
that can be undone. Two network calls a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Field, Grid, State, move
from iterinv.steps.step import Reversible
from iterinv.typed import check_fields


@dataclass(frozen=True)
class EDICT(Reversible):
    """EDICT: exactly reversible, two coupled states, two network calls a step.

    ``p`` is the mixing weight in eq. 14 and 15 of the paper::

        x' = move(x, eps(y, a), a, b)         x = p x' + (1 - p) y'
        y' = move(y, eps(x', a), a, b)        y = p y' + (1 - p) x

    At every other step x and y change places in the left column, so that neither leads. Undoing divides by ``p`` twice
    a step. The state is ``(x, y)``, equal to begin with.
    """

    p: float = 0.93
    order = 1
    first = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.p <= 1:
            raise ValueError(f"p = {self.p} is outside (0, 1]")

    def init(self, x: Tensor, *older: Tensor) -> State:
        return x, x

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        a, b = grid[i], grid[i + 1]
        lead, other = _swapped(state, i)
        lead = move(lead, field(other, a).eps, a, b)
        other = move(other, field(lead, a).eps, a, b)
        x, y = _swapped((lead, other), i)
        x = self.p * x + (1 - self.p) * y
        return x, self.p * y + (1 - self.p) * x

    def init_inverse(self, field: Field, x: Tensor, grid: Grid) -> State:
        return x, x

    def undo(self, field: Field, state: State, grid: Grid, i: int) -> State:
        a, b = grid[i], grid[i + 1]
        x, y = state
        y = (y - (1 - self.p) * x) / self.p
        x = (x - (1 - self.p) * y) / self.p
        lead, other = _swapped((x, y), i)
        other = move(other, field(lead, a).eps, b, a)
        lead = move(lead, field(other, a).eps, b, a)
        return _swapped((lead, other), i)

    def growth(self, grid: Grid) -> float:
        if grid[0].alpha == 0:  # a step from there needs the clean data of one state and the noise of the other
            return math.inf
        return self.p ** (-2 * (len(grid) - 1))


def _swapped(pair: State, i: int) -> State:
    return pair[::-1] if i % 2 else pair

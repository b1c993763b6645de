"""What the one-step rules share."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from iterinv.levels import Eps, Grid, Level, State


class OneStep(ABC):
    """A rule whose state is one sample. It can go from a level to several at once, both ways; a step is to the next."""

    order: int

    @abstractmethod
    def carry(self, eps: Eps, x: Tensor, a: Level, *to: Level) -> tuple[Tensor, ...]:
        """From level ``a`` to each of the others."""

    def init(self, x: Tensor, *older: Tensor) -> State:
        return (x,)

    def step(self, eps: Eps, state: State, grid: Grid, i: int) -> State:
        return self.carry(eps, state[0], grid[i], grid[i + 1])

"""The base of the one-step rules."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from iterinv.levels import Field, Grid, Level, State
from iterinv.steps.step import Step


class OneStep(Step):
    """A rule whose state is one sample. It can step from a level to several others at once, in both directions."""

    @abstractmethod
    def step_to(self, field: Field, x: Tensor, a: Level, *to: Level) -> tuple[Tensor, ...]:
        """The samples (batch, ...) at each of the levels ``to``, from ``x`` at level ``a``."""

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        """Step to the next level by :meth:`step_to`."""
        return self.step_to(field, state[0], grid[i], grid[i + 1])

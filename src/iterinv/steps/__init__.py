"""Step rules: how a state is carried from one level of a grid to the next, one file a rule.

A rule is a frozen dataclass. It receives the *field* ``eps(x, level)`` and may call it as often as it needs.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from iterinv.levels import Eps, Grid, State
from iterinv.steps.bdia import BDIA
from iterinv.steps.ddim import DDIM


@runtime_checkable
class Step(Protocol):
    """A rule."""

    @property
    def order(self) -> int:
        """The order of convergence, which the tests measure."""
        ...

    def init(self, x: Tensor, *older: Tensor) -> State:
        """The state at a level from its sample (batch, ...) and, if known, those of the levels before it, latest first."""
        ...

    def step(self, eps: Eps, state: State, grid: Grid, i: int) -> State:
        """From ``grid[i]`` to ``grid[i + 1]``."""
        ...


@runtime_checkable
class Reversible(Step, Protocol):
    """A rule that also undoes itself exactly."""

    @property
    def first(self) -> int:
        """The index of the noisiest level that it can be undone to, and is rerun from."""
        ...

    def init_inverse(self, eps: Eps, x: Tensor, grid: Grid) -> State:
        """The state at ``grid[-1]`` from clean data."""
        ...

    def undo(self, eps: Eps, state: State, grid: Grid, i: int) -> State:
        """From ``grid[i + 1]`` to ``grid[i]``: what ``step`` did, undone."""
        ...


RULES: dict[str, type[Step]] = {"ddim": DDIM, "bdia": BDIA}

__all__ = ["BDIA", "DDIM", "RULES", "Reversible", "Step"]

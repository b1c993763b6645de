"""The protocols of step rules.

A rule is a frozen dataclass. It receives the *field*, ``field(x, level)``, and may call it as often as it needs.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from iterinv.levels import Field, Grid, Level, State


@runtime_checkable
class Step(Protocol):
    """A rule, by inheritance or by having these methods."""

    @property
    def order(self) -> int:
        """The order of convergence, which the tests measure."""
        ...

    def init(self, x: Tensor, *older: Tensor) -> State:
        """Make the state at a level from its sample (batch, ...) and, if known, those of the levels before it, latest
        first. A rule remembers nothing unless it says so."""
        return (x,)

    @abstractmethod
    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        """Step from ``grid[i]`` to ``grid[i + 1]``; the samples in ``state`` are (batch, ...)."""
        ...


@runtime_checkable
class Reversible(Step, Protocol):
    """A rule that also undoes itself exactly."""

    @property
    def first(self) -> int:
        """The index of the noisiest level that it can be undone to, and is rerun from."""
        ...

    def init_inverse(self, field: Field, x: Tensor, grid: Grid) -> State:
        """Make the state at ``grid[-1]`` from clean data (batch, ...)."""
        ...

    def undo(self, field: Field, state: State, grid: Grid, i: int) -> State:
        """Undo ``step``: from ``grid[i + 1]`` to ``grid[i]``."""
        ...

    def growth(self, grid: Grid) -> float:
        """The factor by which rounding is multiplied when a whole grid is undone."""
        ...


@runtime_checkable
class Multistep(Step, Protocol):
    """A rule whose state also holds its prediction at the level before."""

    def memory(self, field: Field, x: Tensor, a: Level) -> Tensor:
        """Return the value that the rule stores for a sample at a level."""
        ...


@dataclass(frozen=True)
class Wrapped(Step):
    """A rule that is another one, but for its steps."""

    rule: Step

    @property
    def order(self) -> int:
        return self.rule.order

    def init(self, x: Tensor, *older: Tensor) -> State:
        return self.rule.init(x, *older)


def rule_name(rule: Step) -> str:
    """Return the name of a rule's class, without wrappers."""
    return rule_name(rule.rule) if isinstance(rule, Wrapped) else type(rule).__name__

"""The base class of inverters, and their result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor

from iterinv.levels import Field, Grid, State
from iterinv.steps import Step


class Inverted(NamedTuple):
    """The result of inverting a rule.

    ``state`` is where a rerun starts, at ``grid[inverter.first(rule)]``. ``path`` holds one sample (batch, ...) for
    each level of the grid, noisy to clean. ``error`` (batch,) is the largest error over the levels that a solver
    measured, an rms; ``None`` where nothing is measured.
    """

    state: State
    path: list[Tensor]
    error: Tensor | None = None


Walk = Generator[State, None, Inverted]
"""A walk back in progress: the states as they are computed, and the result at the end."""


class Inverter(ABC):
    """A way to compute the path of a rule backwards, from clean data.

    It is called with the rule, the field, clean data ``x`` (batch, ...) at ``grid[-1]``, the grid and a seed for each
    picture, for what it draws. It yields a state after every step or network call and returns an :class:`Inverted`. A
    subclass is a frozen dataclass. Raises :class:`iterinv.steps.run.NotFinite`.
    """

    exact: ClassVar[bool] = False
    """The rerun goes through the inverted path, up to rounding, so the path need not be saved."""

    follows_rule: ClassVar[bool] = True
    """The path is a trajectory of the rule. Otherwise an edit along it must run the rule that was refined to follow
    it."""

    reads_path: ClassVar[bool] = False
    """A rerun reads the path, which is kept and saved in the plan's dtype."""

    @property
    def name(self) -> str:
        """The part of a method's name that stands for this way of inverting."""
        return type(self).__name__

    @property
    def target_error(self) -> float | None:
        """The error at which a solver stops, ``None`` for one that does not measure it."""
        return None

    def check(self, rule: Step) -> None:  # noqa: B027  (any rule will do unless a subclass says otherwise)
        """Raise ``ValueError``, with the remedy, for a rule that cannot be inverted so."""

    def first(self, rule: Step) -> int:
        """The index of the noisiest level that is reached, where a rerun starts."""
        return 0

    def growth(self, rule: Step, grid: Grid) -> float:
        """The factor by which rounding is multiplied from the clean end to the noisiest level."""
        return 1.0

    def updates(self, rule: Step, grid: Grid) -> int:
        """The largest number of states that are yielded."""
        return len(grid) - self.first(rule)

    def rerun_rule(self, rule: Step, path: Sequence[Tensor]) -> Step:
        """The rule of a rerun along the inverted path, one sample (batch, ...) a level."""
        return rule

    @property
    def gradients(self) -> bool:
        """Tell whether it takes gradients of the network."""
        return False

    @abstractmethod
    def __call__(self, rule: Step, field: Field, x: Tensor, grid: Grid, seeds: Sequence[int] = (0,)) -> Walk:
        """Walk back from ``x``; see the class."""

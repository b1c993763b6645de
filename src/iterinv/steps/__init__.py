"""Step rules: how a state is carried from one level of a grid to the next, one file a rule.

A rule is a frozen dataclass. It receives the *field*, ``field(x, level)``, and may call it as often as it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from iterinv.levels import Field, Grid, Level, State
from iterinv.steps.bdia import BDIA, BDIADPMPP, BDIAHeun, FixedPointBDIA
from iterinv.steps.belm import BELM
from iterinv.steps.ddim import DDIM
from iterinv.steps.ddpm import DDPM
from iterinv.steps.dpmpp import DPMPP2M, DPMPP2S
from iterinv.steps.edict import EDICT
from iterinv.steps.heun import Heun
from iterinv.steps.one_step import OneStep


@runtime_checkable
class Step(Protocol):
    """A rule."""

    @property
    def order(self) -> int:
        """The order of convergence, which the tests measure."""
        ...

    def init(self, x: Tensor, *older: Tensor) -> State:
        """The state at a level from its sample (batch, ...) and, if known, those of the levels before it, latest
        first."""
        ...

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        """From ``grid[i]`` to ``grid[i + 1]``."""
        ...


@dataclass(frozen=True)
class Wrapped:
    """A rule that is another one, but for its steps."""

    rule: Step

    @property
    def order(self) -> int:
        return self.rule.order

    def init(self, x: Tensor, *older: Tensor) -> State:
        return self.rule.init(x, *older)


def rule_name(rule: Step) -> str:
    """The name of a rule's class, without what wraps it."""
    return rule_name(rule.rule) if isinstance(rule, Wrapped) else type(rule).__name__


@runtime_checkable
class Reversible(Step, Protocol):
    """A rule that also undoes itself exactly."""

    @property
    def first(self) -> int:
        """The index of the noisiest level that it can be undone to, and is rerun from."""
        ...

    def init_inverse(self, field: Field, x: Tensor, grid: Grid) -> State:
        """The state at ``grid[-1]`` from clean data."""
        ...

    def undo(self, field: Field, state: State, grid: Grid, i: int) -> State:
        """From ``grid[i + 1]`` to ``grid[i]``: what ``step`` did, undone."""
        ...

    def growth(self, grid: Grid) -> float:
        """The factor by which rounding is multiplied when a whole grid is undone."""
        ...


@runtime_checkable
class Multistep(Step, Protocol):
    """A rule whose state holds, besides the sample, what it predicted at the level before."""

    def memory(self, field: Field, x: Tensor, a: Level) -> Tensor:
        """The value that the rule remembers of a sample at a level."""
        ...


RULES: dict[str, Step] = {
    "ddim": DDIM(),
    "heun": Heun(),
    "dpmpp-2s": DPMPP2S(),
    "dpmpp-2m": DPMPP2M(),
    "bdia": BDIA(),
    "bdia-fixed": FixedPointBDIA(),
    "bdia-heun": BDIAHeun(),
    "bdia-dpmpp": BDIADPMPP(),
    "edict": EDICT(),
    "belm": BELM(),
}
"""Rules by name, with their defaults."""

__all__ = [
    "BDIA",
    "BDIADPMPP",
    "BELM",
    "DDIM",
    "DDPM",
    "DPMPP2M",
    "DPMPP2S",
    "EDICT",
    "RULES",
    "BDIAHeun",
    "FixedPointBDIA",
    "Heun",
    "Multistep",
    "OneStep",
    "Reversible",
    "Step",
    "Wrapped",
    "rule_name",
]

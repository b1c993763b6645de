"""Inversion by a rule that undoes itself: BDIA, O-BELM, EDICT, Rex."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from iterinv.inverters.inverter import Inverted, Inverter, Walk
from iterinv.levels import Field, Grid
from iterinv.steps import Multistep, Reversible, Step
from iterinv.steps.run import at_level, check_finite


@dataclass(frozen=True)
class Undo(Inverter):
    """Walk back by the rule's own inverse: exact up to rounding, at the cost of one run."""

    exact = True

    @property
    def name(self) -> str:
        return ""

    def check(self, rule: Step) -> None:
        if not isinstance(rule, Reversible):
            way = "Relax()" if isinstance(rule, Multistep) else "Solve(FixedPoint())"
            raise ValueError(f"{type(rule).__name__} cannot undo itself: give the plan another inverter, such as {way}")

    def first(self, rule: Step) -> int:
        return rule.first if isinstance(rule, Reversible) else 0

    def growth(self, rule: Step, grid: Grid) -> float:
        return rule.growth(grid) if isinstance(rule, Reversible) else 1.0

    def __call__(self, rule: Step, field: Field, x: Tensor, grid: Grid, seeds: Sequence[int] = (0,)) -> Walk:
        if not isinstance(rule, Reversible):
            raise TypeError(f"{type(rule).__name__} cannot undo itself")
        with at_level(grid, len(grid) - 1, "undoing"):
            state = rule.init_inverse(field, x, grid)
        yield check_finite(state, grid, len(grid) - 1, "undoing", (x,), len(grid) - 2)
        walk = [state[0]]
        for i in reversed(range(rule.first, len(grid) - 1)):
            before = state
            with at_level(grid, i + 1, "undoing"):
                state = rule.undo(field, state, grid, i)
            yield check_finite(state, grid, i, "undoing", before, i)
            walk.append(state[0])
        return Inverted(state, [*state[rule.first : 0 : -1], *reversed(walk)])

"""Run a rule over a grid, and check that its states stay finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from iterinv.levels import Field, Grid, Level, State

if TYPE_CHECKING:
    from iterinv.steps import Step


class NotFinite(ArithmeticError):
    """A state holds NaN or infinity. ``sample`` at ``level`` is the last finite sample before it, where that is
    known."""

    sample: Tensor | None = None
    level: Level | None = None


def run(rule: Step, field: Field, state: State, grid: Grid, start: int = 0) -> Iterator[State]:
    """Yield the states from ``grid[start]``, which is the given one, to ``grid[-1]``. Raises :class:`NotFinite`."""
    yield state
    for i in range(start, len(grid) - 1):
        before = state
        with at_level(grid, i, "running"):
            state = rule.step(field, state, grid, i)
        yield check_finite(state, grid, i + 1, "running", before, i)


def check_finite(state: State, grid: Grid, i: int, doing: str, before: State = (), at: int = 0) -> State:
    """Return the state at ``grid[i]`` if it is finite. ``before`` at ``grid[at]`` is the state it was computed from.

    Raises :class:`NotFinite`.
    """
    if not all(
        bool(torch.isfinite(x.sum())) for x in state
    ):  # one pass and no copy: a sum with NaN or infinity is neither
        error = NotFinite(
            f"{doing}: the state {_where(grid, i)} is not finite. Use a float32 network, fewer steps or less guidance."
        )
        if before:
            error.sample, error.level = before[0], grid[at]
        raise error
    return state


@contextmanager
def at_level(grid: Grid, i: int, doing: str) -> Iterator[None]:
    """Turn an overflow into :class:`NotFinite`, whose message names the level ``grid[i]``."""
    try:
        yield
    except OverflowError as error:
        raise NotFinite(f"{doing}: the state {_where(grid, i)}: {error}") from None


def _where(grid: Grid, i: int) -> str:
    return f"at level {i} of {len(grid) - 1} (label {grid[i].t:g})"

"""The one loop over a grid, in its three forms. Each is a generator: callers collect, show progress, or stop.

``run`` goes from noisy to clean. ``undo`` walks the same grid back with a reversible rule. ``solve`` walks it back with any
one-step rule, by finding at each level the state that the rule takes to the one already known.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from iterinv.levels import Eps, Grid, State
from iterinv.roots import Root, RootFinder
from iterinv.steps import Reversible, Step


class NotFinite(ArithmeticError):
    """A state holds NaN or infinity."""


def _finite(state: State, grid: Grid, i: int, doing: str) -> State:
    if not all(bool(torch.isfinite(x).all()) for x in state):
        raise NotFinite(
            f"{doing}: the state at level {i} of {len(grid) - 1} (label {grid[i].t:g}) is not finite. "
            "Use a float32 network, fewer steps, or a gamma closer to 1."
        )
    return state


def run(rule: Step, eps: Eps, state: State, grid: Grid, start: int = 0) -> Iterator[State]:
    """The states at ``grid[start]``, which is the one given, to ``grid[-1]``. Raises :class:`NotFinite`."""
    yield state
    for i in range(start, len(grid) - 1):
        state = _finite(rule.step(eps, state, grid, i), grid, i + 1, "running")
        yield state


def undo(rule: Reversible, eps: Eps, x: Tensor, grid: Grid, stop: int = 0) -> Iterator[State]:
    """The states from clean data ``x`` at ``grid[-1]`` back to ``grid[max(stop, rule.first)]``. Raises :class:`NotFinite`.

    ``run(rule, eps, last, grid, start)`` from the last of them gives ``x`` again, but for rounding.
    """
    state = _finite(rule.init_inverse(eps, x, grid), grid, len(grid) - 1, "undoing")
    yield state
    for i in reversed(range(max(stop, rule.first), len(grid) - 1)):
        state = _finite(rule.undo(eps, state, grid, i), grid, i, "undoing")
        yield state


def solve(rule: Step, eps: Eps, x: Tensor, grid: Grid, find: RootFinder, stop: int = 0) -> Iterator[tuple[State, Root | None]]:
    """States from clean data ``x`` at ``grid[-1]`` back to ``grid[stop]``, each with the root that found it.

    At every level the unknown ``u`` solves ``(alpha_a / alpha_b) (step(u) - known) = 0``. Scaled so, one fixed-point
    iteration from ``known`` is DDIM inversion with the destination's label. Raises :class:`NotFinite`.
    """
    yield rule.init(x), None
    for i in reversed(range(stop, len(grid) - 1)):
        known, scale = x, grid[i].alpha / grid[i + 1].alpha

        def residual(u: Tensor, i: int = i, known: Tensor = known, scale: float = scale) -> Tensor:
            return scale * (rule.step(eps, rule.init(u), grid, i)[0] - known)

        root = find(residual, known)
        x = root.value
        yield _finite(rule.init(x), grid, i, "solving"), root

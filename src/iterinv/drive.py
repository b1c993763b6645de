"""The one loop over a grid, in its forms. Each is a generator: callers collect, show progress, or stop.

``run`` goes from noisy to clean. ``undo`` walks the same grid back with a reversible rule. ``solve`` walks it back with any
one-step rule, by finding at each level the state that the rule takes to the one already known; ``relax`` with a multistep
rule, whose steps depend on levels not yet known, by walking it back several times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from iterinv.levels import Eps, Grid, Level, State
from iterinv.roots import Root, RootFinder, Where
from iterinv.steps import Reversible, Step

SWEEPS = 3
"""How often :func:`relax` walks the grid back with what the walk before predicted."""


@runtime_checkable
class Remembering(Step, Protocol):
    """A multistep rule: besides the sample its state holds what it predicted at the level before."""

    def memory(self, eps: Eps, x: Tensor, a: Level) -> Tensor:
        """What the rule keeps of a sample at a level."""
        ...


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
        root = _solve(rule, eps, (), x, x, grid, i, find)
        x = root.value
        yield _finite(rule.init(x), grid, i, "solving"), root


def relax(
    rule: Remembering, eps: Eps, x: Tensor, grid: Grid, find: RootFinder, sweeps: int = SWEEPS
) -> Iterator[tuple[State, Root | None]]:
    """:func:`solve` for a multistep rule: ``1 + sweeps`` walks from clean data ``x`` to ``grid[0]``, of which the last counts.

    A step from a level needs what was predicted at the noisier one before, which a walk back has not reached. The first walk
    goes without; each of the others takes it from the states of the walk before, where it also starts its search.
    """
    walk = list(solve(rule, eps, x, grid, find))
    yield from walk
    for _ in range(sweeps):
        guesses = [state[0] for state, _ in reversed(walk)]  # noisy to clean
        memories = [rule.memory(eps, u, a) for u, a in zip(guesses[:-2], grid[:-2], strict=True)]
        walk, known = [(rule.init(x), None)], x
        yield walk[0]
        for i in reversed(range(len(grid) - 1)):
            root = _solve(rule, eps, (memories[i - 1],) if i else (), guesses[i], known, grid, i, find)
            known = root.value
            walk.append((_finite(rule.init(known), grid, i, "solving"), root))
            yield walk[-1]


def _solve(
    rule: Step, eps: Eps, memory: tuple[Tensor, ...], guess: Tensor, known: Tensor, grid: Grid, i: int, find: RootFinder
) -> Root:
    scale = grid[i].alpha / grid[i + 1].alpha

    def residual(u: Tensor) -> Tensor:
        return scale * (rule.step(eps, (*rule.init(u), *memory), grid, i)[0] - known)

    return find(residual, guess, Where((len(grid) - 2 - i) / max(len(grid) - 2, 1), scale))

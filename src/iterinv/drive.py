"""The one loop over a grid, in its forms. Each is a generator: callers collect, show progress, or stop.

``run`` goes from noisy to clean. ``undo`` walks the same grid back with a reversible rule. ``solve`` walks it back with any
one-step rule, by finding at each level the state that the rule takes to the one already known; ``relax`` with a multistep
rule, whose steps depend on levels not yet known, by walking it back many times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from iterinv.levels import Eps, Grid, Level, State, constant
from iterinv.roots import FixedPoint, Root, RootFinder, Where, each, rms
from iterinv.steps import Reversible, Step


@runtime_checkable
class Remembering(Step, Protocol):
    """A multistep rule: besides the sample its state holds what it predicted at the level before."""

    def memory(self, eps: Eps, x: Tensor, a: Level) -> Tensor:
        """What the rule keeps of a sample at a level."""
        ...


class NotFinite(ArithmeticError):
    """A state holds NaN or infinity. ``sample`` is the last one that did not, if it is known, and ``level`` where it was."""

    sample: Tensor | None = None
    level: Level | None = None


def _finite(state: State, grid: Grid, i: int, doing: str, before: State = (), at: int = 0) -> State:
    """The state, if it is finite. ``before`` is the one that it was made of, at ``grid[at]``."""
    if not all(bool(torch.isfinite(x.sum())) for x in state):  # the sum of what is not finite is not: one pass, no copy
        error = NotFinite(
            f"{doing}: the state {_where(grid, i)} is not finite. Use a float32 network, fewer steps or less guidance."
        )
        if before:
            error.sample, error.level = before[0], grid[at]
        raise error
    return state


def _where(grid: Grid, i: int) -> str:
    return f"at level {i} of {len(grid) - 1} (label {grid[i].t:g})"


@contextmanager
def _at(grid: Grid, i: int, doing: str) -> Iterator[None]:
    """Says of arithmetic that ends where it did."""
    try:
        yield
    except OverflowError as error:
        raise NotFinite(f"{doing}: the state {_where(grid, i)}: {error}") from None


def run(rule: Step, eps: Eps, state: State, grid: Grid, start: int = 0) -> Iterator[State]:
    """The states at ``grid[start]``, which is the one given, to ``grid[-1]``. Raises :class:`NotFinite`."""
    yield state
    for i in range(start, len(grid) - 1):
        before = state
        with _at(grid, i, "running"):
            state = rule.step(eps, state, grid, i)
        yield _finite(state, grid, i + 1, "running", before, i)


def undo(rule: Reversible, eps: Eps, x: Tensor, grid: Grid, stop: int = 0) -> Iterator[State]:
    """The states from clean data ``x`` at ``grid[-1]`` back to ``grid[max(stop, rule.first)]``. Raises :class:`NotFinite`.

    ``run(rule, eps, last, grid, start)`` from the last of them gives ``x`` again, but for rounding.
    """
    with _at(grid, len(grid) - 1, "undoing"):
        state = rule.init_inverse(eps, x, grid)
    yield _finite(state, grid, len(grid) - 1, "undoing", (x,), len(grid) - 2)
    for i in reversed(range(max(stop, rule.first), len(grid) - 1)):
        before = state
        with _at(grid, i + 1, "undoing"):
            state = rule.undo(eps, state, grid, i)
        yield _finite(state, grid, i, "undoing", before, i)


def solve(rule: Step, eps: Eps, x: Tensor, grid: Grid, find: RootFinder, stop: int = 0) -> Iterator[tuple[State, Root | None]]:
    """States from clean data ``x`` at ``grid[-1]`` back to ``grid[stop]``, each with the root that found it.

    At every level the unknown ``u`` solves ``(alpha_a / alpha_b) (step(u) - known) = 0``. Scaled so, one fixed-point
    iteration from ``known`` is DDIM inversion with the destination's label. Raises :class:`NotFinite`.
    """
    yield rule.init(x), None
    for i in reversed(range(stop, len(grid) - 1)):
        scale, known = grid[i].alpha / grid[i + 1].alpha, x

        def residual(u: Tensor, i: int = i, scale: float = scale, known: Tensor = known) -> Tensor:
            return scale * (rule.step(eps, rule.init(u), grid, i)[0] - known)

        root = find(residual, known, Where((len(grid) - 2 - i) / max(len(grid) - 2, 1), scale))
        x = root.value
        yield _finite(rule.init(x), grid, i, "solving"), root


def relax(
    rule: Remembering, eps: Eps, x: Tensor, grid: Grid, sweeps: int, tolerance: float
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """The samples from ``grid[0]`` to clean data ``x`` at ``grid[-1]`` that a multistep rule runs through, with their error
    (batch,), as far as they are known: after every network call, and last as found.

    A step from a level needs what was predicted at the noisier one before, which a walk back has not reached; so the whole
    path is the unknown. It starts as DDIM inversion's. In every sweep the noise is predicted at all its states, one call each,
    and each state of a walk back from ``x`` is one fixed-point iteration of :func:`solve` from where it was. The error is the
    largest rms, over the levels, by which that moves a state; a sample rests once it is at most ``tolerance``, and the path
    that moved least is what is found. Where a field is nearly folded (between two modes of the data) sweeps may go round the
    path for ever, and the error says so. Raises :class:`NotFinite`.
    """
    path: list[Tensor] = []
    error = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    for state, _ in solve(rule, eps, x, grid, FixedPoint(1)):
        path = [state[0], *path]
        yield tuple(path), error
    best = path
    for _ in range(sweeps):
        noises: list[Tensor] = []
        for u, a in zip(path[:-1], grid[:-1], strict=True):
            noises.append(eps(u, a))
            yield tuple(best), error
        found = [x]
        for i in reversed(range(len(grid) - 1)):
            past = [rule.memory(constant(noises[i - 1]), path[i - 1], grid[i - 1])] if i else []
            (there, *_) = rule.step(constant(noises[i]), (*rule.init(path[i]), *past), grid, i)
            u = path[i] - grid[i].alpha / grid[i + 1].alpha * (there - found[0])
            found.insert(0, _finite((u,), grid, i, "solving")[0])
        moved = torch.stack([rms((u - v).double()) for u, v in zip(path, found, strict=True)]).amax(0)
        best = [torch.where(each(moved < error, u), u, kept) for u, kept in zip(path, best, strict=True)]
        error = torch.minimum(error, moved)
        if bool((error <= tolerance).all()):
            break
        path = [torch.where(each(error <= tolerance, v), u, v) for u, v in zip(path, found, strict=True)]
    yield tuple(best), error

"""Inversion of a multistep rule: a step needs the noisier level before its own, so the unknown is the whole path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from iterinv.inverters.inverter import Inverted, Inverter, Walk
from iterinv.inverters.solve import Solve, residual_scale
from iterinv.levels import Field, Grid, Prediction, constant
from iterinv.roots import each, rms
from iterinv.steps import Multistep, Step
from iterinv.steps.run import check_finite
from iterinv.typed import Checked, Positive, Range


@dataclass(frozen=True)
class Relax(Checked, Inverter):
    """Walk over the grid at most ``sweeps`` times, until no state moves by more than ``tolerance``, an rms.

    The path starts as DDIM inversion's. In every sweep the noise is predicted at all its states, one call each, and
    each state of a walk back from the clean data is one fixed-point iteration of :class:`iterinv.inverters.Solve` from
    where it was. A picture rests once the largest movement over the levels is at most the tolerance; of all sweeps the
    path that moved least is returned, with that movement as its error. Where a field is nearly folded (between two
    modes of the data) sweeps may circle for ever, and the error stays large.
    """

    sweeps: Annotated[int, Range(0, 10_000)] = 30
    tolerance: Positive = 3e-4

    @property
    def target_error(self) -> float | None:
        return self.tolerance

    def check(self, rule: Step) -> None:
        if not isinstance(rule, Multistep):
            raise ValueError(
                f"Relax is for multistep rules such as DPM-Solver++ 2M; {type(rule).__name__} is none: give "
                "the plan Solve(...)"
            )

    def updates(self, rule: Step, grid: Grid) -> int:
        return len(grid) + self.sweeps * (len(grid) - 1)

    def __call__(self, rule: Step, field: Field, x: Tensor, grid: Grid, seeds: Sequence[int] = (0,)) -> Walk:
        if not isinstance(rule, Multistep):
            raise TypeError(f"{type(rule).__name__} is no multistep rule")
        _, path, _ = yield from Solve()(rule, field, x, grid)
        error = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        best = path
        for _ in range(self.sweeps):
            predictions: list[Prediction] = []
            for u, a in zip(path[:-1], grid[:-1], strict=True):
                predictions.append(field(u, a))
                yield (best[0],)
            walk = [x]
            for i in reversed(range(len(grid) - 1)):
                past = [rule.memory(constant(predictions[i - 1]), path[i - 1], grid[i - 1])] if i else []
                (there, *_) = rule.step(constant(predictions[i]), (*rule.init(path[i]), *past), grid, i)
                u = path[i] - residual_scale(grid[i], grid[i + 1]) * (there - walk[0])
                walk.insert(0, check_finite((u,), grid, i, "solving")[0])
            moved = torch.stack([rms((u - v).double()) for u, v in zip(path, walk, strict=True)]).amax(0)
            best = [torch.where(each(moved < error, u), u, previous) for u, previous in zip(path, best, strict=True)]
            error = torch.minimum(error, moved)
            if bool((error <= self.tolerance).all()):
                break
            path = [torch.where(each(error <= self.tolerance, v), u, v) for u, v in zip(path, walk, strict=True)]
        return Inverted(rule.init(best[0]), best, error)

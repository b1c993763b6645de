"""Inversion of a one-step rule, level by level: the unknown state solves ``step(u) = known``."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from iterinv.inverters.inverter import Inverted, Inverter
from iterinv.levels import Eps, Grid, State
from iterinv.roots import FixedPoint, RootFinder, Where
from iterinv.steps import Multistep, OneStep, Step
from iterinv.steps.run import check_finite


@dataclass(frozen=True)
class Solve(Inverter):
    """At every level a root finder solves ``(alpha_a / alpha_b) (step(u) - known) = 0`` from the known state.

    Scaled so, one fixed-point iteration is DDIM inversion with the destination's timestep, and gradient descent on the
    unscaled residual is IterInv (Tang, Wang, van de Weijer, 2023, https://arxiv.org/abs/2310.19540).
    """

    root_finder: RootFinder = field(default_factory=FixedPoint)

    @property
    def name(self) -> str:
        return type(self.root_finder).__name__

    @property
    def target_error(self) -> float | None:
        return getattr(self.root_finder, "tolerance", None)

    def check(self, rule: Step) -> None:
        if not isinstance(rule, OneStep):
            way = ": give the plan Relax()" if isinstance(rule, Multistep) else ": take DDIM or bdia"
            raise ValueError(
                f"{type(rule).__name__} remembers more than one state, so its steps cannot be solved one by one{way}"
            )

    def __call__(self, rule: Step, eps: Eps, x: Tensor, grid: Grid, seed: int = 0) -> Generator[State, None, Inverted]:
        yield rule.init(x)
        walk, errors = [x], []
        for i in reversed(range(len(grid) - 1)):
            scale, known = grid[i].alpha / grid[i + 1].alpha, walk[-1]

            def residual(u: Tensor, i: int = i, scale: float = scale, known: Tensor = known) -> Tensor:
                return scale * (rule.step(eps, rule.init(u), grid, i)[0] - known)

            root = self.root_finder(residual, known, Where((len(grid) - 2 - i) / max(len(grid) - 2, 1), scale))
            yield check_finite(rule.init(root.value), grid, i, "solving")
            walk.append(root.value)
            errors.append(root.error)
        measured = torch.stack(errors).nan_to_num(-1.0).amax(0)  # NaN where a root finder does not measure its error
        return Inverted(rule.init(walk[-1]), walk[::-1], measured if bool((measured >= 0).all()) else None)

"""Inversion of a one-step rule, level by level: the unknown state solves ``step(u) = known``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iterinv.inverters.inverter import Inverted, Inverter, Walk
from iterinv.levels import Field, Grid, Level
from iterinv.roots import FixedPoint, LevelInfo, RootFinder
from iterinv.steps import Multistep, OneStep, Step
from iterinv.steps.run import check_finite
from iterinv.typed import Checked


@dataclass(frozen=True)
class Solve(Checked, Inverter):
    """A root finder solves ``(alpha_a / alpha_b) (step(u) - known) = 0`` at every level, from the known state.

    Scaled so (by ``sigma_a / sigma_b`` at a level without signal), one fixed-point iteration is DDIM inversion with the
    destination's timestep, and gradient descent on the unscaled residual is IterInv (Tang, Wang, van de Weijer, 2023, https://arxiv.org/abs/2310.19540).
    """

    root_finder: RootFinder = dataclasses.field(default_factory=FixedPoint)

    @property
    def name(self) -> str:
        return type(self.root_finder).__name__

    @property
    def target_error(self) -> float | None:
        return getattr(self.root_finder, "tolerance", None)

    @property
    def gradients(self) -> bool:
        return bool(getattr(self.root_finder, "gradients", False))

    def check(self, rule: Step) -> None:
        if not isinstance(rule, OneStep):
            way = ": give the plan Relax()" if isinstance(rule, Multistep) else ": take DDIM or bdia"
            raise ValueError(
                f"{type(rule).__name__} remembers more than one state, so its steps cannot be solved one by one{way}"
            )

    def __call__(self, rule: Step, field: Field, x: Tensor, grid: Grid, seeds: Sequence[int] = (0,)) -> Walk:
        yield rule.init(x)
        walk, errors = [x], []
        for i in reversed(range(len(grid) - 1)):
            a, b, known = grid[i], grid[i + 1], walk[-1]
            scale = residual_scale(a, b)

            def residual(u: Tensor, i: int = i, scale: float = scale, known: Tensor = known) -> Tensor:
                return scale * (rule.step(field, rule.init(u), grid, i)[0] - known)

            where = LevelInfo((len(grid) - 2 - i) / max(len(grid) - 2, 1), scale, a.t)
            root = self.root_finder(residual, known, where)
            yield check_finite(rule.init(root.value), grid, i, "solving")
            walk.append(root.value)
            errors.append(root.error)
        measured = torch.stack(errors).nan_to_num(-1.0).amax(0)  # NaN where a root finder does not measure its error
        return Inverted(rule.init(walk[-1]), walk[::-1], measured if bool((measured >= 0).all()) else None)


def residual_scale(a: Level, b: Level) -> float:
    """The factor that makes ``step(u) - known``, from level ``a`` to ``b``, close to ``u - root``."""
    return a.alpha / b.alpha if a.alpha > 0 else a.sigma / b.sigma

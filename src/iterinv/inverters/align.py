"""DDIM inversion, for the rerun that asks the network where inversion did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from iterinv.inverters.inverter import Inverted, Inverter, Walk
from iterinv.levels import Field, Grid, move
from iterinv.steps import DDIM, Step
from iterinv.steps.aligned import Aligned, scaled, slope
from iterinv.steps.run import at_level, check_finite
from iterinv.typed import Checked, Range


@dataclass(frozen=True)
class Align(Checked, Inverter):
    """``p_a = move(p_b, eps(p_b, a), b, a)`` from the clean end: one call a step, and a rerun by
    :class:`iterinv.steps.aligned.Aligned` that is exact.

    With ``bits`` above 0 the samples over alpha are multiples of ``2 ** -bits``, and the rerun is exact to the last
    bit.
    """

    bits: Annotated[int, Range(0, 50)] = 0

    follows_rule = False
    reads_path = True

    @property
    def name(self) -> str:
        return "AlignFixed" if self.bits else "Align"

    def check(self, rule: Step) -> None:
        if not isinstance(rule, DDIM):
            raise ValueError(
                f"the aligned rerun is one of DDIM, and {type(rule).__name__} is another rule: take DDIM()"
            )

    def rerun_rule(self, rule: Step, path: Sequence[Tensor]) -> Step:
        return Aligned(rule, path, self.bits)

    def __call__(self, rule: Step, field: Field, x: Tensor, grid: Grid, seeds: Sequence[int] = (0,)) -> Walk:
        if grid[0].alpha == 0:
            raise ValueError(
                f"the level with timestep {grid[0].t:g} has no signal, and the aligned rerun has no step from there: "
                "take bdia, or leading spacing of discrete timesteps"
            )
        fixed, end = scaled(self.bits) if self.bits else None, grid[-1]
        with at_level(grid, len(grid) - 1, "inverting"):
            s = None if fixed is None else fixed.fixed(x / end.alpha)
            p = x if fixed is None or s is None else end.alpha * fixed.real(s, x)
        yield (p,)
        walk = [p]
        for i in reversed(range(len(grid) - 1)):
            a, b, before = grid[i], grid[i + 1], p
            with at_level(grid, i, "inverting"):
                eps = field(p, a).eps
                if fixed is None or s is None:
                    p = move(p, eps, b, a)
                else:
                    s = s - fixed.fixed(slope(a, b) * eps)
                    p = a.alpha * fixed.real(s, x)
            yield check_finite((p,), grid, i, "inverting", (before,), i)
            walk.append(p)
        return Inverted(rule.init(walk[-1]), walk[::-1])

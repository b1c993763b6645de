"""DDIM, rerun where it was inverted (DirectEdit, 2026), https://arxiv.org/abs/2605.02417

DDIM inversion asks the network for the noise at the state that it knows, with the label of the noisier level that it
goes to. A DDIM rerun asks it at the noisier state instead, and there the two part. The aligned rerun asks it where
inversion did: at its own state plus the step that the inverted path takes. Under the same prompt it returns the path
exactly; under another prompt it is a DDIM step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Field, Grid, Level, State, move
from iterinv.steps.fixed_point import Multiples
from iterinv.steps.step import Wrapped


def scaled(bits: int) -> Multiples:
    """Fixed-point arithmetic on samples divided by alpha, where the move between two levels is an addition.

    With ``s = x / alpha`` and ``r = sigma / alpha``, DDIM's move from level a to b is ``s_b = s_a + (r_b - r_a) eps``.
    A state is ``alpha s``: multiplying and dividing by alpha each round by half a unit in the last place, so two bits
    are spare.
    """
    return Multiples(bits, single=11, unit=" alpha", spare=2)


def slope(a: Level, b: Level) -> float:
    """``r_b - r_a``, the change of sigma / alpha from level ``a`` to ``b``."""
    return b.sigma / b.alpha - a.sigma / a.alpha


@dataclass(frozen=True, eq=False)
class Aligned(Wrapped):
    """``z_b = move(z_a, eps(z_a + p_b - p_a, a), a, b)`` along the path ``p``, one sample (batch, ...) a level.

    With ``bits`` above 0, in fixed-point arithmetic: under the same prompt the path comes back bit for bit.
    """

    path: Sequence[Tensor]
    bits: int = 0

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        z, a, b = state[0], grid[i], grid[i + 1]
        here, there = self.path[i].to(z), self.path[i + 1].to(z)
        if not self.bits:
            return (move(z, field(z + there - here, a).eps, a, b),)
        fixed = scaled(self.bits)
        s, s_here, s_there = (fixed.fixed(x / level.alpha) for x, level in ((z, a), (here, a), (there, b)))
        y = b.alpha * fixed.real(s_there, z) + a.alpha * fixed.real(s - s_here, z)
        return (b.alpha * fixed.real(s + fixed.fixed(slope(a, b) * field(y, a).eps), z),)

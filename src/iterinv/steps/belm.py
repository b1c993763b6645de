"""O-BELM: Bidirectional Explicit Linear Multi-step samplers (Wang, Yin, Dong, Zhang, Liu, Zhu, Li, 2024),
https://arxiv.org/abs/2410.07273

Of all rules that are linear in the two states before and in one noise estimate, and so undone explicitly, the one with
the smallest local error. With ``h`` the differences of ``sigma / alpha`` it is BDIA with a gamma for every step, ``(h_b
/ h_p)^2 alpha_b / alpha_p``: the tests show that this is the paper's equation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from iterinv.levels import Field, Grid, State
from iterinv.steps.bdia import TwoState, bdia_step, bdia_undo
from iterinv.steps.ddim import DDIM


@dataclass(frozen=True)
class BELM(TwoState):
    """O-BELM: exactly reversible, second order, one network call a step, no setting.

    The state at ``grid[i]`` is ``(x_i, x_{i-1})``.
    """

    order = 2

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        return bdia_step(DDIM(), field, state, grid, i, self.gamma(grid, i) if i else 0.0)

    def undo(self, field: Field, state: State, grid: Grid, i: int) -> State:
        return bdia_undo(DDIM(), field, state, grid, i, self.gamma(grid, i))

    def gamma(self, grid: Grid, i: int) -> float:
        """The weight of the oldest state in the step from ``grid[i]``, ``i >= 1``; 0, as DDIM, where it is of the same
        level."""
        p, a, b = grid[i - 1], grid[i], grid[i + 1]
        h_b, h_p = a.sigma / a.alpha - b.sigma / b.alpha, p.sigma - p.alpha * a.sigma / a.alpha  # h_p times alpha_p
        return (h_b / h_p) ** 2 * b.alpha * p.alpha if h_p else 0.0

    def growth(self, grid: Grid) -> float:
        weights = [self.gamma(grid, i) for i in range(1, len(grid) - 1)]  # 0 where two levels are one
        return math.prod(1 / each if each else math.inf for each in weights)

"""Rex: reversible exponential (Runge-Kutta) solvers for diffusion models (Blasingame, Liu, 2025),
https://arxiv.org/abs/2502.08834

McCallum and Foster (2024, https://arxiv.org/abs/2410.11648) make any one-step rule reversible by a pair of states: the
first takes the rule's step from the second, and the second is then corrected by the rule's step back from the first.
Rex does so in ``x / alpha`` over ``sigma / alpha``, where diffusion's linear part is solved exactly.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Field, Grid, Level, State, move
from iterinv.steps.ddim import DDIM
from iterinv.steps.one_step import OneStep
from iterinv.steps.step import Reversible
from iterinv.typed import check_fields


@dataclass(frozen=True)
class Rex(Reversible):
    """Rex on a one-step rule: exactly reversible, two coupled states, two steps of the rule each way.

    With ``D`` the step of the base rule, DDIM for Euler's rule, and ``s = alpha_b / alpha_a``::

        x' = D(y, a, b) + s zeta (x - y)
        y' = x' + s (y - D(x', b, a))

    This is the paper's form for predicted noise, without randomness. At the clean end, where no noise can be predicted,
    ``D(x', b, a)`` is a DDIM step whose noise is predicted at ``x'`` with the label of ``a``. ``zeta`` in (0, 1] damps
    the difference of the two states, and undoing divides an error by it once a step. Undoing is exact up to rounding
    and not bit for bit: a product with ``zeta`` has no inverse in fixed-point arithmetic. It costs two steps of the
    base rule: two calls on DDIM, four on Heun. The state is ``(x, y)``, equal to begin with.
    """

    zeta: float = 0.999
    base: OneStep = dataclasses.field(default_factory=DDIM)
    first = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.zeta <= 1:
            raise ValueError(f"zeta = {self.zeta} is outside (0, 1]")

    @property
    def order(self) -> int:
        return self.base.order

    def init(self, x: Tensor, *older: Tensor) -> State:
        return x, x

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        (x, y), a, b = state, grid[i], grid[i + 1]
        scale = b.alpha / a.alpha
        x = self.base.step_to(field, y, a, b)[0] + scale * self.zeta * (x - y)
        return x, x + scale * (y - self._back(field, x, a, b))

    def init_inverse(self, field: Field, x: Tensor, grid: Grid) -> State:
        return x, x

    def undo(self, field: Field, state: State, grid: Grid, i: int) -> State:
        (x, y), a, b = state, grid[i], grid[i + 1]
        scale = a.alpha / b.alpha
        y = self._back(field, x, a, b) + scale * (y - x)
        return y + scale / self.zeta * (x - self.base.step_to(field, y, a, b)[0]), y

    def growth(self, grid: Grid) -> float:
        return math.inf if grid[0].alpha == 0 else self.zeta ** -(len(grid) - 1)

    def _back(self, field: Field, x: Tensor, a: Level, b: Level) -> Tensor:
        """The base rule's step from ``x`` at ``b`` back to the noisier level ``a``."""
        if b.sigma == 0:
            return move(x, field(x, a).eps, b, a)
        return self.base.step_to(field, x, b, a)[0]

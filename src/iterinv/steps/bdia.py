"""BDIA: Exact Diffusion Inversion via Bi-directional Integration Approximation
(Zhang, Lewis, Kleijn, 2023), https://arxiv.org/abs/2307.10829

The next state is linear in the two before it and one noise estimate, so the same line solved for the *oldest* state
runs backwards: exact inversion at the price of DDIM, one network call a step.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Eps, Grid, State, move


@dataclass(frozen=True)
class BDIA:
    """With p, a, b three levels in a row and ``e = eps(x_a, a)``::

        x_b = move(x_a, e, a, b) + gamma * (x_p - move(x_a, e, a, p))

    ``gamma`` in (0, 1]. At 1 it is the leapfrog rule: second order, undone without growth of error. Each undone step
    multiplies an error by ``1 / gamma``. The first step of a run is DDIM. The state at ``grid[i]`` is ``(x_i, x_{i-1})``;
    the pair at ``grid[1]`` is what reproduces a picture.
    """

    gamma: float = 1.0
    first = 1

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma = {self.gamma} is outside (0, 1]; at 0 the rule is DDIM, which does not undo itself")

    @property
    def order(self) -> int:
        return 2 if self.gamma == 1 else 1

    def init(self, x: Tensor, *older: Tensor) -> State:
        return x, *older[:1]

    def step(self, eps: Eps, state: State, grid: Grid, i: int) -> State:
        x, *older = state
        a, b = grid[i], grid[i + 1]
        e = eps(x, a)
        y = move(x, e, a, b)
        if older:
            y = y + self.gamma * (older[0] - move(x, e, a, grid[i - 1]))
        return y, x

    def init_inverse(self, eps: Eps, x: Tensor, grid: Grid) -> State:
        # One DDIM inversion step. The network is given the destination's label: it knows nothing of the clean end.
        clean, b = grid[-1], grid[-2]
        return x, move(x, eps(x, b), clean, b)

    def undo(self, eps: Eps, state: State, grid: Grid, i: int) -> State:
        y, x = state
        a, b = grid[i], grid[i + 1]
        e = eps(x, a)
        return x, (y - move(x, e, a, b)) / self.gamma + move(x, e, a, grid[i - 1])

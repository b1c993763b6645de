"""DDIM: Denoising Diffusion Implicit Models (Song, Meng, Ermon, 2021), https://arxiv.org/abs/2010.02502

Deterministic (eta = 0), first order, one network call a step. It does not undo itself: inverting it means solving
``step(u) = known`` (see :class:`iterinv.inverters.Solve`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Eps, Level, move
from iterinv.steps.one_step import OneStep


@dataclass(frozen=True)
class DDIM(OneStep):
    """``x_b = move(x_a, eps(x_a, a), a, b)``"""

    order = 1

    def carry(self, eps: Eps, x: Tensor, a: Level, *to: Level) -> tuple[Tensor, ...]:
        """From level ``a`` to each of the others, by one network call in all."""
        e = eps(x, a)
        return tuple(move(x, e, a, b) for b in to)

"""Heun's rule, as EDM samples with it (Karras, Aittala, Aila, Laine, 2022, algorithm 1), https://arxiv.org/abs/2206.00364

In the variables ``x / alpha`` and ``sigma / alpha`` the slope of the probability-flow ODE is the predicted noise, so the
trapezoid rule is :func:`iterinv.levels.move` along the mean of two predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Eps, Level, move
from iterinv.steps.one_step import OneStep


@dataclass(frozen=True)
class Heun(OneStep):
    """With ``e = eps(x_a, a)`` and ``e' = eps(move(x_a, e, a, b), b)``: ``x_b = move(x_a, (e + e') / 2, a, b)``.

    Second order, two network calls a step; one, and DDIM, into the clean end, where no noise can be predicted.
    """

    order = 2

    def carry(self, eps: Eps, x: Tensor, a: Level, *to: Level) -> tuple[Tensor, ...]:
        """From level ``a`` to each of the others: one network call, and one more for each that is not clean."""
        e = eps(x, a)
        return tuple(heun(eps, x, e, a, b) for b in to)


def heun(eps: Eps, x: Tensor, e: Tensor, a: Level, b: Level) -> Tensor:
    """The step from ``a`` to ``b`` where ``e = eps(x, a)`` is known."""
    y = move(x, e, a, b)
    return y if b.sigma == 0 else move(x, (e + eps(y, b)) / 2, a, b)

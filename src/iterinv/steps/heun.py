"""Heun's rule, as EDM samples with it (Karras, Aittala, Aila, Laine, 2022, algorithm 1), https://arxiv.org/abs/2206.00364

In the variables ``x / alpha`` and ``sigma / alpha`` the slope of the probability-flow ODE is the predicted noise, so
the trapezoid rule is :func:`iterinv.levels.move` along the mean of two predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Field, Level, Prediction, move
from iterinv.steps.one_step import OneStep


@dataclass(frozen=True)
class Heun(OneStep):
    """Heun's rule: second order, two network calls a step.

    ``x_b = move(x_a, (e + e') / 2, a, b)`` with ``e = eps(x_a, a)`` and ``e' = eps(move(x_a, e, a, b), b)``. The step
    into the clean end, where no noise can be predicted, and the step from a level without signal, where
    ``sigma / alpha`` is infinite, are DDIM's and cost one.
    """

    order = 2

    def step_to(self, field: Field, x: Tensor, a: Level, *to: Level) -> tuple[Tensor, ...]:
        """One network call, and one more for each of the levels that is not clean."""
        prediction = field(x, a)
        return tuple(heun_step(field, x, prediction, a, b) for b in to)


def heun_step(field: Field, x: Tensor, prediction: Prediction, a: Level, b: Level) -> Tensor:
    """The step from ``a`` to ``b`` where the prediction for ``x`` at ``a`` is known."""
    y = prediction.at(b)
    if b.sigma == 0 or a.alpha == 0:
        return y
    return move(x, (prediction.eps + field(y, b).eps) / 2, a, b)

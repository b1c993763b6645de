"""DDIM: Denoising Diffusion Implicit Models (Song, Meng, Ermon, 2021), https://arxiv.org/abs/2010.02502

Deterministic (eta = 0), first order, one network call a step. It does not undo itself: inverting it means solving
``step(u) = known`` (see :class:`iterinv.inverters.Solve`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Field, Level
from iterinv.steps.one_step import OneStep


@dataclass(frozen=True)
class DDIM(OneStep):
    """DDIM: first order, one network call a step.

    ``x_b = alpha_b x0 + sigma_b eps`` with the prediction at ``x_a``, eq. 12 of the paper with eta = 0.
    """

    order = 1

    def step_to(self, field: Field, x: Tensor, a: Level, *to: Level) -> tuple[Tensor, ...]:
        """One network call for all the levels."""
        prediction = field(x, a)
        return tuple(prediction.at(b) for b in to)

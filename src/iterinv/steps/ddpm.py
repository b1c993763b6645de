"""DDPM's ancestral step (Ho, Jain, Abbeel, 2020; Song, Meng, Ermon, 2021, eq. 12 with eta = 1), without the noise it
adds.

Alone it samples nothing. With the noise maps of edit-friendly inversion added after each step it follows their path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Field, Level
from iterinv.steps.one_step import OneStep


@dataclass(frozen=True)
class DDPM(OneStep):
    """``alpha_b x0 + sqrt(sigma_b^2 - v) eps``, the mean; ``v = (sigma_b / sigma_a)^2 (1 - (alpha_a / alpha_b)^2)``."""

    order = 1

    def step_to(self, field: Field, x: Tensor, a: Level, *to: Level) -> tuple[Tensor, ...]:
        """One network call for all the levels, which are less noisy than ``a``."""
        x0, eps = field(x, a)
        ends = []
        for b in to:
            v = (b.sigma / a.sigma) ** 2 * (1 - (a.alpha / b.alpha) ** 2)
            ends.append(b.alpha * x0 + math.sqrt(max(b.sigma**2 - v, 0.0)) * eps)
        return tuple(ends)

"""DDPM's ancestral step (Ho, Jain, Abbeel, 2020; Song, Meng, Ermon, 2021, eq. 12 with eta = 1), without the noise it adds.

Alone it samples nothing; with the noise maps of edit-friendly inversion put back after each step it follows their path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from iterinv.levels import Eps, Level
from iterinv.steps.dpmpp import clean
from iterinv.steps.one_step import OneStep


@dataclass(frozen=True)
class DDPM(OneStep):
    """``alpha_b x0 + sqrt(sigma_b^2 - v) eps``, the mean; ``v = (sigma_b / sigma_a)^2 (1 - (alpha_a / alpha_b)^2)``."""

    order = 1

    def carry(self, eps: Eps, x: Tensor, a: Level, *to: Level) -> tuple[Tensor, ...]:
        """From level ``a`` to each of the others, which are less noisy, by one network call in all."""
        e, ends = eps(x, a), []
        for b in to:
            v = (b.sigma / a.sigma) ** 2 * (1 - (a.alpha / b.alpha) ** 2)
            ends.append(b.alpha * clean(x, e, a) + math.sqrt(max(b.sigma**2 - v, 0.0)) * e)
        return tuple(ends)

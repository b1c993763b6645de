"""Null-text inversion (Mokady, Hertz, Aberman, Pritch, Cohen-Or, 2023), https://arxiv.org/abs/2211.09794

The path is inverted without guidance; then, level by level, the embedding of the empty prompt is fitted until the guided
step keeps to it. It is a root of another unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from iterinv.inversion import StageInversion
from iterinv.levels import constant
from iterinv.models import Stage


@dataclass(frozen=True)
class NullText:
    """At step j of N, from the embedding of the step before: Adam at ``rate (1 - j / (2 N))``, at most ``iterations`` times,
    until the mean square of what the step misses is at most ``tolerance + slope j``.

    The defaults are those published for Stable Diffusion, with N = 50 in ``1 - j / 100`` and in ``slope``; the error is a mean
    over the state's values, so that they mean the same at any size. :meth:`as_iterinv` gives those of IterInv for IF.
    """

    iterations: int = 10
    rate: float = 1e-2
    tolerance: float = 1e-5
    slope: float = 2e-5

    @classmethod
    def as_iterinv(cls) -> NullText:
        """51 iterations at a rate of 1e-3, no early stop."""
        return cls(51, 1e-3, 0.0, 0.0)

    def __call__(self, stage: Stage, found: StageInversion) -> StageInversion:
        assert found.path is not None
        rule, scale, condition, grid, path = found.plan.rule, found.plan.guidance, found.condition, found.grid, found.path
        steps, x = len(grid) - 1, path[0]
        text, null = (each.expand(len(x), -1, -1).detach() for each in (condition.text, condition.null))
        if scale == 1:  # nothing depends on it
            return replace(found, condition=replace(condition, nulls={level.t: null for level in grid[:-1]}))
        nulls: dict[float, Tensor] = {}
        for j in range(steps):
            with_text = stage.denoiser(x, grid[j], text, condition.low)

            def guided(null: Tensor, x: Tensor = x, with_text: Tensor = with_text, j: int = j) -> Tensor:
                without = stage.denoiser(x, grid[j], null, condition.low)
                return rule.step(constant(without + scale * (with_text - without)), rule.init(x), grid, j)[0]

            limit = self.tolerance + self.slope * j * 50 / steps
            nulls[grid[j].t] = null = self._fit(guided, path[j + 1], null, self.rate * (1 - j / (2 * steps)), limit)
            x = guided(null)
        return replace(found, condition=replace(condition, nulls=nulls))

    def _fit(self, guided: Callable[[Tensor], Tensor], known: Tensor, null: Tensor, rate: float, limit: float) -> Tensor:
        """The embedding under which the step gives the known state. A picture of a batch stops when it is near enough."""
        best = null
        with torch.enable_grad():
            tuned = null.clone().requires_grad_(True)
            adam = torch.optim.Adam([tuned], lr=rate)
            near = torch.zeros(len(known), dtype=torch.bool, device=known.device)
            for _ in range(self.iterations):
                error = (guided(tuned) - known).square().flatten(1).mean(1)
                near = near | (error.detach() <= limit)
                if bool(near.all()):
                    break
                adam.zero_grad()
                error.sum().backward()
                adam.step()
                best = torch.where(near[:, None, None], best, tuned.detach())
        return best

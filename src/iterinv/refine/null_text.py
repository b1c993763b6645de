"""Null-text inversion (Mokady, Hertz, Aberman, Pritch, Cohen-Or, 2023), https://arxiv.org/abs/2211.09794

The path is inverted without guidance; then, level by level, the embedding of the empty prompt is fitted until the
guided step keeps to it. It is a root of another unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from iterinv.guidance import PerLevelNull
from iterinv.levels import Level, Prediction, constant
from iterinv.models import Stage
from iterinv.plans import Plan, Refinement
from iterinv.stage_inversion import StageInversion
from iterinv.typed import Checked, Count, Positive


@dataclass(frozen=True)
class NullText(Checked, Refinement):
    """Fit the null embedding by Adam at every level.

    Step j of N starts from the embedding of the step before and runs Adam at ``rate (1 - j / (2 N))``, at least once
    and at most ``iterations`` times, in float32 or finer. It stops once the squared error of the guided step, measured
    before Adam's step, is below ``tolerance + slope j``. The defaults are those published for Stable Diffusion, with
    N = 50 in ``1 - j / 100`` and in ``slope``. The squared error is a mean over the state's values, so that the
    tolerance means the same at any size. With ``total`` it is their sum, for which Adam's epsilon matters less.
    :meth:`as_iterinv` gives the settings of IterInv for IF.
    """

    iterations: Count = 10
    rate: Positive = 1e-2
    tolerance: Positive = 1e-5
    slope: Positive = 2e-5
    total: bool = False
    gradients = True

    @classmethod
    def as_iterinv(cls) -> NullText:
        """51 iterations on the sum at a rate of 1e-3, no early stop."""
        return cls(51, 1e-3, 0.0, 0.0, total=True)

    def __call__(self, stage: Stage, inversion: StageInversion) -> StageInversion:
        rule, scale, grid, path = inversion.plan.rule, inversion.plan.guidance, inversion.grid, inversion.path
        steps, x = len(grid) - 1, path[0]
        positive, negative = inversion.condition.expand(len(x)), inversion.negative.expand(len(x))
        null = negative["text"].detach()
        null = null.to(torch.promote_types(null.dtype, torch.float32))  # half precision would round Adam's steps away
        if scale == 1:  # nothing depends on it
            return replace(inversion, guidance=PerLevelNull(scale, dict.fromkeys(grid[:-1], null)))
        nulls: dict[Level, Tensor] = {}
        for j in range(steps):
            with_prompt = stage.denoiser(x, grid[j], positive)

            def guided(null: Tensor, x: Tensor = x, with_prompt: Prediction = with_prompt, j: int = j) -> Tensor:
                without = stage.denoiser(x, grid[j], negative.updated(text=null))
                return rule.step(constant(without.mix(with_prompt, scale)), rule.init(x), grid, j)[0]

            limit = self.tolerance + self.slope * j * 50 / steps
            nulls[grid[j]] = null = self._fit(guided, path[j + 1], null, self.rate * (1 - j / (2 * steps)), limit)
            x = guided(null)
        return replace(inversion, guidance=PerLevelNull(scale, nulls))

    def fitted(self, inversion: StageInversion) -> dict[str, Tensor]:
        if not isinstance(inversion.guidance, PerLevelNull):
            return {}
        return {"nulls": torch.stack([inversion.guidance.nulls[level] for level in inversion.grid[:-1]])}

    def shapes(self, stage: Stage, plan: Plan, rows: int) -> dict[str, tuple[int, ...]]:
        return {"nulls": (plan.steps, rows, *stage.embed([""])["text"].shape[1:])}

    def restored(self, stage: Stage, inversion: StageInversion, fitted: Mapping[str, Tensor]) -> StageInversion:
        rows = fitted["nulls"].to(stage.device).unbind()
        nulls = dict(zip(inversion.grid[:-1], rows, strict=True))
        return replace(inversion, guidance=PerLevelNull(inversion.plan.guidance, nulls))

    def _fit(
        self, guided: Callable[[Tensor], Tensor], known: Tensor, null: Tensor, rate: float, limit: float
    ) -> Tensor:
        """Find the embedding under which the step gives the known state. Each picture of a batch stops by itself."""
        best = null
        with torch.enable_grad():
            tuned = null.clone().requires_grad_(True)
            adam = torch.optim.Adam([tuned], lr=rate)
            near = torch.zeros(len(known), dtype=torch.bool, device=known.device)
            for _ in range(self.iterations):
                missed = (guided(tuned) - known).square().flatten(1)
                error = missed.sum(1) if self.total else missed.mean(1)
                adam.zero_grad()
                error.sum().backward()
                adam.step()
                best = torch.where(near[:, None, None], best, tuned.detach())
                near = near | (error.detach() < limit)
                if bool(near.all()):
                    break
        return best

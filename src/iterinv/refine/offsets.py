"""Direct inversion (Ju, Zeng, Bian, Liu, Xu, 2024), https://arxiv.org/abs/2310.01506

The error of each step against the known path is stored, and added each time the step is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from iterinv.models import Stage
from iterinv.plans import Plan, Refinement
from iterinv.stage_inversion import StageInversion


@dataclass(frozen=True)
class Offsets(Refinement):
    """``offset_i = path[i + 1] - step(x_i)`` and ``x_{i + 1} = step(x_i) + offset_i``, under the plan's guidance, in
    float32: from the states that a rerun goes through, so that the next offset corrects the rounding of the one before.

    The reconstruction is then exact by construction, which says nothing of how well it can be edited. Along DDIM
    inversion's path this is direct inversion; along a path of independent noise, with DDPM's mean for a step, the
    offsets are the noise maps of edit-friendly DDPM inversion.
    """

    exact = True

    def __call__(self, stage: Stage, inversion: StageInversion) -> StageInversion:
        rule, grid, path = inversion.plan.rule, inversion.grid, inversion.path
        field, state, offsets = inversion.field(stage.denoiser), inversion.state, list[Tensor]()
        for i in range(len(grid) - 1):
            new, *rest = rule.step(field, state, grid, i)
            offsets.append((path[i + 1] - new).float())
            state = new + offsets[i], *rest
        return replace(inversion, offsets=tuple(offsets))

    def fitted(self, inversion: StageInversion) -> dict[str, Tensor]:
        return {} if inversion.offsets is None else {"offsets": torch.stack(inversion.offsets)}

    def shapes(self, stage: Stage, plan: Plan, rows: int) -> dict[str, tuple[int, ...]]:
        return {"offsets": (plan.steps, rows, *stage.shape)}

    def restored(self, stage: Stage, inversion: StageInversion, fitted: Mapping[str, Tensor]) -> StageInversion:
        return replace(inversion, offsets=fitted["offsets"].to(stage.device).unbind())

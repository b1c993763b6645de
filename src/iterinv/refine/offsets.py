"""Direct inversion (Ju, Zeng, Bian, Liu, Xu, 2024), https://arxiv.org/abs/2310.01506

What a step misses of the known path is kept, and added each time the step is run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from iterinv.inversion import StageInversion
from iterinv.models import Stage, guide


@dataclass(frozen=True)
class Offsets:
    """``offset_i = path[i + 1] - step(path[i])`` under the plan's guidance, in float32.

    The reconstruction is then exact by construction, which says nothing of how well it can be edited. Along DDIM inversion's
    path this is direct inversion; along a scattered one, with DDPM's mean for a step, the offsets are the noise maps of
    edit-friendly DDPM inversion.
    """

    def __call__(self, stage: Stage, found: StageInversion) -> StageInversion:
        assert found.path is not None
        rule, grid, path = found.plan.rule, found.grid, found.path
        eps = guide(stage.denoiser, found.condition, found.plan.guidance)
        missed = (path[i + 1] - rule.step(eps, rule.init(path[i]), grid, i)[0] for i in range(len(grid) - 1))
        return replace(found, offsets=tuple(each.float() for each in missed))

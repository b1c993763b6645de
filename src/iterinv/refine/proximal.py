"""Proximal guidance (Han, Wen, Chen, et al., 2024), https://arxiv.org/abs/2306.05414

The inversion is negative-prompt inversion. An edit uses only the large differences between the predictions for two
prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from iterinv import guidance
from iterinv.models import Stage
from iterinv.plans import Refinement
from iterinv.stage_inversion import StageInversion
from iterinv.typed import check_fields


@dataclass(frozen=True)
class Proximal(Refinement):
    """Guide by :class:`iterinv.guidance.Proximal` of the same ``quantile`` and ``hard``, the prompt its own negative
    prompt."""

    quantile: float = 0.7
    hard: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        guidance.Proximal(1.0, self.quantile, self.hard)  # raises for settings outside their ranges

    def __call__(self, stage: Stage, inversion: StageInversion) -> StageInversion:
        how = guidance.Proximal(inversion.plan.guidance, self.quantile, self.hard)
        return replace(inversion, negative=inversion.condition, guidance=how)

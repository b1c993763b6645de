"""Negative-prompt inversion (Miyake, Iohara, Saito, Tanaka, 2023), https://arxiv.org/abs/2305.16807

Along an inverted path the best null embedding is near the prompt's own, so the prompt's own is used, and nothing is
optimised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from iterinv.models import Stage
from iterinv.plans import Refinement
from iterinv.stage_inversion import StageInversion


@dataclass(frozen=True)
class NegativePrompt(Refinement):
    """The prompt is its own negative prompt, so guidance of any scale changes nothing under the same prompt."""

    def __call__(self, stage: Stage, inversion: StageInversion) -> StageInversion:
        return replace(inversion, negative=inversion.condition)

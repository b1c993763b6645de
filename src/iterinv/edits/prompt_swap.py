"""The plainest edit: the inverted state of a level, run to the clean end with other words."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from iterinv.cascade import StageInversion
from iterinv.models import Condition, Stage
from iterinv.steps import DDIM, Step


@dataclass(frozen=True)
class PromptSwap:
    """``strength`` in (0, 1] is the share of the levels that are run again; ``guidance`` acts on the first stage.

    ``rule`` is damped on purpose. BDIA at gamma = 1 reproduces a picture exactly, but once the words change its undamped
    parasitic mode ruins the edit; the test of this file measures it. Raises ``ValueError`` for a strength outside (0, 1].
    """

    strength: float = 0.7
    guidance: float = 3.0
    rule: Step = field(default_factory=DDIM)

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength is {self.strength}; it is the share of the levels run again and lies in (0, 1]")

    def mask(self, stage: Stage, found: StageInversion, target: Condition) -> Tensor | None:
        return None

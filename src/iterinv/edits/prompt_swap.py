"""The plainest edit: the inverted state of a level, run to the clean end with other words."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from iterinv.editing import Run, along
from iterinv.edits.settings import check_guidance, check_shares
from iterinv.inversion import StageInversion
from iterinv.models import Condition, Stage
from iterinv.steps import DDIM, Step


@dataclass(frozen=True)
class PromptSwap:
    """``strength`` in (0, 1] is the share of the levels that are run again at the first stage, ``detail`` at the others.
    ``guidance`` acts on the first stage, from the source's words to the target's.

    ``rule`` is damped on purpose. BDIA at gamma = 1 reproduces a picture exactly, but once the words change its undamped
    parasitic mode ruins the edit (``benchmarks/editability.py``). There is no mask, so ``visible`` has nothing to keep to.
    Raises ``ValueError`` for a strength outside (0, 1].
    """

    strength: float = 0.7
    guidance: float = 4.0
    detail: float = 0.3
    rule: Step = field(default_factory=DDIM)
    visible = 0.0

    def __post_init__(self) -> None:
        check_guidance(self.guidance)
        check_shares(strength=self.strength, detail=self.detail)

    def mask(self, stage: Stage, found: StageInversion, target: Condition) -> Tensor | None:
        return None

    def run(self, stage: Stage, found: StageInversion, mask: Tensor | None, fewer: bool = False) -> Run:
        return along(found, self.rule, self.strength)

"""The super-resolution stages of an edit: the inverted path, moved by the change that the stage below made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from iterinv.conditions import enlarged
from iterinv.edits.settings import check_shares
from iterinv.edits.site import Running, Site
from iterinv.guidance import CFG
from iterinv.steps import DDIM, Step
from iterinv.typed import Positive, check_fields


@dataclass(frozen=True)
class Detail:
    """Run the last ``share`` of the levels from the inverted states, under the target prompt and the edited picture
    below.

    The inverted states hold the old colours, times alpha. They are exchanged for the new ones and the noise is kept.
    With a mask below, the stage changes only where that mask reaches and where the picture below changed a channel by
    ``visible`` or more, in [-1, 1]: 0.04 is five 8-bit steps. ``share`` was chosen on the embedded cascade
    (``docs/benchmarks/scenes.md`` measures it). ``rule`` is damped for the reason that
    :class:`iterinv.edits.PromptSwap` gives. Raises ``ValueError`` for a share outside (0, 1].
    """

    share: float = 0.3
    rule: Step = dataclasses.field(default_factory=DDIM)
    visible: Positive = 0.04

    def __post_init__(self) -> None:
        check_fields(self)
        check_shares(detail=self.share)

    def __call__(self, site: Site) -> Running:
        stage, inversion = site.stage, site.inversion
        before, after = inversion.condition.get("low_image"), site.target.get("low_image")
        if site.below is None or before is None or after is None:
            raise ValueError(
                f"stage {stage.name} is no super-resolution stage of a cascade, so it has no detail to redraw"
            )
        mask, size = None, (stage.shape[1], stage.shape[2])
        if site.below.mask is not None:
            moved = (enlarged(after, size) - enlarged(before, size)).abs().amax(1, keepdim=True)
            changed = F.interpolate((moved >= self.visible).float(), (stage.size, stage.size))
            mask = enlarge(site.below.mask, stage.size) * changed
        inside = None if mask is None else F.adaptive_max_pool2d(mask, stage.shape[1:])
        # A refined inversion was made without guidance.
        scale = inversion.plan.guidance if inversion.plan.refine is None else 1.0
        shift = stage.enlarged(after) - stage.enlarged(before)
        field = CFG(scale)(stage.denoiser, site.target, stage.with_prompt(site.target, None))
        state = yield from site.follow_path(self.rule, self.share, field, inside, shift)
        return site.result(state, mask)


def enlarge(mask: Tensor, size: int) -> Tensor:
    """A mask (batch, 1, h, w) at a larger size: nearest, then grown by half a small pixel, so that no edited pixel is
    cut."""
    grow = size // mask.shape[-1] // 2
    large = F.interpolate(mask, (size, size), mode="nearest")
    return F.max_pool2d(large, 2 * grow + 1, stride=1, padding=grow)

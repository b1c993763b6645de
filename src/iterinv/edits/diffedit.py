"""DiffEdit (Couairon, Verbeek, Schwenk, Cord, 2022), https://arxiv.org/abs/2210.11427

Where would the two prompts predict different noise? There the picture may change; elsewhere every step is blended with
the inverted picture's own state of the level it arrives at.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.editing import Run, along, start_index
from iterinv.edits.settings import check_guidance, check_shares
from iterinv.inversion import StageInversion
from iterinv.models import Condition, Stage, draw, guide
from iterinv.steps import DDIM, Step


@dataclass(frozen=True)
class DiffEdit:
    """Prompt swap within a mask.

    The mask is made at the first stage: ``maps`` noised copies of the picture at the level that lies ``mask_strength`` up
    the grid, the mean absolute difference of the noise predicted for the two prompts (no guidance: it would only scale it),
    cut in two and grown by ``grow`` pixels of the first stage. It is cut by minimum cross entropy (Li and Lee, 1993), which
    follows what changes from a small thing to all of the floor; with ``clip`` as published: clipped at ``clip`` times its
    mean and cut at half of that (3, in the paper). At the other stages the mask keeps to where the edit below it moved a
    channel by ``visible`` or more in [-1, 1].
    ``strength``, ``guidance``, ``detail`` and ``rule`` are as in :class:`iterinv.edits.PromptSwap`.
    """

    strength: float = 1.0
    guidance: float = 1.5
    detail: float = 0.3
    rule: Step = field(default_factory=DDIM)
    visible: float = 0.04
    mask_strength: float = 0.7
    maps: int = 10
    clip: float | None = None
    grow: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_guidance(self.guidance)
        check_shares(strength=self.strength, detail=self.detail, mask_strength=self.mask_strength)

    def mask(self, stage: Stage, found: StageInversion, target: Condition) -> Tensor | None:
        assert found.path is not None
        clean = found.path[-1]
        level = found.grid[start_index(found.grid, self.mask_strength)]
        source, wanted = guide(stage.denoiser, found.condition), guide(stage.denoiser, replace(target, shape=None))
        difference = torch.zeros_like(clean)
        for k in range(self.maps):
            noise = draw(tuple(clean.shape), self.seed + k).to(clean)
            x = level.alpha * clean + level.sigma * noise
            difference += (wanted(x, level) - source(x, level)).abs()
        heat = difference.mean(1, keepdim=True)
        cut = torch.stack([self._cut(each) for each in heat]).reshape(-1, 1, 1, 1)
        return F.max_pool2d((heat > cut).float(), 2 * self.grow + 1, stride=1, padding=self.grow)

    def run(self, stage: Stage, found: StageInversion, mask: Tensor | None, fewer: bool = False) -> Run:
        return along(found, self.rule, self.strength)

    def _cut(self, heat: Tensor) -> Tensor:
        """Of what difference on the picture may change: one sample's (1, h, w)."""
        if self.clip is not None:
            return 0.5 * self.clip * heat.mean()
        if float(heat.max() - heat.min()) == 0:  # no difference anywhere
            return heat.max()
        from skimage.filters import threshold_li

        return torch.as_tensor(threshold_li(heat[0].double().cpu().numpy())).to(heat)

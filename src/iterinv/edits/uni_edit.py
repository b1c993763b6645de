"""Uni-Edit, the editing half of UniEdit-Flow (Jiao, Huang, Wang, Liao, 2025), https://arxiv.org/abs/2504.13109

Guidance from the source prompt to the target prompt whose scale follows, pixel by pixel, how much the two differ.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.regions import Everywhere
from iterinv.edits.site import Region, Running, Site, share_of, start_index
from iterinv.levels import Field, Level, Prediction
from iterinv.steps import DDIM, Step, rule_name


@dataclass(frozen=True)
class UniEdit(FirstStageEditor):
    """Uni-Edit at the first stage; ``detail`` edits the stages above.

    The last ``strength`` of the levels run from the inverted state under ``v_s + m (v_t - v_s) + (1 + m) omega (v_t -
    v_s)``: the source's flow, the fusion with the target's, and the correction, with ``omega`` the ``guidance``. ``m``
    is the mean over the channels of ``|v_t - v_s|``, which :func:`contrast` maps to [0, 1]. So it is
    :class:`iterinv.edits.PromptSwap` with a scale between ``omega`` and ``1 + 2 omega``. The same prompt gives a rerun
    by ``rule``: the reconstruction where the path is one of that rule. The paper's own inversion is not here: any will
    do. The defaults are those published. Raises ``ValueError`` for a strength outside (0, 1].
    """

    strength: float = 0.6
    guidance: float = 5.0
    region: Region = dataclasses.field(default_factory=Everywhere)
    rule: Step = dataclasses.field(default_factory=DDIM)

    def edit_first(self, site: Site) -> Running:
        mask = site.region(self.region)
        field = fused(site.source(), site.unguided(), self.guidance)
        state = yield from site.follow_path(self.rule, self.strength, field, mask)
        share = share_of(site.grid, start_index(site.grid, self.strength))
        rule = rule_name(site.rule_for(self.rule))
        return site.result(state, mask, rule=rule, strength=share, guidance=self.guidance)


def fused(source: Field, target: Field, omega: float) -> Field:
    """The source's field, guided to the target's by ``m + (1 + m) omega``."""

    def field(x: Tensor, a: Level) -> Prediction:
        here, there = source(x, a), target(x, a)
        m = contrast(there.x0 - here.x0)  # at one sample and level, flows and noises differ by a factor from this
        return here.mix(there, m + (1 + m) * omega)

    return field


def contrast(difference: Tensor) -> Tensor:
    """The size of a difference (batch, channels, h, w), from 0 where it is least in its picture to 1 where it is
    largest: (batch, 1, h, w); 0 where it is the same everywhere."""
    size = difference.abs().mean(1, keepdim=True)
    least, most = size.amin((2, 3), keepdim=True), size.amax((2, 3), keepdim=True)
    return (size - least) / (most - least + 1e-7)

"""SDEdit (Meng, He, Song, Song, Wu, Zhu, Ermon, 2022), https://arxiv.org/abs/2108.01073

The picture is noised to a level and sampled from there under the target prompt. It needs no inversion.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.regions import Everywhere
from iterinv.edits.site import Blend, Region, Running, Site, last_state, share_of, start_index
from iterinv.levels import move
from iterinv.steps import DDIM, Step, rule_name
from iterinv.steps.run import run
from iterinv.streams import draw_noise
from iterinv.typed import Count, Natural


@dataclass(frozen=True)
class SDEdit(FirstStageEditor):
    """Noise the picture to the level ``strength`` up the grid of the first stage, and sample from there.

    ``x = alpha x0 + sigma n`` with unit noise ``n`` drawn from ``seed``, run under the target prompt at ``guidance``
    over the empty one; ``passes`` repeats this from the result with new noise (algorithm 1 of the paper, whose steps
    add noise where DDIM's do not). Outside ``region`` every state is the picture under the same noise. A low strength
    keeps the picture and a high one follows the prompt; the noise is fresh, so the source prompt changes nothing and
    the same prompt does not give the picture back. ``detail`` edits the stages above. Raises ``ValueError`` for
    settings outside their ranges.
    """

    strength: float = 0.5
    guidance: float = 7.5
    passes: Count = 1
    region: Region = dataclasses.field(default_factory=Everywhere)
    rule: Step = dataclasses.field(default_factory=DDIM)
    seed: Natural = 0

    def edit_first(self, site: Site) -> Running:
        mask, clean, grid = site.region(self.region), site.path[-1], site.grid
        start, z = start_index(grid, self.strength), clean
        for k in range(self.passes):
            noise = draw_noise(clean.shape[1:], [self.seed], "sdedit", k).to(clean).expand(clean.shape)
            rule: Step = self.rule
            if mask is not None:
                rule = Blend(rule, mask, site.noised(noise))
            state = rule.init(move(z, noise, grid[-1], grid[start]))
            z, *_ = yield from last_state(run(rule, site.guided(self.guidance), state, grid, start))
        share = share_of(grid, start)
        return site.result((z,), mask, rule=rule_name(self.rule), strength=share, guidance=self.guidance)

"""FlowAlign (Kim, Hong, Park, Ye, 2025), https://arxiv.org/abs/2505.23145

FlowEdit whose target flow is guided away from the source prompt, with a pull of the predicted clean picture towards
that of the source.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.flowedit import Flow
from iterinv.edits.regions import Everywhere
from iterinv.edits.site import Blend, Region, Running, Site, last_state, share_of, start_index
from iterinv.levels import Field, Grid, State
from iterinv.steps import Step
from iterinv.steps.run import run
from iterinv.typed import Natural, Positive


@dataclass(frozen=True)
class AlignedFlow(Flow):
    """FlowEdit's step, less ``weight (x0(z_a) - x0(x_a))`` at level b of the straight path.

    A flow model's path is straight, ``(1 - t) x0 + t eps``, and there the term is added as it is. Any other sample
    divided by ``alpha + sigma`` is one of a straight path with ``t = sigma / (alpha + sigma)``. The state is the edit
    at the clean level, so the term is multiplied by ``alpha_0 (alpha_b + sigma_b) / alpha_b``.
    """

    weight: float

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        (z,), b, clean = state, grid[i + 1], grid[-1]
        change = self.change(field, z, grid, i)
        pull = self.weight * clean.alpha * (1 + b.sigma / b.alpha)
        return (self.moved(z, change, grid, i) - pull * change,)


@dataclass(frozen=True)
class FlowAlign(FirstStageEditor):
    """FlowAlign as published, at the first stage; ``detail`` edits the stages above.

    The last ``strength`` of the levels are run once, with one noise a level drawn from ``seed``. ``guidance`` acts from
    the source prompt to the target prompt; the source's flow has none. ``weight`` is the paper's pull towards the
    source, 0 for FlowEdit with this guidance. The same prompt gives the picture. The defaults are those
    published for Stable Diffusion 3 with 33 steps. ``region`` limits the edit, which the paper does not. Raises
    ``ValueError`` for settings outside their ranges.
    """

    strength: float = 1.0
    guidance: float = 7.5
    weight: Positive = 0.01
    region: Region = dataclasses.field(default_factory=Everywhere)
    seed: Natural = 0

    def edit_first(self, site: Site) -> Running:
        mask, clean, start = site.region(self.region), site.path[-1], start_index(site.grid, self.strength)
        rule: Step = AlignedFlow(site.source(guided=True), clean, 1, self.seed, self.weight)
        if mask is not None:
            rule = Blend(rule, mask, [clean] * len(site.grid))
        state = yield from last_state(run(rule, site.towards(self.guidance), (clean,), site.grid, start))
        scale, share = site.guidance_scale(self.guidance), share_of(site.grid, start)
        return site.result(state, mask, rule="FlowAlign", strength=share, guidance=scale)

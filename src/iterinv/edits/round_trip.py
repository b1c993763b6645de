"""Round-trip editing: an inversion's own rule run back from its own state, under the target prompt.

EDICT (Wallace, Gokul, Naik, 2023, https://arxiv.org/abs/2211.12446), BDIA (Zhang, Lewis, Kleijn, 2023,
https://arxiv.org/abs/2307.10829) and O-BELM (Wang et al., 2024, https://arxiv.org/abs/2410.07273) edit so.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.regions import Everywhere
from iterinv.edits.site import Blend, Region, Running, Site, last_state, share_of, start_index
from iterinv.steps import Step, rule_name
from iterinv.steps.run import run


@dataclass(frozen=True)
class RoundTrip(FirstStageEditor):
    """Run the rule of the first stage's inversion again from its state, the last ``strength`` of the levels under the
    target prompt and those before, if any, under the source prompt.

    Guidance is that of the inversion, at its own scale unless ``guidance`` is given. The same prompt at the same scale
    gives the reconstruction, whatever the method. Inside ``region`` the run is free; outside it the first state of each
    level is the inverted one. ``detail`` edits the stages above.

    This is how BDIA's paper edits, and it fails often: the pair of neighbouring states holds the old picture twice, and
    their difference, which gamma = 1 does not damp, is wrong once the prompt changes. The old colour stays and the
    background changes (``docs/exact-and-editable.md``).
    :class:`iterinv.edits.PromptSwap` runs a damped rule, DDIM, from one state of the same path instead. With
    ``rule=BDIA()`` it runs the pair too, but only below strength 1, where the path holds a state before the first.
    Raises ``ValueError`` for a strength outside (0, 1].
    """

    strength: float = 1.0
    guidance: float | None = None
    region: Region = dataclasses.field(default_factory=Everywhere)

    def edit_first(self, site: Site) -> Running:
        inversion, denoiser, grid = site.inversion, site.stage.denoiser, site.grid
        scale = site.guidance_scale(inversion.guidance.scale if self.guidance is None else self.guidance)
        target = inversion.guidance.with_scale(scale)(denoiser, site.target, inversion.negative)
        mask, own, first = site.region(self.region), inversion.rule, inversion.start
        start = max(first, start_index(grid, self.strength))
        state = inversion.state
        if start > first:
            state = yield from last_state(run(own, inversion.field(denoiser), state, grid[: start + 1], first))
        rule: Step = own if mask is None else Blend(own, mask, site.path)
        state = yield from last_state(run(rule, target, state, grid, start))
        return site.result(state, mask, rule=rule_name(own), strength=share_of(grid, start), guidance=scale)

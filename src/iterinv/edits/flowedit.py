"""FlowEdit (Kulikov, Kleiner, Huberman-Spiegelglas, Michaeli, 2024), https://arxiv.org/abs/2412.08629

A path from picture to picture that does not pass through noise: at every level the picture and its edit so far are
noised alike, and the edit moves by what the noise predicted for the two differs. What they share cancels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from iterinv.conditions import Condition
from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.regions import Everywhere
from iterinv.edits.site import Blend, Region, Running, Site, last_state, share_of, start_index
from iterinv.guidance import CFG, unguided
from iterinv.levels import Field, Grid, State, move
from iterinv.models import Stage
from iterinv.steps import Step
from iterinv.steps.run import run
from iterinv.streams import draw_noise
from iterinv.typed import Count, Natural


@dataclass(frozen=True)
class Flow(Step):
    """One step from level a to b: ``z + alpha_0 (1 - r) E[x0(z_a) - x0(x_a)] - (1 - r) (z - x)``, with
    ``r = (sigma_b / alpha_b) / (sigma_a / alpha_a)``.

    ``z`` is the edit so far and ``x`` the picture, both at the clean level 0; ``z_a`` and ``x_a`` are they at level a,
    with the same noise, of which ``averages`` are drawn. This is the difference of the two flows, in ``x / alpha``,
    where a flow is ``d(x / alpha) = eps d(sigma / alpha)`` (Kulikov et al., 2024, algorithm 1, in the
    variance-preserving form), written by the clean data that are predicted, so that it holds at a level without signal
    too.
    """

    source: Field
    picture: Tensor
    averages: int
    seed: int

    order = 1

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        (z,), a, b = state, grid[i], grid[i + 1]
        if b.sigma * a.alpha > a.sigma * b.alpha:  # up again, for another pass: z is a clean picture at every level
            return state
        return (self.moved(z, self.change(field, z, grid, i), grid, i),)

    def change(self, field: Field, z: Tensor, grid: Grid, i: int) -> Tensor:
        """The mean of ``x0(z_a) - x0(x_a)`` (batch, ...) over the noises at ``grid[i]``."""
        a, clean, change = grid[i], grid[-1], torch.zeros_like(z)
        for k in range(self.averages):
            noise = draw_noise(z.shape[1:], [self.seed], "flowedit", i, k).to(z).expand(z.shape)
            edited, original = (move(x, noise, clean, a) for x in (z, self.picture))
            change += field(edited, a).x0 - self.source(original, a).x0
        return change / self.averages

    def moved(self, z: Tensor, change: Tensor, grid: Grid, i: int) -> Tensor:
        """The edit (batch, ...) after the step from ``grid[i]``."""
        a, b, clean = grid[i], grid[i + 1], grid[-1]
        share = 1 - b.sigma * a.alpha / (b.alpha * a.sigma)
        return z + share * (clean.alpha * change - (z - self.picture))


@dataclass(frozen=True)
class FlowEdit(FirstStageEditor):
    """FlowEdit as published, at the first stage; ``detail`` edits the stages above.

    The last ``strength`` of the levels are run once, with ``averages`` noises a level, drawn from ``seed``. Each of the
    two flows is guided from the empty prompt, the target's at ``guidance`` and the source's at ``source_guidance``; a
    distilled network (FLUX.1-dev) is given these scales as its input instead. The defaults are those published for
    Stable Diffusion 3: 33 of 50 steps, 13.5 and 3.5, one noise; those for FLUX are 24 of 28 steps, 5.5 and 1.5.
    ``region`` limits the edit, which the paper does not. Raises ``ValueError`` for settings outside their ranges.
    """

    strength: float = 33 / 50
    guidance: float = 13.5
    source_guidance: float = 3.5
    averages: Count = 1
    region: Region = dataclasses.field(default_factory=Everywhere)
    seed: Natural = 0

    def edit_first(self, site: Site) -> Running:
        mask, clean, stage = site.region(self.region), site.path[-1], site.stage
        start, source = start_index(site.grid, self.strength), site.inversion.condition
        fields = [
            guided(stage, condition, scale)
            for scale, condition in ((self.source_guidance, source), (self.guidance, site.target))
        ]
        rule: Step = Flow(fields[0], clean, self.averages, self.seed)
        if mask is not None:
            rule = Blend(rule, mask, [clean] * len(site.grid))
        state = yield from last_state(run(rule, fields[1], (clean,), site.grid, start))
        return site.result(state, mask, rule="Flow", strength=share_of(site.grid, start), guidance=self.guidance)


def guided(stage: Stage, condition: Condition, scale: float) -> Field:
    """The field of a condition at a guidance scale: the input of a distilled network, or else that of classifier-free
    guidance from the empty prompt."""
    if "guidance" in condition:
        return unguided(stage.denoiser, condition.updated(guidance=torch.full_like(condition["guidance"], scale)))
    return CFG(scale)(stage.denoiser, condition, stage.with_prompt(condition, None))

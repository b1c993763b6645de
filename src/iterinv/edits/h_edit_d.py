"""h-Edit with a deterministic path (Nguyen, Do, Kieu, Nguyen, 2025), https://arxiv.org/abs/2503.02187

A bridge from the picture to its edit: each step runs under the source prompt, corrected by the error of the inverted
path against it, and then moves along the difference of the two prompts' predictions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.regions import Everywhere
from iterinv.edits.site import Blend, Region, Running, Site, last_state, share_of, start_index
from iterinv.guidance import unguided
from iterinv.levels import Field, Grid, Level, Prediction, State, constant
from iterinv.steps import DDIM, OneStep, Step, rule_name
from iterinv.steps.run import run


@dataclass(frozen=True, eq=False)
class Bridge(Step):
    """``z_b = base + c (f(z))``, with ``base = p_b + D(z_a) - D(p_a)`` along the path ``p``, one sample a level.

    ``D`` is the step of ``rule`` under the source prompt and ``c`` its coefficient of the noise (h-Edit, eq. 22 and
    23). The field ``f`` is the difference of two predictions: at ``z_a``, or ``implicit``, at ``base`` and level b (eq.
    25). At a clean end the network is given the label of level a, since it was never trained there.
    """

    rule: OneStep
    source: Field
    path: Sequence[Tensor]
    implicit: bool

    order = 1

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        (z,), a, b = state, grid[i], grid[i + 1]
        (ours,), (theirs,) = (self.rule.step_to(self.source, x, a, b) for x in (z, self.path[i].to(z)))
        base = self.path[i + 1].to(z) + (ours - theirs)
        if self.implicit:
            if a.alpha == 0:
                raise ValueError(
                    f"h-Edit's implicit form has no step from the level with timestep {a.t:g}, which holds no signal: "
                    "take a strength below 1, or implicit=False"
                )
            eps = field(base, b if b.sigma > 0 else a).eps
            difference = Prediction.from_eps(torch.zeros_like(z), a, eps)
        else:
            difference = field(z, a)
        (change,) = self.rule.step_to(constant(difference), z, a, b)  # the step is linear in the prediction
        return (base + change,)


@dataclass(frozen=True)
class HEditD(FirstStageEditor):
    """h-Edit-D without attention control, at the first stage; ``detail`` edits the stages above.

    The last ``strength`` of the levels run from the inverted state by DDIM under the source prompt, corrected at each
    step by the error that the inverted path has against it, plus ``c (eps_target - eps_source)``: the target prompt's
    noise guided from the empty prompt at ``guidance`` and the source prompt's at ``source_guidance``. ``implicit``
    takes the difference at the state that the step arrives at (eq. 25, one iteration), else at the one it leaves (eq.
    23). Any inversion will do. The same prompt gives the reconstruction if both scales are equal. Outside ``region``
    every state is the inverted one. The defaults are those published for Stable Diffusion, where the path is inverted
    without guidance; the paper's several iterations with a pull to the reconstruction are not here. Raises
    ``ValueError`` for a strength outside (0, 1], and for an implicit step from a level without signal, where flow
    models begin.
    """

    strength: float = 1.0
    guidance: float = 7.5
    source_guidance: float = 5.0
    implicit: bool = True
    region: Region = dataclasses.field(default_factory=Everywhere)

    def edit_first(self, site: Site) -> Running:
        mask, path, start = site.region(self.region), self.path(site), start_index(site.grid, self.strength)
        rule: Step = Bridge(self.rule, site.source(), path, self.implicit)
        if mask is not None:
            rule = Blend(rule, mask, path)
        state = yield from last_state(run(rule, self.difference(site), (path[start],), site.grid, start))
        share = share_of(site.grid, start)
        return site.result(state, mask, rule=rule_name(self.rule), strength=share, guidance=self.guidance)

    @property
    def rule(self) -> OneStep:
        """The rule of its steps."""
        return DDIM()

    def path(self, site: Site) -> Sequence[Tensor]:
        """The states (batch, channels, h, w) that the edit starts from and is corrected by, one a level."""
        return site.path

    def difference(self, site: Site) -> Field:
        """The target prompt's prediction at its guidance less the source prompt's at its own."""
        target, source = site.unguided(), site.source()
        empty = unguided(site.stage.denoiser, site.stage.with_prompt(site.target, None))
        w, v = self.guidance, self.source_guidance

        def difference(x: Tensor, a: Level) -> Prediction:
            pairs = zip(target(x, a), source(x, a), strict=True)
            edit = Prediction(*(w * there - v * here for there, here in pairs))
            if w == v:
                return edit
            return Prediction(*(each + (v - w) * none for each, none in zip(edit, empty(x, a), strict=True)))

        return difference

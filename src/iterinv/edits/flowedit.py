"""FlowEdit (Kulikov, Kleiner, Huberman-Spiegelglas, Michaeli, 2024), https://arxiv.org/abs/2412.08629

A path from picture to picture that does not pass through noise: at every level the picture and its edit so far are noised
alike, and the edit moves by what the noise predicted for the two differs. What they share cancels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from iterinv.editing import Run, start_index
from iterinv.edits.diffedit import DiffEdit
from iterinv.edits.settings import check_guidance, check_shares
from iterinv.inversion import StageInversion
from iterinv.levels import Eps, Grid, State, move
from iterinv.models import Condition, Stage, draw, guide
from iterinv.steps import DDIM, Step


@dataclass(frozen=True)
class Flow:
    """One step from level a to b: ``z + alpha_0 (sigma_b / alpha_b - sigma_a / alpha_a) E[eps(z_a) - source(x_a)]``.

    ``z`` is the edit so far and ``x`` the picture, both at the clean level 0; ``z_a`` and ``x_a`` are they at level a, with the
    same noise, of which ``averages`` are drawn. The difference of the two flows, in ``x / alpha``, where a flow is
    ``d(x / alpha) = eps d(sigma / alpha)`` (Kulikov et al., 2024, algorithm 1, in the variance-preserving form).
    """

    source: Eps
    picture: Tensor
    averages: int
    seed: int

    order = 1

    def init(self, x: Tensor, *older: Tensor) -> State:
        return (x,)

    def step(self, eps: Eps, state: State, grid: Grid, i: int) -> State:
        (z,), a, b, clean = state, grid[i], grid[i + 1], grid[-1]
        if b.sigma * a.alpha > a.sigma * b.alpha:  # up again, for another pass: z is a clean picture at every level
            return state
        change = torch.zeros_like(z)
        for k in range(self.averages):
            noise = draw(tuple(z.shape), self.seed + self.averages * i + k).to(z)
            change += eps(move(z, noise, clean, a), a) - self.source(move(self.picture, noise, clean, a), a)
        return (z + clean.alpha * (b.sigma / b.alpha - a.sigma / a.alpha) / self.averages * change,)


@dataclass(frozen=True)
class FlowEdit:
    """FlowEdit at the first stage, within the mask of DiffEdit; the stages above along their inverted paths.

    ``strength``, ``guidance``, ``detail`` and ``rule`` are as in :class:`iterinv.edits.PromptSwap`; ``passes`` is how often the
    levels are run, each pass from where the one before ended; ``averages`` is the number of noises a level, ``seed`` draws
    them, and ``within`` makes the mask: ``None`` for none. Where a floor or a wall changes, that is decided at the noisiest
    levels; a thing drifts from its place there. So, unless ``strength`` is given, it is 1 and one pass where the mask covers
    more than ``local`` of the picture or there is none, and 0.7 and ``passes`` where it covers less. Raises ``ValueError``
    for settings outside their ranges.
    """

    strength: float | None = None
    guidance: float = 1.5
    passes: int = 3
    averages: int = 1
    local: float = 0.3
    detail: float = 0.3
    rule: Step = field(default_factory=DDIM)
    within: DiffEdit | None = field(default_factory=DiffEdit)
    seed: int = 0

    def __post_init__(self) -> None:
        check_guidance(self.guidance)
        check_shares(strength=1.0 if self.strength is None else self.strength, detail=self.detail, local=self.local)
        if self.averages < 1 or self.passes < 1:
            raise ValueError(f"averages is {self.averages}, passes {self.passes}; at least one noise is drawn, in one pass")

    @property
    def visible(self) -> float:
        return 0.0 if self.within is None else self.within.visible

    def mask(self, stage: Stage, found: StageInversion, target: Condition) -> Tensor | None:
        return None if self.within is None else self.within.mask(stage, found, target)

    def run(self, stage: Stage, found: StageInversion, mask: Tensor | None) -> Run:
        assert found.path is not None
        clean = found.path[-1]
        strength, passes = self.strength, self.passes
        if strength is None:
            wide = mask is None or float(mask.mean((1, 2, 3)).max()) > self.local
            strength, passes = (1.0, 1) if wide else (0.7, passes)
        start = start_index(found.grid, strength)
        grid = (*found.grid, *(tuple(found.grid[start:]) * (passes - 1)))
        scale = 1.0 if found.condition.nulls is None else found.plan.guidance
        source = guide(stage.denoiser, found.condition, scale)
        flow = Flow(source, clean, self.averages, self.seed)
        return Run(flow, flow.init(clean), [clean] * len(grid), grid, start)

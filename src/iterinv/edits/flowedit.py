"""FlowEdit (Kulikov, Kleiner, Huberman-Spiegelglas, Michaeli, 2024), https://arxiv.org/abs/2412.08629

A path from picture to picture that does not pass through noise: at every level the picture and its edit so far are noised
alike, and the edit moves by what the noise predicted for the two differs. What they share cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.editing import Run, start_index
from iterinv.edits.diffedit import DiffEdit
from iterinv.edits.settings import check_guidance, check_shares
from iterinv.inversion import StageInversion
from iterinv.levels import Eps, Grid, State, move
from iterinv.models import Condition, Stage, draw, guide
from iterinv.steps import DDIM, Step

STRENGTHS = (0.55, 0.7, 0.85, 1.0)
"""Where a local edit starts, and where it starts again as long as the network does not see the target's words."""

ASKED, NOISES = 0.85, 8
"""The level, up the grid, at which the network is asked which words a picture shows, and how many noises it is asked by."""


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
    them, and ``within`` makes the mask: ``None`` for none. One that covers more than ``local`` of the picture is grown a pixel.

    Unless ``strength`` is given, it is chosen. Where a floor or a wall changes, or a thing goes, that is decided at the
    noisiest levels: it is 1, in one pass, where there is no mask or it covers more than ``local``, or where the target's
    words are fewer: begun lower, the thing becomes what the words that stay tell of another. A thing drifts from its place
    there, so a smaller change begins at 0.55; and as long as the network does not see the target's words in what comes out,
    ``sure`` times as clearly as it saw the source's in the picture, the picture is edited anew from 0.7, 0.85 and 1. All of a
    batch is decided on together. Raises ``ValueError`` for settings outside their ranges.
    """

    strength: float | None = None
    guidance: float = 1.5
    passes: int = 3
    averages: int = 1
    local: float = 0.3
    sure: float = 0.5
    detail: float = 0.3
    rule: Step = field(default_factory=DDIM)
    within: DiffEdit | None = field(default_factory=lambda: DiffEdit(grow=0))
    seed: int = 0

    def __post_init__(self) -> None:
        check_guidance(self.guidance)
        check_shares(strength=1.0 if self.strength is None else self.strength, detail=self.detail, local=self.local)
        if not 0 <= self.sure <= 1:
            raise ValueError(f"sure is {self.sure}; it lies in [0, 1]: at 0 the new words need only be seen above the old")
        if self.averages < 1 or self.passes < 1:
            raise ValueError(f"averages is {self.averages}, passes {self.passes}; at least one noise is drawn, in one pass")

    @property
    def visible(self) -> float:
        return 0.0 if self.within is None else self.within.visible

    def mask(self, stage: Stage, found: StageInversion, target: Condition) -> Tensor | None:
        mask = None if self.within is None else self.within.mask(stage, found, target)
        # Of a floor the edge to what stands on it is no limit; a thing would drift into what it is given.
        return F.max_pool2d(mask, 3, stride=1, padding=1) if mask is not None and self._wide(mask) else mask

    def run(self, stage: Stage, found: StageInversion, mask: Tensor | None, fewer: bool = False) -> Run:
        if self.strength is not None:
            return self._from(stage, found, self.strength, self.passes)
        if mask is None or fewer or self._wide(mask):
            return self._from(stage, found, 1.0, 1)
        return self._local(stage, found, mask, STRENGTHS)

    def _wide(self, mask: Tensor) -> bool:
        return float(mask.mean((1, 2, 3)).max()) > self.local

    def _local(
        self, stage: Stage, found: StageInversion, mask: Tensor, strengths: Sequence[float], was: float | None = None
    ) -> Run:
        """From the first of the strengths, and from the next where the words are not seen; ``was`` is the picture's margin."""
        run = self._from(stage, found, strengths[0], self.passes)
        if not strengths[1:]:
            return run

        def again(edited: Tensor, eps: Eps) -> Run | None:
            assert found.path is not None
            first = self._margin(stage, found, mask, eps, found.path[-1]) if was is None else was
            if self._margin(stage, found, mask, eps, edited) >= -self.sure * first:
                return None
            return self._local(stage, found, mask, strengths[1:], first)

        return run._replace(again=again)

    def _margin(self, stage: Stage, found: StageInversion, mask: Tensor, eps: Eps, z: Tensor) -> float:
        """By how much less ``eps`` errs within the mask than the source's prediction, on a picture noised: which words it
        shows (a diffusion classifier: Li, Prabhudesai, Duggal, Brown, Pathak, 2023, https://arxiv.org/abs/2303.16203)."""
        source, level = guide(stage.denoiser, found.condition), found.grid[start_index(found.grid, ASKED)]
        margin = 0.0
        for k in range(NOISES):
            noise = draw(tuple(z.shape), self.seed + k).to(z)
            x = move(z, noise, found.grid[-1], level)
            margin += float((mask * ((source(x, level) - noise) ** 2 - (eps(x, level) - noise) ** 2)).sum())
        return margin

    def _from(self, stage: Stage, found: StageInversion, strength: float, passes: int) -> Run:
        assert found.path is not None
        clean = found.path[-1]
        start = start_index(found.grid, strength)
        grid = (*found.grid, *(tuple(found.grid[start:]) * (passes - 1)))
        scale = 1.0 if found.condition.nulls is None else found.plan.guidance
        source = guide(stage.denoiser, found.condition, scale)
        flow = Flow(source, clean, self.averages, self.seed)
        return Run(flow, flow.init(clean), [clean] * len(grid), grid, start)

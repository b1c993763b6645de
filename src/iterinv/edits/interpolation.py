"""Trajectory interpolation, the editing half of SteerFlow (Dao, Wang, Pham, Chen, 2026),
https://arxiv.org/abs/2604.01715

Each step mixes the target prompt's flow with the step that the inverted path takes, which costs no network call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.regions import Everywhere
from iterinv.edits.site import Blend, Region, Running, Site, last_state, share_of, start_index
from iterinv.guidance import unguided
from iterinv.levels import Field, Grid, Prediction, State
from iterinv.steps import Step
from iterinv.steps.run import run
from iterinv.typed import Positive


@dataclass(frozen=True, eq=False)
class Interpolated(Step):
    """``y_b = y_a + d_src + m k (d_tgt - d_src)`` on the straight path, ``y = x / (alpha + sigma)``.

    With ``t = sigma / (alpha + sigma)`` such a ``y`` is ``(1 - t) x0 + t eps``, as a flow model's own samples are.
    ``d_src`` is the step of the inverted path, ``d_tgt = (t_b - t_a) (eps - x0)`` that of the field guided from
    ``empty`` at ``scale``, ``k = (1 - t_b^exponent) cos(d_tgt, d_src)`` over all values of a picture, and ``m``
    :func:`soft_mask` of the field's own step less ``d_src``.
    """

    empty: Field
    path: Sequence[Tensor]
    scale: float
    exponent: float

    order = 1

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        (z,), a, b = state, grid[i], grid[i + 1]
        wide_a, wide_b = a.alpha + a.sigma, b.alpha + b.sigma
        t_a, t_b = a.sigma / wide_a, b.sigma / wide_b

        def flow(prediction: Prediction) -> Tensor:
            return (t_b - t_a) * (prediction.eps - prediction.x0)

        here, there = self.path[i].to(z), self.path[i + 1].to(z)
        known = there / wide_b - here / wide_a
        prompt = field(z, a)
        target = flow(prompt if self.scale == 1 else self.empty(z, a).mix(prompt, self.scale))
        cosine = F.cosine_similarity(target.flatten(1), known.flatten(1)).reshape(-1, 1, 1, 1)
        weight = soft_mask(flow(prompt) - known) * (1 - t_b**self.exponent) * cosine
        return (wide_b * (z / wide_a + known + weight * (target - known)),)


QUANTILE, SLOPE, CLOSING = 0.95, 15.0, 5
"""The quantile that counts as a full difference, the slope of the sigmoid that cuts it, and the side in pixels of the
closing: SteerFlow's settings."""


def soft_mask(difference: Tensor) -> Tensor:
    """The mask (batch, 1, h, w) in (0, 1) where the differences (batch, channels, h, w) of a picture are large: their
    norm between two quantiles, through a sigmoid, closed."""
    size = difference.norm(dim=1, keepdim=True)
    low, high = (torch.quantile(size.flatten(1), q, dim=1).reshape(-1, 1, 1, 1) for q in (1 - QUANTILE, QUANTILE))
    mask = torch.sigmoid(SLOPE * ((size - low) / (high - low + 1e-8) - 0.5))
    return -F.max_pool2d(-F.max_pool2d(mask, CLOSING, 1, CLOSING // 2), CLOSING, 1, CLOSING // 2)


@dataclass(frozen=True)
class Interpolation(FirstStageEditor):
    """SteerFlow's trajectory interpolation with its adaptive mask, at the first stage; ``detail`` edits the stages
    above.

    The last ``strength`` of the levels run from the inverted state. The target prompt, at ``guidance`` over the empty
    one, counts for nothing at the noisiest levels and fully at the clean end, the later the larger ``exponent`` is; at
    0 the edit is the inverted path. It also counts the less, the less its direction agrees with the path's, and only
    where it differs much from it. Any inversion will do; the paper's own, and its masks by a segmenter, are not here:
    give ``region`` or a mask instead. The defaults are those published for Stable Diffusion 3. Raises ``ValueError``
    for settings outside their ranges.
    """

    strength: float = 1.0
    guidance: float = 6.5
    exponent: Positive = 5.5
    region: Region = dataclasses.field(default_factory=Everywhere)

    def edit_first(self, site: Site) -> Running:
        mask, stage, start = site.region(self.region), site.stage, start_index(site.grid, self.strength)
        empty = unguided(stage.denoiser, stage.with_prompt(site.target, None))
        rule: Step = Interpolated(empty, site.path, self.guidance, self.exponent)
        if mask is not None:
            rule = Blend(rule, mask, site.path)
        state = yield from last_state(run(rule, site.unguided(), (site.path[start],), site.grid, start))
        share = share_of(site.grid, start)
        return site.result(state, mask, rule="Interpolated", strength=share, guidance=self.guidance)

"""The super-resolution stages of an edit: along the inverted path where only colour changed, drawn anew where structure
did; new colours of a thing are carried up along its edges."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.conditions import enlarged
from iterinv.edits.regions import grown
from iterinv.edits.settings import check_shares
from iterinv.edits.site import Blend, Running, Site, edit_rows, last_state, start_index
from iterinv.edits.structure import carried, structure_change
from iterinv.guidance import CFG
from iterinv.levels import Field, Grid, State
from iterinv.steps import DDIM, Step, Wrapped
from iterinv.steps.run import run
from iterinv.streams import draw_noise
from iterinv.typed import Natural, Positive, check_fields


@dataclass(frozen=True)
class Detail:
    """Edit a super-resolution stage under the target prompt and the edited picture below.

    An inverted state holds the old picture's high frequencies in its noise. Where the stage below changed only colour,
    they are right: the last ``share`` of the levels run from the inverted states, whose old colours are exchanged for
    the new ones, times alpha. Where it changed structure, they would draw the old thing again as a ghost: there the
    last ``redraw`` of the levels run from the enlarged picture under fresh noise, drawn from ``seed``, and what lies
    outside the region is under the same noise at the last of them (:data:`SETTLED`).
    :func:`structure_change` decides for each pixel, softly. At last the picture is given the colours of the stage below
    (:func:`in_colours_of`).

    Where the editor below reports ``same_outline``, a thing has new colours and nothing else: these are carried up
    along the picture's own edges, and no network is called (:func:`iterinv.edits.structure.carried`). A given ``share``
    lets the network edit them, as it always does on latent stages. Where no share is given it is :data:`SHARE`.

    With a mask below, the stage changes only where that mask reaches and where the picture below changed its structure,
    or a channel by ``visible`` or more, in [-1, 1]: 0.04 is five 8-bit steps. ``redraw`` was chosen on edits of the
    embedded cascade that no benchmark draws (``docs/benchmarks/scenes.md`` measures them). ``rule`` is damped for the
    reason that :class:`iterinv.edits.PromptSwap` gives. Raises ``ValueError`` for a share outside (0, 1].
    """

    share: float | None = None
    redraw: float = 0.8
    rule: Step = dataclasses.field(default_factory=DDIM)
    visible: Positive = 0.04
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_shares(detail=1.0 if self.share is None else self.share, redraw=self.redraw)

    def __call__(self, site: Site) -> Running:
        return (yield from edit_rows(site, None, self._edit))

    def _edit(self, site: Site, _: Tensor | None) -> Running:
        """The edit of one picture; its mask follows from the stage below."""
        stage, inversion = site.stage, site.inversion
        before, after = inversion.condition.get("low_image"), site.target.get("low_image")
        if site.below is None or before is None or after is None:
            raise ValueError(
                f"stage {stage.name} is no super-resolution stage of a cascade, so it has no detail to redraw"
            )
        structure, mask = structure_change(before, after), None
        same = any(report.get("same_outline", False) for report in site.below.reports)
        if same or not inversion.plan.inverter.follows_rule:  # a path of independent noise cannot be left
            structure = torch.zeros_like(structure)
        if site.below.mask is not None:
            size = stage.extent
            moved = (enlarged(after, size) - enlarged(before, size)).abs().amax(1, keepdim=True)
            changed = torch.maximum((moved >= self.visible).float(), F.interpolate((structure > 0).float(), size))
            mask = enlarge(site.below.mask, size) * changed * site.limit_at(size)
        inside = None if mask is None else F.adaptive_max_pool2d(mask, stage.shape[1:])
        # A refined inversion was made without guidance.
        scale = inversion.plan.guidance if inversion.plan.refine is None else 1.0
        field = CFG(scale)(stage.denoiser, site.target, stage.with_prompt(site.target, None))
        carry = same and self.share is None and stage.codec is None
        share = SHARE if self.share is None else self.share
        shift = stage.enlarged(after) - stage.enlarged(before)
        fresh = F.interpolate(structure, stage.shape[1:], mode="bilinear", align_corners=False).to(shift)
        if carry:
            shift = carried(before, after, site.picture).to(shift)
            state: State = (site.path[-1] + (shift if inside is None else inside * shift),)
        elif bool(((fresh > 0) if inside is None else (fresh > 0) & (inside > 0)).any()):
            state = yield from self._redraw(site, field, inside, stage.enlarged(after), shift, fresh, share)
        else:
            state = yield from site.follow_path(self.rule, share, field, inside, shift)
        if stage.codec is None:
            clean, *rest = state
            state = (in_colours_of(before, after, site.picture, clean, inside), *rest)
        return site.result(state, mask, same_outline=same)

    def _redraw(
        self, site: Site, field: Field, mask: Tensor | None, picture: Tensor, shift: Tensor, fresh: Tensor, share: float
    ) -> Generator[State, None, State]:
        """Run from the enlarged ``picture`` under fresh noise; where ``fresh`` is below 1, keep to the moved path until
        the last ``share`` of the levels."""
        grid, start = site.grid, start_index(site.grid, max(self.redraw, share))
        picture = picture.to(site.path[-1])
        keep = MovedPath(self.rule, site, shift, fresh, start_index(grid, share))
        noise = draw_noise(picture.shape[1:], [self.seed], "detail").to(picture)
        x = keep.blended(grid[start].alpha * picture + grid[start].sigma * noise, grid, start)
        rule: Step = keep
        if mask is not None:
            background, settled = site.noised(noise), start_index(grid, SETTLED)
            background[start:settled] = [site.path[i] for i in range(start, settled)]
            rule = Blend(keep, mask, background)
        return last_state(run(rule, field, rule.init(x), grid, start))


SETTLED = 0.1
"""In the last share of the levels, what lies outside a region is the picture under the noise that the region is drawn
from. An inverted state holds less noise than its level there, 0.4 of it on the embedded cascade, and the network, which
compares the whole picture, then leaves grain in the region: its gradients were 1.1 to 1.5 times the truth's on seven
edits that no benchmark draws; with the same noise they were 0.9 to 1.1 times."""

SHARE = 0.3
"""The share of the levels that a stage runs where only colour changed; it was chosen as ``redraw`` was."""

TONE = 5
"""The side, in pixels of the stage below, of the windows over which colours are compared with that stage's."""


def in_colours_of(before: Tensor, after: Tensor, original: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    """The edited picture ``x`` (batch, 3, h, w) with the change of colours of the stage below, from ``before`` to
    ``after``, within ``mask`` (batch, 1, h, w). ``original`` is the picture before the edit.

    A picture of the cascade averages to the one below, and a drawn one drifts in colour on flat surfaces. Its averages
    should change as that stage's picture does; the error, smoothed over windows, is taken off (back-projection: Irani
    and Peleg, 1991, https://doi.org/10.1016/1049-9652(91)90045-L). Outlines are finer and stay, and a picture that did
    not change stays as it is.
    """
    size = after.shape[-2:]
    inside = torch.ones_like(x[:, :1]) if mask is None else mask.to(x)
    weight = F.interpolate(inside, size, mode="area")
    change = F.interpolate(x - original.to(x), size, mode="area")
    error = weight * ((after - before).to(x) - change)
    smooth = [F.avg_pool2d(F.pad(each, [TONE // 2] * 4, mode="replicate"), TONE, 1) for each in (error, weight)]
    tone = smooth[0] / smooth[1].clamp_min(1e-6)
    return x + inside * F.interpolate(tone, x.shape[-2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True, eq=False)
class MovedPath(Wrapped):
    """A rule that keeps to the inverted path, moved by ``shift``, up to the level ``until``, as far as ``fresh`` is
    below 1."""

    site: Site
    shift: Tensor
    fresh: Tensor
    until: int

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        new, *rest = self.rule.step(field, state, grid, i)
        return (self.blended(new, grid, i + 1), *rest)

    def blended(self, x: Tensor, grid: Grid, i: int) -> Tensor:
        """The sample ``x`` at ``grid[i]``, and the moved path where structure stays."""
        if i > self.until or bool((self.fresh == 1).all()):
            return x
        return self.fresh * x + (1 - self.fresh) * (self.site.path[i] + grid[i].alpha * self.shift)


def enlarge(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (batch, 1, h, w) at a larger size: nearest, then grown by half a small pixel, so that no edited pixel is
    cut."""
    grow = size[-1] // mask.shape[-1] // 2
    large = F.interpolate(mask, size, mode="nearest")
    return grown(large, grow)

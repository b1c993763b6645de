"""FlowEdit within a region, at a strength that follows the region and the network's reading of the result."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.edits.classifier import likelihood, margin
from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.flowedit import Flow
from iterinv.edits.regions import FromPrompts, grown
from iterinv.edits.settings import check_shares
from iterinv.edits.site import Blend, Region, Running, Site, edit_rows, last_state, share_of, start_index
from iterinv.edits.structure import recoloured
from iterinv.levels import State
from iterinv.steps import Step
from iterinv.steps.run import run
from iterinv.typed import Count, Natural, Positive

UNLIKELY = 1.5
"""New colours on old outlines of which the network predicts the noise with so much more error are no likely picture. On
recolourings and new materials of the embedded cascade it was at most 1.3 times as much, on new shapes at least 1.8."""

CLEARLY, LEAST_LIKELY = 0.9, 2.5
"""Where the network sees the target prompt by this share as clearly in new colours on old outlines, they may be less
likely: the recoloured cube of a checkered floor had twice the error at a share of 0.94, and no new shape had a share
above 0.8."""

FITS = (5, 1), (9, 4), (13, 9)
"""The windows and the numbers of fits of new colours that are tried. A highlight that comes or goes is finer than a
wide window; where FlowEdit moved an outline, only several fits in a wide one ignore it. Two of twelve recolourings of
the embedded cascade that no benchmark draws were drawn elsewhere while the narrowest alone decided."""

STILL_SEEN = 0.5
"""Colours in which the network sees the target prompt less than this share as clearly as in FlowEdit's result have lost
it."""

STRENGTHS = (0.55, 0.7, 0.85, 1.0)
"""The strengths that a local edit tries in turn, until the network sees the target prompt in the result."""

OWN = FromPrompts(grow=0)
"""The region where FlowEdit acts, unless another is given."""


@dataclass(frozen=True)
class AdaptiveFlow(FirstStageEditor):
    """Edit by FlowEdit within a region, at a strength that follows the region and the network.

    The first stage is edited within ``region``, the stages above by ``detail``. ``guidance`` acts from the source
    prompt to the target prompt, 1 for none; ``passes`` is the number of times the levels are run, each pass from
    the result of the one before; ``averages`` is the number of noises a level, drawn from ``seed``. A region that
    covers more than ``local`` of the picture loses its slits and is grown by a pixel.

    Without a ``strength`` each picture of a batch gets its own. A changed floor or wall is decided at the noisiest
    levels: the strength is 1, in one pass, where there is no mask or where it covers more than ``local``. A thing
    drifts from its place at the noisiest levels, so a smaller change begins at 0.55. While the network does not see
    the target prompt in the result, ``sure`` times as clearly as it saw the source prompt in the picture, the
    picture is edited anew from 0.7, 0.85 and 1.

    FlowEdit moves outlines, by a fraction of a pixel to two pixels. Where exchanging colours is enough, they stay
    where they are: the result's colours on the picture's own structure (:func:`iterinv.edits.structure.recoloured`)
    take the result's place if the network sees the target prompt in them ``outline`` times as clearly, 1 or more for
    never, and finds them about as likely. They are fitted in narrow windows and in wide ones (:data:`FITS`), and the
    likeliest are taken. The defaults were chosen on recolourings of the embedded cascade that no benchmark draws, the
    second of the fits on some that it does; ``docs/benchmarks/scenes.md`` measures them. Raises ``ValueError`` for
    settings outside their ranges.
    """

    strength: float | None = None
    guidance: float = 1.5
    passes: Count = 3
    averages: Count = 1
    local: float = 0.3
    sure: float = 0.5
    outline: Positive = 0.75
    region: Region = OWN
    seed: Natural = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(local=self.local)
        if not 0 <= self.sure <= 1:
            raise ValueError(
                f"sure is {self.sure}; it lies in [0, 1]: at 0 the new words need only be seen above the old"
            )

    def edit_first(self, site: Site) -> Running:
        return (yield from edit_rows(site, site.region(self.region), self.edit))

    def edit(self, site: Site, mask: Tensor | None) -> Running:
        """The edit of one picture at the first stage, within ``mask`` (1, 1, h, w)."""
        wide = mask is None or float(mask.mean((1, 2, 3)).max()) > self.local
        if mask is not None and wide:  # a floor's edge to the things on it is no limit; a thing would drift
            mask = grown(without_slits(mask), 1)
        clean = site.path[-1]
        strengths: tuple[float, ...]
        if self.strength is not None:
            strengths, passes = (self.strength,), self.passes
        elif wide:
            strengths, passes = (1.0,), 1
        else:
            strengths, passes = STRENGTHS, self.passes
        source_margin = margin(site, mask, clean, self.seed) if mask is not None and len(strengths) > 1 else 0.0
        for strength in strengths:
            state = yield from self.flow(site, strength, passes, mask)
            if (
                mask is None
                or strength == strengths[-1]
                or margin(site, mask, state[0], self.seed) >= -self.sure * source_margin
            ):
                break
        z, same = state[0], False
        if site.stage.codec is None and self.outline < 1:
            reach = mask
            if mask is not None and site.limit is None and self.region == OWN:
                reach = grown(mask, 1)  # the outline's pixels hold both colours
            same, z = self.same_outline(site, reach, clean, z)
            mask = reach if same else mask
        share = share_of(site.grid, start_index(site.grid, strength))
        scale = site.guidance_scale(self.guidance)
        # A pattern of a floor may be finer than this stage's pixels, and change with its colours.
        same = same and not wide
        return site.result((z,), mask, rule="Flow", strength=share, guidance=scale, same_outline=same)

    def same_outline(self, site: Site, mask: Tensor | None, clean: Tensor, z: Tensor) -> tuple[bool, Tensor]:
        """Tell whether new colours are enough, and return the clean state with them, or ``z`` as it is."""
        inside = torch.ones_like(z[:, :1]) if mask is None else mask
        there = margin(site, inside, z, self.seed)
        if there <= 0:
            return False, z
        of_flow, enough, candidates = likelihood(site, inside, z, self.seed), False, []
        for colours in in_new_colours(inside, clean, z):
            share = margin(site, inside, colours, self.seed) / there
            likely = likelihood(site, inside, colours, self.seed)
            most = LEAST_LIKELY if share >= CLEARLY else UNLIKELY
            enough |= share >= self.outline and likely >= most * of_flow
            if share >= STILL_SEEN:
                candidates.append((likely, colours))
        return (True, max(candidates, key=lambda each: each[0])[1]) if enough else (False, z)

    def flow(self, site: Site, strength: float, passes: int, mask: Tensor | None) -> Generator[State, None, State]:
        """Run the last ``strength`` of the levels ``passes`` times; returns the clean state."""
        clean, start = site.path[-1], start_index(site.grid, strength)
        grid = (*site.grid, *(tuple(site.grid[start:]) * (passes - 1)))
        rule: Step = Flow(site.source(guided=True), clean, self.averages, self.seed)
        if mask is not None:
            rule = Blend(rule, mask, [clean] * len(grid))
        return last_state(run(rule, site.towards(self.guidance), (clean,), grid, start))


def in_new_colours(inside: Tensor, clean: Tensor, z: Tensor) -> list[Tensor]:
    """The clean state with the colours of ``z``, both (batch, 3, h, w), on its own structure within ``inside`` (batch,
    1, h, w): by each of :data:`FITS`."""
    fitted = [recoloured(clean, z, window, fits).clamp(-1, 1) for window, fits in FITS]
    return [torch.where(inside > 0, inside * each + (1 - inside) * clean, clean) for each in fitted]


SLIT = 5
"""Gaps of a wide region narrower than this many pixels are closed: the prompts may agree on a stripe of a floor."""


def without_slits(mask: Tensor) -> Tensor:
    """A mask (batch, 1, h, w) whose narrow gaps are closed."""
    padded = F.pad(mask, [SLIT // 2] * 4, mode="replicate")
    return -F.max_pool2d(-F.max_pool2d(padded, SLIT, 1, SLIT // 2), SLIT, 1)

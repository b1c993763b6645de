"""The region that FlowEdit changes: it finds the place of a thing that appears or goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from iterinv.edits.adaptive_flow import AdaptiveFlow
from iterinv.edits.classifier import margin
from iterinv.edits.regions import FromPrompts, closed, grown
from iterinv.edits.site import Site
from iterinv.stage_inversion import finish
from iterinv.typed import Natural, Positive, Range, check_fields


@dataclass(frozen=True)
class FromFlow:
    """The region where one pass of :class:`iterinv.edits.AdaptiveFlow` over all levels changes a channel by ``least``
    or more, in [-1, 1], without thin lines (:func:`solid`), closed, and grown by ``grow`` pixels; the region of the
    prompts where it changes nothing.

    Two prompts predict different noise on every thing that they describe, also on those that stay
    (:class:`iterinv.edits.FromPrompts`); FlowEdit's result mostly changes those that do not. Where it changes several
    places, those whose things the target prompt asks for as well are left out (:func:`without_what_stays`).
    """

    least: Positive = 0.15
    grow: Annotated[int, Range(0, 1000)] = 1
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, site: Site) -> Tensor:
        edit = finish(AdaptiveFlow(strength=1.0, passes=1, outline=1.0, seed=self.seed)(site))
        clean = site.path[-1]
        change = (site.stage.encode(edit.picture.to(clean)) - clean).abs().amax(1, keepdim=True)
        mask = grown(closed(solid(change, self.least).to(clean)), self.grow)
        unchanged = ~mask.flatten(1).any(1)
        if bool(unchanged.any()):
            mask[unchanged] = FromPrompts(grow=self.grow, close=True, seed=self.seed)(site)[unchanged].to(mask)
        return torch.cat([without_what_stays(row, mask[k : k + 1]) for k, row in enumerate(site.rows())])


STAYS, SHARE = 0.4, 0.7
"""A place where the source prompt explains the picture better than the target prompt does, but less than this share as
much better as at another place, shows a thing that stays; and the share of the grid at which they are compared. On
two-thing scenes of the embedded cascade it was 0.25 or less."""


def without_what_stays(site: Site, mask: Tensor) -> Tensor:
    """The connected places of a region (1, 1, h, w) of one picture that show something which the target prompt does not
    ask for."""
    from scipy.ndimage import label

    labels, count = label(mask[0, 0].cpu().numpy())
    if count < 2:
        return mask
    places = [torch.from_numpy(labels == k + 1)[None, None].to(mask) for k in range(count)]
    missed = [-margin(site, place, site.path[-1], share=SHARE) for place in places]
    kept = [place for place, each in zip(places, missed, strict=True) if each >= STAYS * max(missed)]
    return torch.stack(kept).amax(0) if kept else mask


def solid(change: Tensor, least: float) -> Tensor:
    """The places (batch, 1, h, w) of a change of ``least`` or more that are three pixels wide or more, and up to two
    pixels around them of half that change. FlowEdit also changes the outlines of things that stay: those are thin."""
    changed, around = (change >= least).to(change), (change >= least / 2).to(change)
    places = changed * grown(1 - grown(1 - changed, 1), 1)
    for _ in range(2):
        places = torch.maximum(places, grown(places, 1) * around)
    return places

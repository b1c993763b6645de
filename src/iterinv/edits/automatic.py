"""The default editor: it chooses another by the words that change, and says whether the network sees the new words."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.edits.adaptive_flow import AdaptiveFlow
from iterinv.edits.classifier import certainty, clearness, margin
from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.redraw import Redraw
from iterinv.edits.regions import FromPrompts, Given, closed, grown
from iterinv.edits.site import Region, Running, Site, StageEdit, edit_rows
from iterinv.typed import Natural


@dataclass(frozen=True)
class Automatic(FirstStageEditor):
    """Draw anew where a thing appears, goes or takes another shape (Redraw), and change the picture in place otherwise
    (AdaptiveFlow).

    Where the target prompt only adds words to the source prompt or only removes some, nothing of the region should
    stay, so it is drawn anew. Where words are exchanged, FlowEdit changes the picture first. Its result stays where new
    colours are enough and where the region is wide, as that of a floor is. A thing that takes another shape keeps
    pieces of the old one in FlowEdit's result, so it is drawn anew in the same region, closed and grown by a pixel.
    Where the network does not see the target prompt in FlowEdit's result, as when a thing should stand elsewhere, the
    region is :data:`PLACES`, if that of FlowEdit is not wide. If the network does not see it in what is drawn anew
    either, FlowEdit's result stays, so that nothing vanishes. The report says which editor made the picture and why,
    and whether the network sees the target prompt in it (:func:`sees_target`). ``strength``, ``guidance`` and
    ``region`` are the chosen editor's own unless given; a region of its own shrinks to what the edit changed
    (:func:`tightened`). Raises ``ValueError`` for settings outside their ranges.
    """

    strength: float | None = None
    guidance: float | None = None
    region: Region | None = None
    seed: Natural = 0

    def edit_first(self, site: Site) -> Running:
        return (yield from edit_rows(site, None if self.region is None else site.region(self.region), self._edit))

    def _edit(self, site: Site, mask: Tensor | None) -> Running:
        """The edit of one picture at the first stage, within ``mask`` (1, 1, h, w) if the editor has a region."""
        edit = yield from self._chosen(site, mask)
        own = mask is None and site.limit is None and site.stage.codec is None
        return tightened(edit, site.picture) if own else edit

    def _chosen(self, site: Site, mask: Tensor | None) -> Running:
        """The edit of the editor that suits."""
        region = self.region if mask is None else Given(mask)
        settings: dict[str, Any] = {"strength": self.strength, "guidance": self.guidance, "region": region}
        given = {name: value for name, value in settings.items() if value is not None}
        flow, redraw = AdaptiveFlow(seed=self.seed, **given), Redraw(seed=self.seed, **given)
        change = word_change(site.source_prompt, site.target_prompt)
        if change != "exchanged":
            edit = yield from redraw(site)
            return _report(edit, redraw, f"the target prompt only has words {change}", sees_target(site, edit))
        edit = yield from flow(site)
        shown, why = sees_target(site, edit), "the network does not see the target prompt in AdaptiveFlow's result"
        wide = edit.mask is None or float(edit.mask.mean()) > flow.local
        if shown:
            if wide or site.stage.codec is not None:
                return _report(edit, flow, "the target prompt exchanges words", shown)
            if edit.reports[0]["same_outline"]:
                return _report(edit, flow, "new colours are enough", shown)
            why = "new colours are not enough"
            if region is None and edit.mask is not None:
                redraw = dataclasses.replace(redraw, region=Given(grown(closed(edit.mask), 1)))
        elif region is None and not wide:
            redraw = dataclasses.replace(redraw, region=PLACES)
        anew = yield from redraw(site)
        if sees_target(site, anew, than_none=True):
            return _report(anew, redraw, why, True)
        return _report(edit, flow, f"{why}, and the network does not see the target prompt in Redraw's result", shown)


LEAST = 0.08
"""A change of a channel, in [-1, 1], below which a pixel does not count as changed: ten 8-bit steps."""


def tightened(edit: StageEdit, before: Tensor) -> StageEdit:
    """The edit within the part of its own mask that it changed from the picture ``before`` (1, 3, h, w), closed
    and grown by a pixel; beyond it the picture stays as it was."""
    if edit.mask is None:
        return edit
    changed = (edit.picture - before).abs().amax(1, keepdim=True) >= LEAST
    mask = edit.mask * grown(closed(changed * edit.mask), 1)
    return dataclasses.replace(edit, picture=torch.where(mask > 0, edit.picture, before.to(edit.picture)), mask=mask)


def _report(edit: StageEdit, chosen: AdaptiveFlow | Redraw, why: str, shown: bool) -> StageEdit:
    report = {"chose": type(chosen).__name__, "why": why, "sees_target": shown, **edit.reports[0]}
    return dataclasses.replace(edit, reports=(report,))


SURE = 0.25
"""The network sees the target prompt in an edited picture where it sees it by this share as clearly as it saw the
source prompt in the picture before: chance alone makes one of two prompts a little better."""

CERTAIN = 2.0
"""It also sees it where the difference over the noises is so many of its standard errors above 0. A floor of tiles is
seen more clearly than one of squares ever is."""

SEEN_BEFORE = 0.5
"""Where the network saw the target prompt in the picture before the edit already, it sees it in the edited one only if
it saw it at most by this share as clearly before."""


PLACES = FromPrompts(strength=0.85, grow=2, close=True)
"""The region of a change that FlowEdit does not make: the prompts' own at a noisy level, where the places of things are
open. It holds the place of a thing that moves and the place where it goes."""


def sees_target(site: Site, edit: StageEdit, than_none: bool = False) -> bool:
    """Tell whether the network predicts the noise of the edited region of a picture better by the target prompt than by
    the source prompt; and ``than_none``, than by none, which a scene does not from which a thing has vanished."""
    z = site.stage.encode(edit.picture.to(site.path[-1]))
    mask = torch.ones_like(z[:, :1])
    if edit.mask is not None:
        mask = F.adaptive_max_pool2d(edit.mask, site.stage.shape[1:])
    source, none = clearness(site, mask, z)
    before = -margin(site, mask, site.path[-1])
    if source <= max(0.0, -before / SEEN_BEFORE) or (than_none and none <= 0):
        return False
    return source > SURE * before or certainty(site, mask, z) >= CERTAIN


def word_change(source: str, target: str) -> str:
    """Say how the words of two prompts differ: ``added``, ``removed`` or ``exchanged``. Words are counted, and their
    order counts for nothing."""
    old, new = (Counter(re.findall(r"[^\W_]+", prompt.lower())) for prompt in (source, target))
    if new < old:
        return "removed"
    return "added" if old < new else "exchanged"

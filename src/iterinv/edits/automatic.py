"""The default editor: it chooses another by the words that change, and says whether the network sees the new words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.edits.adaptive_flow import AdaptiveFlow
from iterinv.edits.classifier import certainty, clearness, margin
from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.flow_redraw import FlowRedraw, change, is_wide
from iterinv.edits.redraw import Redraw
from iterinv.edits.regions import FromPrompts, Given, closed, grown
from iterinv.edits.site import Region, Running, Site, StageEdit, edit_rows
from iterinv.edits.structure import recoloured
from iterinv.edits.words import word_change
from iterinv.typed import Natural


@dataclass(frozen=True)
class Automatic(FirstStageEditor):
    """Draw anew what appears or goes (Redraw), exchange the colours of what stays (AdaptiveFlow), and give a thing
    another shape or size at its place (FlowRedraw).

    Where the target prompt only adds words to the source prompt or only removes some, nothing of the region should
    stay, so it is drawn anew. Where words are exchanged, one pass of FlowEdit over the whole picture shows what
    changes. Where that is a wide region, such as a floor or a wall, FlowRedraw keeps what FlowEdit changed. Elsewhere,
    if its colours on the picture's own outlines may be enough (:func:`moves_outlines`), AdaptiveFlow exchanges them,
    and its result stays if they are; if not, FlowRedraw draws anew what FlowEdit changed.
    Where the network does not see the target prompt in the result, as when a thing should stand elsewhere,
    :data:`PLACES` are drawn anew, if the region is not wide. If the network does not see it in that either,
    AdaptiveFlow's result stays, so that nothing vanishes. Latent stages have no outlines to compare, and what
    AdaptiveFlow makes of them stays if the network sees the target prompt in it. The report says which editor made the
    picture and why, and whether the network sees the target prompt in it (:func:`sees_target`). ``strength``,
    ``guidance`` and ``region`` are the chosen editor's own unless given; a region of its own shrinks to what the edit
    changed (:func:`tightened`). Raises ``ValueError`` for settings outside their ranges.
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
        words = word_change(site.source_prompt, site.target_prompt)
        if words != "exchanged":
            edit = yield from redraw(site)
            return _report(edit, redraw, f"the target prompt only has words {words}", sees_target(site, edit))
        ours = {f"flow_{name}": value for name, value in given.items() if name != "region"}
        clean, shape = site.path[-1], FlowRedraw(seed=self.seed, **given, **ours)
        in_place = None
        if site.stage.codec is not None:  # latents have no outlines to compare
            in_place = yield from flow(site)
            if sees_target(site, in_place):
                return _report(in_place, flow, "the target prompt exchanges words", True)
        whole = yield from shape.flow(site, mask)
        wide = is_wide(clean, whole)
        why = "FlowEdit changes a wide region" if wide else "new colours are not enough"
        if in_place is not None:
            why = "the network does not see the target prompt in AdaptiveFlow's result"
        elif not wide and not moves_outlines(site, clean, whole):
            in_place = yield from flow(site)
            if not sees_target(site, in_place):
                why = "the network does not see the target prompt in AdaptiveFlow's result"
            # AdaptiveFlow compares no outlines in a wide region, such as a box that the user draws around a thing.
            elif in_place.reports[0]["same_outline"] or _limit_share(site) > flow.local:
                return _report(in_place, flow, "new colours are enough", True)
        edit = yield from shape.edit(site, mask, whole)
        if sees_target(site, edit, than_none=True, instead=True):
            return _report(edit, shape, why, True)
        why = "the network does not see the target prompt in FlowRedraw's result"
        if region is None and not wide:
            places = dataclasses.replace(redraw, region=PLACES)
            edit = yield from places(site)
            z = site.stage.encode(edit.picture.to(clean))
            if sees_target(site, edit, than_none=True) and certainty(site, _inside(edit, z), z) >= ELSEWHERE:
                return _report(edit, places, why, True)
            why += ", nor in Redraw's"
        if in_place is None:
            in_place = yield from flow(site)
        return _report(in_place, flow, why, sees_target(site, in_place))


FEWEST_COLOURS = 0.6
"""AdaptiveFlow is not tried where the network sees the target prompt in new colours on old outlines less than this
share as clearly as in FlowEdit's result. On recolourings and new materials of the embedded cascade it was 0.63 or more,
on most new shapes and sizes 0.6 or less."""


def _limit_share(site: Site) -> float:
    """The share of the picture that the user's mask lets change; 0 without one."""
    return 0.0 if site.limit is None else float(site.limit_at(site.stage.shape[1:]).mean())


def moves_outlines(site: Site, clean: Tensor, z: Tensor) -> bool:
    """Tell whether FlowEdit's result ``z`` shows another outline than the clean state does: its colours on the
    picture's own structure (:func:`iterinv.edits.structure.recoloured`) do not show the target prompt. Where FlowEdit
    changes nothing, or the network does not see the target prompt in it, none moves."""
    inside = grown(closed(change(clean, z)), 1)
    there = margin(site, inside, z)
    if there <= 0:
        return False
    colours = torch.where(inside > 0, recoloured(clean, z).clamp(-1, 1), clean)
    return margin(site, inside, colours) < FEWEST_COLOURS * there


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


def _report(edit: StageEdit, chosen: AdaptiveFlow | FlowRedraw | Redraw, why: str, shown: bool) -> StageEdit:
    report = {"chose": type(chosen).__name__, "why": why, "sees_target": shown, **edit.reports[0]}
    return dataclasses.replace(edit, reports=(report,))


SURE = 0.25
"""The network sees the target prompt in an edited picture where it sees it by this share as clearly as it saw the
source prompt in the picture before: chance alone makes one of two prompts a little better."""

CERTAIN = 2.0
"""It also sees it where the difference over the noises is so many of its standard errors above 0. A floor of tiles is
seen more clearly than one of squares ever is."""

ELSEWHERE = 1.0
"""A thing that stays where it is loses more by being drawn elsewhere than the new words gain, unless these are seen
above chance, by so many standard errors. On moves of the embedded cascade they were by 1.5 or more."""

SEEN_BEFORE = 0.5
"""Where the network saw the target prompt in the picture before the edit already, it sees it in the edited one only if
it saw it at most by this share as clearly before."""


PLACES = FromPrompts(strength=0.85, grow=2, close=True)
"""The region of a change that FlowEdit does not make: the prompts' own at a noisy level, where the places of things are
open. It holds the place of a thing that moves and the place where it goes."""


def sees_target(site: Site, edit: StageEdit, than_none: bool = False, instead: bool = False) -> bool:
    """Tell whether the network predicts the noise of the edited region of a picture better by the target prompt than by
    the source prompt; and ``than_none``, than by none, which a scene does not from which a thing has vanished; and
    ``instead`` of the source prompt, which it saw there before: a few changed pixels beside the thing show neither."""
    z = site.stage.encode(edit.picture.to(site.path[-1]))
    mask = _inside(edit, z)
    source, none = clearness(site, mask, z)
    before = -margin(site, mask, site.path[-1])
    if source <= max(0.0, -before / SEEN_BEFORE) or (than_none and none <= 0) or (instead and before <= 0):
        return False
    return source > SURE * before or certainty(site, mask, z) >= CERTAIN


def _inside(edit: StageEdit, z: Tensor) -> Tensor:
    """The region of an edit at the size of the states ``z``; everywhere if it has none."""
    return torch.ones_like(z[:, :1]) if edit.mask is None else F.adaptive_max_pool2d(edit.mask, z.shape[-2:])

"""FlowEdit over the whole picture, and what it changed drawn anew from its result: new outlines, where the old ones
were."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from iterinv.edits.adaptive_flow import AdaptiveFlow, in_new_colours
from iterinv.edits.classifier import likelihood
from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.redraw import Redraw
from iterinv.edits.regions import Everywhere, bridged, closed, grown
from iterinv.edits.settings import check_shares
from iterinv.edits.site import Region, Running, Site, edit_rows, share_of, start_index
from iterinv.edits.structure import structure_change
from iterinv.levels import State
from iterinv.steps import DDIM, Step
from iterinv.typed import Count, Natural

CHANGED = 0.15
"""A change of a channel, in [-1, 1], from which a pixel counts as changed by FlowEdit: 19 8-bit steps."""

WIDE = 0.36
"""The share of the picture that a floor or a wall takes, and a thing with its shadow does not."""


@dataclass(frozen=True)
class FlowRedraw(FirstStageEditor):
    """Change a thing by FlowEdit, and draw the changed region anew from there.

    One pass of FlowEdit (:class:`iterinv.edits.AdaptiveFlow`), over the last ``flow_strength`` of the levels at
    ``flow_guidance`` from prompt to prompt, gives a thing another shape or size at its own place, with pieces of the
    old one in it. The region that it changed is therefore drawn anew, as in
    :class:`iterinv.edits.Redraw`: ``tries`` times over the last ``strength`` of the levels, from that result under
    fresh noise, at ``guidance`` over the empty prompt. Nothing else of the picture changes. Where FlowEdit changes a
    wide region (:data:`WIDE`), its result stays: things stand in such a region, and drawn anew they would move. If the
    pattern stays, as a wall's does (:func:`changes_pattern`), the picture's own structure takes the new colours, by the
    likeliest of the fits of :func:`iterinv.edits.adaptive_flow.in_new_colours`, and no network draws it at the stages
    above. Without a ``region`` FlowEdit may change every pixel. The defaults were chosen on new shapes and sizes of the
    embedded cascade that no benchmark draws, and the choice of a fit on twelve such walls and one of the benchmark's;
    ``docs/benchmarks/scenes.md`` measures them. Raises ``ValueError`` for settings outside their ranges.
    """

    strength: float = 0.6
    guidance: float = 2.0
    tries: Count = 6
    region: Region = dataclasses.field(default_factory=Everywhere)
    rule: Step = dataclasses.field(default_factory=DDIM)
    seed: Natural = 0
    flow_strength: float = 1.0
    flow_guidance: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(flow_strength=self.flow_strength)

    def edit_first(self, site: Site) -> Running:
        return (yield from edit_rows(site, site.region(self.region), self._edit))

    def _edit(self, site: Site, mask: Tensor | None) -> Running:
        z = yield from self.flow(site, mask)
        return (yield from self.edit(site, mask, z))

    def flow(self, site: Site, mask: Tensor | None) -> Generator[State, None, Tensor]:
        """Run FlowEdit within ``mask`` (1, 1, h, w); returns its clean state (1, channels, h, w)."""
        how = AdaptiveFlow(guidance=self.flow_guidance, seed=self.seed)
        (z, *_) = yield from how.flow(site, self.flow_strength, 1, mask)
        return z.clamp(-1, 1) if site.stage.codec is None else z

    def edit(self, site: Site, mask: Tensor | None, z: Tensor) -> Running:
        """The edit of one picture at the first stage, within ``mask`` (1, 1, h, w), from FlowEdit's result ``z``."""
        clean = site.path[-1]
        inside = torch.ones_like(clean[:, :1]) if mask is None else mask
        region = inside * grown(closed(change(clean, z)), 1)
        if is_wide(clean, z) or not region.any():
            region = inside * reach(clean, z)
            same = site.stage.codec is None and not changes_pattern(clean, z)
            if same:  # FlowEdit may have changed the outlines and the shading of what stands there
                z = max(in_new_colours(region, clean, z), key=lambda each: likelihood(site, region, each))
            z = torch.where(region > 0, z, clean)
            share, scale = share_of(site.grid, start_index(site.grid, self.flow_strength)), self.flow_guidance
            report = {"strength": share, "guidance": site.guidance_scale(scale), "same_outline": same}
            return site.result((z,), region, rule="Flow", **report)
        redraw = Redraw(self.strength, self.guidance, self.tries, self.region, self.rule, self.seed)
        return (yield from redraw.edit(site, region, z))


def change(before: Tensor, after: Tensor) -> Tensor:
    """The pixels (batch, 1, h, w), 1 or 0, where a channel of two states differs by :data:`CHANGED` or more."""
    return ((after - before).abs().amax(1, keepdim=True) >= CHANGED).to(before)


def reach(before: Tensor, after: Tensor) -> Tensor:
    """The changed pixels (batch, 1, h, w) with their gaps closed, and one pixel around: a thing that stays in them
    is a hole."""
    return grown(bridged(change(before, after)), 1)


def is_wide(before: Tensor, after: Tensor) -> bool:
    """Tell whether two states differ over more of the picture than :data:`WIDE`."""
    return float(reach(before, after).mean()) > WIDE


PATTERN = 0.2
"""A wide region has another pattern where its structure changed by this share or more. New walls of the embedded
cascade had 0.14 or less, new floors 0.28 or more. Where the colours of such a region were carried up to 256 px
without the network, twelve new walls that no benchmark draws came 2.9 dB nearer to the truth inside and kept 3.4 dB
more outside."""

BORDER = 3
"""The structure of a wide region counts this far from its edges: things stand there."""


def changes_pattern(clean: Tensor, z: Tensor) -> bool:
    """Tell whether FlowEdit's result ``z`` shows another pattern than the clean state does where they differ, by
    :func:`iterinv.edits.structure.structure_change`."""
    inner = 1 - grown(1 - reach(clean, z), BORDER)
    changed = (structure_change(clean, z) * inner).sum() / inner.sum().clamp_min(1)
    return float(changed) >= PATTERN

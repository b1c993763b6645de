"""Several edits at once, in the manner of LEDITS++ (Brack, Friedrich, Kornmeier, Tsaban, Schramowski, Kersting, Passos,
2024), https://arxiv.org/abs/2311.16711

Each concept guides the run by its own weight, negative for a thing to remove, within its own mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.conditions import Condition
from iterinv.edits.prompt_swap import PromptSwap
from iterinv.edits.prompt_to_prompt import BLENDED, most_positions
from iterinv.edits.regions import Given
from iterinv.edits.site import Running, Site, share_of, start_index
from iterinv.guidance import Denoiser
from iterinv.levels import Field, Level, Prediction
from iterinv.models.attention import Attended, Changes, Layer, changed, layers_of, network_of
from iterinv.models.tokens import Tokenize
from iterinv.steps import rule_name
from iterinv.typed import Checked, Share


@dataclass(frozen=True, eq=False)
class Concept(Checked):
    """A thing to add to a picture by a positive ``weight``, the paper's edit scale, or to remove by a negative one.

    It acts at the positions, the largest ``1 - threshold`` of a picture, where its prediction differs most from the
    empty prompt's (:class:`LEdits`); a threshold of 0 lets it act everywhere. It does not act during the first
    ``warm_up`` of the steps. ``mask`` (batch or 1, 1, h, w) in [0, 1], of any size, is multiplied on it. Raises
    ``ValueError`` for a prompt without words, and for a mask of another shape or range.
    """

    prompt: str
    weight: float = 5.0
    threshold: Share = 0.9
    warm_up: Share = 0.0
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompt.strip():
            raise ValueError("the prompt of a concept is empty: name the thing to add or to remove")
        if self.mask is not None:
            Given(self.mask)
            if not bool(((self.mask >= 0) & (self.mask <= 1)).all()):
                raise ValueError(f"the mask of the concept {self.prompt!r} has values outside [0, 1]: divide by 255")


@dataclass(frozen=True)
class LEdits(PromptSwap):
    """Edit by several ``concepts`` at once, each with a weight, a sign and a mask of its own.

    The last ``strength`` of the levels run from the inverted state under ``eps + sum_k s_k M_k (eps_k - eps_empty)``.
    ``eps`` is the prediction that the inversion is rerun by, so that nothing changes where nothing guides. In the paper
    it is the empty prompt's, as it is here where the picture was inverted under the empty prompt. ``M_k`` is 1 where
    ``|eps_k - eps_empty|``, summed over the channels, is among the largest ``1 - threshold`` of the picture, and so is
    the attention to the concept's words, averaged over the layers of about 16 x 16 positions. ``cross_attention``
    leaves the latter out, or insists on it; ``None`` uses it where the network attends to text and its tokens are
    known. Public code takes the first quantile within the second mask, where it removes next to nothing.

    The paper's path is one of independent noises, as that of edit-friendly inversion, whose own rule and noise maps
    run; ``rule`` runs along other paths. The paper's solver of second order is not here, and its defaults were chosen
    for Stable Diffusion.

    Without concepts the target prompt is the only one, with ``guidance`` for its weight. With concepts it guides the
    stages above alone, and should describe the result. Raises ``ValueError``, before any network call, for an empty
    target prompt without concepts, for masks of another number of pictures, and for ``cross_attention`` of a network
    that has none.
    """

    strength: float = 0.85
    guidance: float = 5.0
    concepts: tuple[Concept, ...] = ()
    cross_attention: bool | None = None

    def edit_first(self, site: Site) -> Running:
        wanted = [self.concepts or (Concept(prompt, self.guidance),) for prompt in site.target_prompts]
        words = self.words(site)
        guides = [self.guide(site, each, words) for each in zip(*wanted, strict=True)]
        empty = site.stage.with_prompt(site.target, None)
        field = fused(site.inversion.field(site.stage.denoiser), site.stage.denoiser, empty, guides, words)
        mask = site.region(self.region)
        state = yield from site.follow_path(self.rule, self.strength, field, mask)
        edit = site.result(state, mask, **self.report(site), cross_attention=words is not None)
        named = [[{"prompt": each.prompt, "weight": each.weight} for each in concepts] for concepts in wanted]
        pairs = zip(edit.reports, named, strict=True)
        return replace(edit, reports=tuple({**report, "concepts": concepts} for report, concepts in pairs))

    def report(self, site: Site) -> dict[str, Any]:
        share = share_of(site.grid, start_index(site.grid, self.strength))
        return {"rule": rule_name(site.rule_for(self.rule)), "strength": share}

    def words(self, site: Site) -> Words | None:
        """The attention to words of the stage's network, where it is used. Raises ``ValueError`` where it is insisted
        on and there is none."""
        if self.cross_attention is False:
            return None
        network = network_of(site.stage.denoiser)
        layers = [] if network is None else [layer for layer in layers_of(network) if layer.text]
        if layers and site.stage.tokens is not None:
            return Words(network, layers, site.stage.tokens, most_positions(site.stage))
        if self.cross_attention:
            lack = "does not say which tokens its words are" if layers else "has no attention to text"
            raise ValueError(f"stage {site.stage.name} {lack}, which cross_attention=True needs: take None or False")
        return None

    def guide(self, site: Site, concepts: Sequence[Concept], words: Words | None) -> Guide:
        """A concept at a stage. ``concepts`` has one for each picture; they differ in their prompts at most."""
        concept, batch = concepts[0], len(site.path[-1])
        if concept.mask is not None and len(concept.mask) not in (1, batch):
            raise ValueError(
                f"the concept {concept.prompt!r} has masks of {len(concept.mask)} pictures, and there are {batch}: "
                "give one for each, or one for all"
            )
        start, last = start_index(site.grid, self.strength), len(site.grid) - 1
        return Guide(
            concept,
            site.stage.with_prompt(site.target, concept.prompt) if self.concepts else site.target,
            site.grid[start + round(concept.warm_up * (last - start))],
            None if concept.mask is None else Given(concept.mask)(site),
            None if words is None else torch.stack([words.columns(each.prompt) for each in concepts]),
        )


@dataclass(frozen=True, eq=False)
class Words:
    """The ``layers`` of a network that attend to text, the ``tokens`` of a prompt, and the number of positions of the
    finest layers that are looked at."""

    network: Any
    layers: Sequence[Layer]
    tokens: Tokenize
    most: float

    def columns(self, prompt: str) -> Tensor:
        """The columns (tokens,) of an encoded prompt: 1 for those that stand for text, 0 for special tokens."""
        return torch.tensor([float(end > start) for start, end in self.tokens(prompt).spans])


@dataclass(frozen=True, eq=False)
class Guide:
    """A concept at a stage: its condition, the level ``first`` that it acts from, its mask (batch, 1, h, w) at the size
    of the states, and the columns (batch, tokens) of its words, where their attention is used."""

    concept: Concept
    condition: Condition
    first: Level
    mask: Tensor | None
    columns: Tensor | None

    def acts(self, a: Level) -> bool:
        """Tell whether it guides at a level: one that is no noisier than the first."""
        return self.concept.weight != 0 and a.sigma * self.first.alpha <= self.first.sigma * a.alpha

    def weights(self, difference: Tensor, attention: Tensor | None) -> Tensor:
        """``s M`` (batch, 1, h, w), of a difference (batch, channels, h, w) and the attention (batch, 1, h', w') to its
        words."""
        threshold = self.concept.threshold
        weights = self.concept.weight * largest(difference.abs().sum(1, keepdim=True), threshold)
        if attention is not None:
            weights = weights * F.interpolate(largest(smoothed(attention), threshold), weights.shape[2:]).to(weights)
        return weights if self.mask is None else weights * self.mask


def fused(base: Field, denoiser: Denoiser, empty: Condition, guides: Sequence[Guide], words: Words | None) -> Field:
    """The field ``base`` plus what each concept adds to the empty prompt; one batch through the network for these."""

    def field(x: Tensor, a: Level) -> Prediction:
        here, acting = base(x, a), [guide for guide in guides if guide.acts(a)]
        if not acting:
            return here
        conditions = Condition.stack([empty, *(guide.condition for guide in acting)], len(x))
        looks = Looks(
            [guide.columns for guide in acting if guide.columns is not None], math.inf if words is None else words.most
        )
        changes = (
            nullcontext() if words is None else changed(words.network, Changes(dict.fromkeys(words.layers, looks)))
        )
        with changes:
            x0, eps = denoiser(x.repeat(1 + len(acting), 1, 1, 1), a, conditions)
        rows = [Prediction(*each) for each in zip(x0.chunk(1 + len(acting)), eps.chunk(1 + len(acting)), strict=True)]
        nothing, change = rows[0], [torch.zeros_like(x), torch.zeros_like(x)]
        attention = [None] * len(acting) if words is None else looks.maps(x.shape[2:]).chunk(len(acting))
        for guide, there, attended in zip(acting, rows[1:], attention, strict=True):
            difference = [u - v for u, v in zip(there, nothing, strict=True)]
            weights = guide.weights(difference[0], attended)  # noises differ by a factor from clean data
            change = [u + weights * v for u, v in zip(change, difference, strict=True)]
        return Prediction(*(u + v for u, v in zip(here, change, strict=True)))

    return field


class Looks:
    """The attention to the words of concepts during a call, whose first rows are those of the empty prompt: sums over
    the layers of at most ``most`` positions, by their number of these. ``columns`` has (batch, tokens) of each
    concept."""

    def __init__(self, columns: Sequence[Tensor], most: float) -> None:
        self.columns, self.most, self.sums = columns, most, dict[int, Tensor]()

    def __call__(self, call: Attended) -> Tensor:
        if call.positions > self.most:
            return call.fused()
        maps = call.maps()
        columns = torch.cat(list(self.columns)).to(maps.device)
        text = maps[-len(columns) :, ..., : call.text].float()
        text = text / text.sum(-1, keepdim=True).clamp_min(1e-9)  # beside added keys it has a part of the softmax
        heat = (text * columns[:, None, None]).sum(-1).mean(1)
        self.sums[call.positions] = self.sums.get(call.positions, 0) + heat
        return call.weighted(maps)

    def maps(self, size: Sequence[int]) -> Tensor:
        """The attention (concepts * batch, 1, h', w') in the layers of about 16 x 16 positions, of states of a size (h,
        w)."""
        if not self.sums:
            return torch.ones(sum(map(len, self.columns)), 1, 1, 1)
        positions = min(self.sums, key=lambda count: abs(count - BLENDED))
        height = round(math.sqrt(positions * size[0] / size[1]))
        return self.sums[positions].reshape(-1, 1, height, positions // height)


def largest(heat: Tensor, threshold: float) -> Tensor:
    """The mask, 1 at the largest ``1 - threshold`` of each picture's values (batch, 1, h, w)."""
    values = heat.flatten(1).sort(1).values
    least = values[:, math.ceil(threshold * (values.shape[1] - 1))]
    return (heat >= least.reshape(-1, 1, 1, 1)).to(heat)


def smoothed(heat: Tensor) -> Tensor:
    """Values (batch, 1, h, w) under a Gaussian of half a position, over 3 x 3 positions, as public code smooths
    attention."""
    line = torch.tensor([math.exp(-2), 1.0, math.exp(-2)]).to(heat)
    kernel = torch.outer(line, line) / line.sum() ** 2
    return F.conv2d(F.pad(heat, (1, 1, 1, 1), mode="replicate"), kernel[None, None])

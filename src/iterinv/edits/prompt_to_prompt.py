"""Prompt-to-Prompt (Hertz, Mokady, Tenenbaum, Aberman, Pritch, Cohen-Or, 2022), https://arxiv.org/abs/2208.01626

The words of the target prompt look where those of the source prompt look in the inverted states, so that the layout of
the picture stays.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.edits.attention import AttentionEditor, Run, with_source_row
from iterinv.edits.site import Running, Site, edit_rows
from iterinv.levels import Field, Grid, State
from iterinv.models import Stage
from iterinv.models.attention import Attended, Changes, Layer
from iterinv.models.tokens import Tokens
from iterinv.steps import Step, Wrapped
from iterinv.typed import Share, checked

LARGEST = 32**2
"""The most positions of a layer whose self-attention is replaced, as in the authors' code: finer maps hold texture. It
is for squares (:func:`most_positions`)."""

BLENDED = 16**2
"""The positions of the layers whose maps make the blend's mask, 16 x 16 in the paper; the nearest that there are."""


@dataclass(frozen=True)
class PromptToPrompt(AttentionEditor):
    """Edit by words: those of the target prompt look where those of the source prompt do (attention maps).

    For the first ``cross_share`` of the steps the target row has the source row's cross-attention maps, and for the
    first ``self_share`` its self-attention maps (algorithm 1 of the paper).

    ``mode`` is ``replace``, for prompts of as many tokens, which gives each token the map of that in its place;
    ``refine``, which gives the tokens that both prompts share the maps they have in the source; or ``None`` for the
    first where it can be, else the second. ``reweight`` multiplies the maps of words of the target prompt by numbers
    while cross-attention is replaced.

    ``local_blend`` keeps the inverted state, from a share ``blend_start`` of the steps on, where the maps of the words
    that change, or of ``blend_words``, summed over the steps so far, are below ``blend_threshold`` times their largest
    value in both rows. The words are looked up in both prompts. The mask of the last step is the edit's.

    In attention with added keys (IF) the maps of text and image are columns of one softmax. The text's columns are
    replaced with the weight that the source row gives the text as a whole; the image's, its own or the source row's,
    are scaled to the weight that is left, so that all sum to 1 and the values keep their size. Where tokens of two
    prompts together have more than 1, they are scaled to 1. Reweighting comes after that and is not evened out, as in
    plain attention: it adds to what a word says and takes nothing from others. IF's networks also read the pooled text
    beside attention, which stays the target's.

    Each picture of a batch is edited by itself, since its words have their own places. Raises ``ValueError``, before
    any network call, for prompts that cannot be replaced, and for words that are not there.
    """

    cross_share: Share = 0.8
    self_share: Share = 0.4
    mode: str | None = None
    reweight: Mapping[str, float] = dataclasses.field(default_factory=dict)
    local_blend: bool = False
    blend_words: tuple[str, ...] = ()
    blend_threshold: Share = 0.3
    blend_start: Share = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in (None, "replace", "refine"):
            raise ValueError(f"mode is {self.mode!r}; it is 'replace', 'refine' or None")
        for word, weight in self.reweight.items():
            checked(word, str, "a word of reweight")
            checked(weight, float, f"the weight of {word!r} in reweight")

    def edit(self, site: Site, network: Any, layers: Sequence[Layer]) -> Running:
        self.check_layers(site, [layer for layer in layers if layer.text], "cross-attention")
        words = [self.words(site, *pair) for pair in zip(site.source_prompts, site.target_prompts, strict=True)]
        remaining = iter(words)

        def alone(row: Site, mask: Tensor | None) -> Running:
            return self._edit(row, mask, network, layers, next(remaining))

        return (yield from edit_rows(site, site.region(self.region), alone))

    def _edit(self, site: Site, mask: Tensor | None, network: Any, layers: Sequence[Layer], words: Words) -> Running:
        run = Run.of(site, self.strength)
        maps = Maps(words, site.stage.shape[1:])
        cross, own = run.first(self.cross_share), run.first(self.self_share)
        most = most_positions(site.stage)

        def changes(i: int) -> Changes | None:
            chosen = [
                layer
                for layer in layers
                if (layer.text and (i in cross or self.local_blend)) or (layer.image and i in own)
            ]
            control = Injected(words, maps if self.local_blend else None, i in cross, i in own, most)
            return Changes(dict.fromkeys(chosen, control)) if chosen else None

        def wrap(rule: Step) -> Step:
            if not self.local_blend:
                return rule
            first = min(round(self.blend_start * run.steps), run.steps - 1)  # the last step blends at least
            return LocalBlend(rule, maps, site.path, self.blend_threshold, run.start + first)

        beside = with_source_row(site, network, changes)
        state = yield from beside.follow_path(self.rule, self.strength, beside.towards(self.guidance), mask, wrap=wrap)
        if self.local_blend:
            blend = maps.mask(self.blend_threshold).to(state[0])
            mask = blend if mask is None else mask * blend
        return site.result(state, mask, **self.report(site), mode=words.mode)

    def words(self, site: Site, source: str, target: str) -> Words:
        """The places of the words of two prompts. Raises ``ValueError`` for words and prompts that do not fit."""
        tokenize = site.stage.tokens
        if tokenize is None:
            raise ValueError(
                f"stage {site.stage.name} does not say which tokens its words are, which Prompt-to-Prompt needs: take "
                "plug-and-play or masactrl"
            )
        old, new = tokenize(source), tokenize(target)
        shared, equal = old.common(new), old.length == new.length
        if self.mode == "replace" and not equal:
            raise ValueError(
                f"the prompts have {old.length} and {new.length} tokens, and replace takes as many of both: take "
                "mode='refine', or None"
            )
        mode = self.mode or ("replace" if equal else "refine")
        pairs = [(k, k) for k in range(len(new.ids))] if mode == "replace" else shared
        weights = torch.ones(len(new.ids))
        for word, weight in self.reweight.items():
            weights[places_of(word, new)] *= weight
        changes = [
            [k for k, (start, end) in enumerate(tokens.spans) if end > start and k not in kept]
            for tokens, kept in ((old, {a for a, _ in shared}), (new, {b for _, b in shared}))
        ]
        if self.blend_words:
            for word in self.blend_words:
                places_of(word, old, new)
            changes = [sorted({k for word in self.blend_words for k in tokens.of(word)}) for tokens in (old, new)]
        return Words(mode, tuple(pairs), weights, (tuple(changes[0]), tuple(changes[1])))


def most_positions(stage: Stage) -> float:
    """:data:`LARGEST` at a stage's rectangle: the same layers as at its square."""
    height, width = stage.extent
    return LARGEST * height * width / stage.size**2


def places_of(word: str, *prompts: Tokens) -> list[int]:
    """The tokens of a word in the first of some prompts that has it. Raises ``ValueError``, listing the words that
    there are, for one that is in none."""
    places = next((places for tokens in prompts if (places := tokens.of(word))), None)
    if places is None:
        words = dict.fromkeys(word for tokens in prompts for word in tokens.words)
        raise ValueError(f"there is no word {word!r} in the prompt: its words are {', '.join(words)}")
    return places


@dataclass(frozen=True, eq=False)
class Words:
    """The words of a source and a target prompt: ``pairs`` of tokens of which the second has the map of the first, the
    ``weights`` (tokens,) of the target's maps, and the tokens of each that ``changed``."""

    mode: str
    pairs: tuple[tuple[int, int], ...]
    weights: Tensor
    changed: tuple[tuple[int, ...], tuple[int, ...]]

    def replaced(self, target: Tensor, source: Tensor) -> Tensor:
        """The maps (..., tokens) of the target prompt with those of the source prompt where they are paired."""
        old, new = ([pair[k] for pair in self.pairs] for k in (0, 1))
        maps = target.clone()
        maps[..., new] = source[..., old]
        return maps


class Maps:
    """The maps of the words that change, summed over calls and layers, by the number of positions of a layer: a row of
    the source and one of the target, for states of a ``size`` (h, w)."""

    def __init__(self, words: Words, size: tuple[int, ...]) -> None:
        self.words, self.size = words, size
        self.sums: dict[int, Tensor] = {}

    def add(self, source: Tensor, target: Tensor) -> None:
        """Add the maps (heads, positions, tokens) of a layer, for the text alone."""
        rows = [
            x[..., list(tokens)].float().sum(-1).mean(0)
            for x, tokens in zip((source, target), self.words.changed, strict=True)
        ]
        self.sums[source.shape[1]] = self.sums.get(source.shape[1], 0) + torch.stack(rows)

    def mask(self, threshold: float) -> Tensor:
        """The mask (1, 1, h, w): 1 where either map, the largest of 3 x 3 positions each, is more than ``threshold`` of
        its largest value."""
        h, w = self.size
        if not self.sums:
            return torch.ones(1, 1, h, w)
        positions = min(self.sums, key=lambda count: abs(count - BLENDED))
        height = round(math.sqrt(positions * h / w))
        heat = self.sums[positions].reshape(2, 1, height, positions // height)
        heat = F.interpolate(F.max_pool2d(heat, 3, stride=1, padding=1), self.size)
        return (heat > threshold * heat.amax((2, 3), keepdim=True)).float().amax(0, keepdim=True)


@dataclass(frozen=True, eq=False)
class LocalBlend(Wrapped):
    """A rule that restores the inverted state outside the words that change after each step, from ``grid[start]``
    on."""

    maps: Maps
    path: Sequence[Tensor]
    threshold: float
    start: int

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        new, *rest = self.rule.step(field, state, grid, i)
        if i < self.start:
            return (new, *rest)
        return (torch.where(self.maps.mask(self.threshold).to(new) > 0, new, self.path[i + 1].to(new)), *rest)


@dataclass(frozen=True, eq=False)
class Injected:
    """Attention in which the last row, of the target prompt, has maps of the first, which is the source row.

    ``most`` is the number of positions up to which self-attention is replaced and the maps are summed.
    """

    words: Words
    maps: Maps | None
    cross: bool
    itself: bool
    most: float = LARGEST

    def __call__(self, call: Attended) -> Tensor:
        itself = self.itself and call.layer.image and call.positions <= self.most
        if not call.text:  # the source row's queries and keys make its maps
            same = [torch.cat([x[:-1], x[:1]]) for x in (call.query, call.key)]
            return call.fused(*same) if itself else call.fused()
        maps, text = call.maps(), call.text
        words = maps[-1, ..., :text]
        if self.cross:
            words = self.words.replaced(words, maps[0, ..., :text])
        image = maps[0 if itself else -1, ..., text:]
        if call.layer.image:
            total = words.sum(-1, keepdim=True)
            words = words / total.clamp_min(1)
            image = image * ((1 - total).clamp_min(0) / image.sum(-1, keepdim=True).clamp_min(1e-9))
        if self.maps is not None and call.positions <= self.most:
            pair = (maps[0, ..., :text], words)
            self.maps.add(*(x / x.sum(-1, keepdim=True).clamp_min(1e-9) for x in pair))
        if self.cross:
            words = words * self.words.weights.to(words)
        return call.weighted(torch.cat([maps[:-1], torch.cat([words, image], -1)[None]]))

"""pix2pix-zero (Parmar, Singh, Zhang, Li, Lu, Zhu, 2023), https://arxiv.org/abs/2302.03027

Before each step the sample is moved so that its cross-attention maps come nearer to those of the source row: what the
prompt does not change stays in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iterinv.conditions import Condition
from iterinv.edits.attention import AttentionEditor
from iterinv.edits.site import Running, Site
from iterinv.levels import Field, Grid, State
from iterinv.models.attention import Attended, Changes, Layer, changed
from iterinv.steps import Step, Wrapped
from iterinv.typed import Positive


@dataclass(frozen=True)
class Pix2PixZero(AttentionEditor):
    """Keep the layout by moving the sample towards the cross-attention maps of the picture before each step.

    Each level runs under the target prompt after one step of gradient descent on ``|M - M_source|^2`` at the
    rate ``cross_attention_guidance`` (cross-attention guidance, in the paper); 0 for none.

    ``M`` are the cross-attention maps of the sample under the target prompt, and ``M_source`` those of the inverted
    state under the source prompt; the squares are summed over positions and tokens, averaged over heads and summed over
    layers. In attention with added keys (IF) they are the columns of the text. The paper's direction between mean
    embeddings of many sentences is that of the two prompts here. Public code optimises the guided batch and keeps the
    half without a prompt; here the sample itself is moved, by the maps of the target prompt.

    Each level costs a source row and a target row forward, that one backward, and then the call of PromptSwap. Raises
    ``ValueError`` for a network without cross-attention.
    """

    guidance: float = 5.0
    cross_attention_guidance: Positive = 0.1

    def edit(self, site: Site, network: Any, layers: Sequence[Layer]) -> Running:
        words = [layer for layer in layers if layer.text]
        self.check_layers(site, words, "cross-attention")
        mask = site.region(self.region)

        def wrap(rule: Step) -> Step:
            rate = self.cross_attention_guidance
            return KeepMaps(rule, site, network, words, rate) if rate else rule

        state = yield from site.follow_path(self.rule, self.strength, site.towards(self.guidance), mask, wrap=wrap)
        return site.result(state, mask, **self.report(site))


@dataclass(frozen=True, eq=False)
class KeepMaps(Wrapped):
    """A rule that moves the sample towards the cross-attention of the inverted state before each step."""

    site: Site
    network: Any
    layers: Sequence[Layer]
    rate: float

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        x, *rest = state
        return self.rule.step(field, (x - self.rate * self.gradient(x, i), *rest), grid, i)

    def gradient(self, x: Tensor, i: int) -> Tensor:
        """The gradient of the squared distance of the maps of ``x`` (batch, channels, h, w) at ``grid[i]``."""
        wanted = self.maps(self.site.path[i].to(x), i, self.site.inversion.condition)
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            pairs = zip(self.maps(z, i, self.site.target), wanted, strict=True)
            distance = torch.stack([(a - b).square().sum((2, 3)).mean(1).sum() for a, b in pairs]).sum()
            (gradient,) = torch.autograd.grad(distance, z)
        return gradient

    def maps(self, x: Tensor, i: int, condition: Condition) -> list[Tensor]:
        """The cross-attention maps (batch, heads, positions, tokens) of each layer for ``x`` at ``grid[i]``."""
        maps: list[Tensor] = []

        def record(call: Attended) -> Tensor:
            own = call.maps()
            maps.append(own[..., : call.text].float())
            return call.weighted(own)

        with changed(self.network, Changes(dict.fromkeys(self.layers, record))):
            self.site.stage.denoiser(x, self.site.grid[i], condition.expand(len(x)))
        return maps

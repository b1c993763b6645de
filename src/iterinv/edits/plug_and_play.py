"""Plug-and-Play diffusion features (Tumanyan, Geyer, Bagon, Dekel, 2023), https://arxiv.org/abs/2211.12572

The layout of the source row is put into the edit: the features of one block of the decoder, and the queries and keys of
its self-attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from iterinv.edits.attention import AttentionEditor, Run
from iterinv.edits.masactrl import image_of_source
from iterinv.edits.site import Running, Site
from iterinv.models.attention import Attended, Changes, Layer
from iterinv.typed import Share


@dataclass(frozen=True)
class PlugAndPlay(AttentionEditor):
    """Keep the layout by the features and the self-attention of the picture, and draw the rest anew.

    For the first ``tau_f`` of the steps the features, and for the first ``tau_A`` the self-attention, of all rows are
    those of the source row (feature injection, in the paper).

    The self-attention is that of the decoder but for its first transformer, which are layers 4 to 11 of Stable
    Diffusion; the features are the residual branch of the residual block before the second transformer, which is layer
    4. The queries and keys of the source row make its maps, by which each row weighs its own values. In attention with
    added keys (IF) they are the queries and the image's keys, while the text's keys are each row's own, so that the
    softmax shares its weight anew between text and image. Raises ``ValueError`` for a network whose decoder has no
    self-attention.
    """

    tau_f: Share = 0.8
    tau_A: Share = 0.5

    def edit(self, site: Site, network: Any, layers: Sequence[Layer]) -> Running:
        decoder = [layer for layer in layers if layer.part == "up_blocks" and layer.image]
        self.check_layers(site, decoder, "decoder's self-attention")
        blocks = list(dict.fromkeys(layer.block for layer in decoder))
        chosen = [layer for layer in decoder if layer.block in (blocks[1:] or blocks)]
        run = Run.of(site, self.strength)
        inject = Layout(run)

        def changes(i: int) -> Changes | None:
            attention = dict.fromkeys(chosen, inject) if i in run.first(self.tau_A) else {}
            features = {chosen[0].features: run.sources} if i in run.first(self.tau_f) else {}
            return Changes(attention, features) if attention or features else None

        return (yield from self.inject(site, network, changes))


@dataclass(frozen=True)
class Layout:
    """Attention by the queries and the image's keys of the source row."""

    run: Run

    def __call__(self, call: Attended) -> Tensor:
        return call.fused(self.run.sources(call.query), image_of_source(call.key, call.text, self.run))

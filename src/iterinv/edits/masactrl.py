"""MasaCtrl (Cao, Wang, Qi, Shan, Qie, Zheng, 2023), https://arxiv.org/abs/2304.08465

The target prompt draws another pose or shape, and takes its look from the picture: its positions attend to those of the
source row (mutual self-attention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iterinv.edits.attention import AttentionEditor, Run
from iterinv.edits.site import Running, Site
from iterinv.models.attention import Attended, Changes, Layer
from iterinv.typed import Natural

STEP, LAYER = 4 / 50, 10 / 16
"""The paper's first step and first layer, as shares of 50 steps and of the 16 layers of Stable Diffusion 1. Of SDXL's
70 layers that is number 44, the first that the authors try there."""


@dataclass(frozen=True)
class MasaCtrl(AttentionEditor):
    """Change pose or shape, and keep the look: positions attend to the keys and values of the picture.

    From ``start_step`` and from the self-attention layer ``start_layer`` on, the queries of all rows attend to the
    keys and values of the source row; before, the target prompt lays out the picture by itself.

    Steps of the edit and layers are counted from 0, layers in the order in which the network runs them. Without a
    number the paper's, 4 of 50 steps and 10 of 16 layers, are translated to the run and the network. In attention with
    added keys (IF) the source row gives the keys and values of the image, and each row those of its own text, in one
    softmax. The paper's masks, from cross-attention, are not made: give a ``region``. Raises ``ValueError`` for a
    network without self-attention.
    """

    start_step: Natural | None = None
    start_layer: Natural | None = None

    def edit(self, site: Site, network: Any, layers: Sequence[Layer]) -> Running:
        own = [layer for layer in layers if layer.image]
        self.check_layers(site, own, "self-attention")
        run = Run.of(site, self.strength)
        step = round(STEP * run.steps) if self.start_step is None else self.start_step
        layer = round(LAYER * len(own)) if self.start_layer is None else self.start_layer
        changes = Changes(dict.fromkeys(own[layer:], Mutual(run)))
        return (
            yield from self.inject(site, network, lambda i: changes if i >= run.start + step and own[layer:] else None)
        )


@dataclass(frozen=True)
class Mutual:
    """Attention of all rows to the image of the source row, and to their own text where there is text."""

    run: Run

    def __call__(self, call: Attended) -> Tensor:
        key, value = (image_of_source(x, call.text, self.run) for x in (call.key, call.value))
        return call.fused(key=key, value=value)


def image_of_source(x: Tensor, text: int, run: Run) -> Tensor:
    """Keys or values (rows, heads, keys, width) with those of the image from the source row; the first ``text`` of them
    are each row's own."""
    return torch.cat([x[:, :, :text], run.sources(x[:, :, text:])], 2)

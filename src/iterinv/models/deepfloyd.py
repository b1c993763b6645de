"""DeepFloyd-IF and its kind: pixel stages in the folders that diffusers' ``IFPipeline`` and
``IFSuperResolutionPipeline`` save and load. The embedded cascade is three such folders.

The networks predict noise and, in three more channels, a variance that deterministic rules do not use. A super-resolution
network sees the noised, enlarged low-resolution picture as three more input channels and its noise level as class label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from iterinv.levels import Level
from iterinv.models import Low


class IFDenoiser:
    """A ``UNet2DConditionModel`` of IF's form as a :class:`iterinv.models.Denoiser`, whatever the network's dtype."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def __call__(self, x: Tensor, level: Level, text: Tensor, low: Low | None) -> Tensor:
        dtype = self.unet.dtype
        sample, labels = x.to(dtype), None
        if low is not None:
            sample = torch.cat([sample, low.noised(x.shape[-2:]).to(dtype)], 1)
            labels = torch.full((len(x),), int(low.level.t), device=x.device)
        t = torch.full((len(x),), level.t, device=x.device)
        out = self.unet(sample, t, encoder_hidden_states=text.to(dtype), class_labels=labels).sample
        return out[:, : x.shape[1]].to(x.dtype)


def embedder(tokenizer: Any, encoder: Any) -> Callable[[list[str]], Tensor]:
    """Prompts to (batch, tokens, width), as IF's pipelines make them: lower case, stripped, padded to the full length."""

    @torch.no_grad()
    def embed(prompts: list[str]) -> Tensor:
        words = [prompt.lower().strip() for prompt in prompts]
        tokens = tokenizer(
            words, padding="max_length", max_length=77, truncation=True, add_special_tokens=True, return_tensors="pt"
        ).to(encoder.device)
        return encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]

    return embed

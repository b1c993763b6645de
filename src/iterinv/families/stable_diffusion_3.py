"""Stable Diffusion 3 and 3.5 are flows on latents; two CLIP encoders and, where it is there, T5 read the words.

Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024),
https://arxiv.org/abs/2403.03206
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.conditions import Condition
from iterinv.families.family import Family
from iterinv.levels import Level
from iterinv.models import Embed
from iterinv.models.blueprint import CLIP_G, CLIP_L, VAE_16, Blueprint, t5_xxl, transformer
from iterinv.models.pipelines import checked_transformer, whose
from iterinv.models.text import tokens_of
from iterinv.models.transformer import TransformerDenoiser
from iterinv.schedules import FLOW, flow_from_config

T5_TOKENS = 256
"""The tokens that T5 reads, as in diffusers' pipeline."""


class SD3Denoiser(TransformerDenoiser):
    """A ``SD3Transformer2DModel``: it takes the text, the pooled text and the timestep."""

    @property
    def unit(self) -> int:
        """The number that the height and width of states are multiples of."""
        return int(self.transformer.config.patch_size)

    def flow(self, x: Tensor, level: Level, condition: Condition) -> Tensor:
        flow: Tensor = self.transformer(
            hidden_states=x,
            timestep=torch.full((len(x),), level.t, dtype=torch.float32, device=x.device),
            encoder_hidden_states=condition["text"].to(x.dtype),
            pooled_projections=condition["pooled_text"].to(x.dtype),
        ).sample
        return flow


def denoiser(pipe: Any, channels: int, low_level: Level | None) -> SD3Denoiser:
    """Check a pipeline's transformer. Raises ``ValueError`` for one that cannot be called as its pipeline calls it."""
    from diffusers import SD3Transformer2DModel

    return SD3Denoiser(checked_transformer(pipe, SD3Transformer2DModel, channels))


def embed(pipe: Any, size: int, device: str, clean: bool) -> Embed:
    """Read prompts as the last hidden states but one of two CLIP encoders side by side, padded with zeros to T5's
    width, and T5's after them; the pooled text is that of both CLIP encoders.

    The states of a missing T5 are zeros, and a missing negative prompt is the empty one, as in diffusers' pipeline.
    Raises ``ValueError`` where an encoder of CLIP is not there, or a T5 without its tokenizer.
    """
    tokenizers, encoders = (pipe.tokenizer, pipe.tokenizer_2), (pipe.text_encoder, pipe.text_encoder_2)
    if None in tokenizers or None in encoders:
        raise ValueError(
            f"{whose(pipe)} lacks one of Stable Diffusion 3's two CLIP encoders or a tokenizer of theirs: load it with "
            "both, since T5 alone can be left out"
        )
    t5 = pipe.text_encoder_3
    if t5 is not None and pipe.tokenizer_3 is None:
        raise ValueError(f"{whose(pipe)} has a T5 encoder (text_encoder_3) and no tokenizer_3: load it with both")
    width = pipe.transformer.config.joint_attention_dim

    @torch.no_grad()
    def read(prompts: Sequence[str | None]) -> Condition:
        states, pooled, notes = [], [], dict[str, None]()
        for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
            length, reader = tokenizer.model_max_length, "CLIP" if t5 is not None else ""
            tokens, more = tokens_of(tokenizer, prompts, length, device, reader=reader)
            notes |= dict.fromkeys(more)
            out = encoder(tokens.input_ids, output_hidden_states=True)
            states.append(out.hidden_states[-2])
            pooled.append(out[0])
        text = torch.cat(states, -1)
        text = F.pad(text, (0, width - text.shape[-1]))
        if t5 is None:
            long = text.new_zeros(len(prompts), T5_TOKENS, width)
        else:
            tokens, more = tokens_of(pipe.tokenizer_3, prompts, T5_TOKENS, device, reader="T5")
            notes |= dict.fromkeys(more)
            long = t5(tokens.input_ids)[0]
        return Condition({"text": torch.cat([text, long], 1), "pooled_text": torch.cat(pooled, -1)}, tuple(notes))

    return read


def inputs(config: Any, rows: int, side: int, dtype: torch.dtype) -> dict[str, Any]:
    """Make examples of the transformer's inputs, by the names of its arguments."""
    return {
        "hidden_states": torch.empty(rows, config.in_channels, side, side, dtype=dtype),
        "timestep": torch.zeros(rows),
        "encoder_hidden_states": torch.empty(rows, 77 + T5_TOKENS, config.joint_attention_dim, dtype=dtype),
        "pooled_projections": torch.empty(rows, config.pooled_projection_dim, dtype=dtype),
    }


MEDIUM = partial(
    transformer,
    "SD3Transformer2DModel",
    num_layers=24,
    num_attention_heads=24,
    caption_projection_dim=1536,
    pos_embed_max_size=384,
    dual_attention_layers=tuple(range(13)),
    qk_norm="rms_norm",
)
STABLE_DIFFUSION_3 = Family(
    pipelines=("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline"),
    embed=embed,
    shifts=True,
    network="transformer",
    denoiser=denoiser,
    schedule=partial(flow_from_config, to_lowest=True),
    inputs=inputs,
    published={
        "stabilityai/stable-diffusion-3.5-medium": Blueprint(
            MEDIUM, (CLIP_L, CLIP_G, t5_xxl), {"_class_name": FLOW, "shift": 3.0}, VAE_16
        )
    },
)

"""Stable Diffusion XL works on latents; two encoders read the words, and the network also receives their sum and the
picture's size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from iterinv.conditions import Condition
from iterinv.families.family import Family, plain_inputs
from iterinv.models import Embed
from iterinv.models.blueprint import BETAS, CLIP_G, CLIP_L, CROSS, LATENT, PLAIN, VAE, Blueprint, network
from iterinv.models.pipelines import unet, whose
from iterinv.models.text import tokens_of


def embed(pipe: Any, size: int, device: str, clean: bool) -> Embed:
    """Read prompts as the last hidden states but one of two encoders side by side, and the second's pooled text.

    ``time_ids`` tell the network that the picture is whole: ``size`` px, cut nowhere. A missing negative prompt is all
    zeros where the pipeline says so (``force_zeros_for_empty_prompt``). Raises ``ValueError`` where one of the encoders
    is not there.
    """
    tokenizers, encoders = (pipe.tokenizer, pipe.tokenizer_2), (pipe.text_encoder, pipe.text_encoder_2)
    if None in tokenizers or None in encoders:
        raise ValueError(f"{whose(pipe)} lacks one of SDXL's two text encoders: the refiner inverts nothing by itself")
    if pipe.config.get("requires_aesthetics_score"):
        raise ValueError(f"{whose(pipe)} takes an aesthetics score, as SDXL's refiner does: take the base model")
    zeros = pipe.config.force_zeros_for_empty_prompt

    @torch.no_grad()
    def read(prompts: Sequence[str | None]) -> Condition:
        states, pooled, notes = [], torch.empty(0, device="cpu"), dict[str, None]()
        for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
            tokens, more = tokens_of(tokenizer, prompts, tokenizer.model_max_length, device, pipe)
            notes |= dict.fromkeys(more)
            out = encoder(tokens.input_ids, output_hidden_states=True)
            states.append(out.hidden_states[-2])
            pooled = out[0]
        text = torch.cat(states, -1)
        said = torch.tensor([prompt is not None or not zeros for prompt in prompts], device=text.device)
        whole = torch.tensor([[size, size, 0, 0, size, size]], dtype=text.dtype, device=text.device)
        text, pooled = torch.where(said[:, None, None], text, 0.0), torch.where(said[:, None], pooled, 0.0)
        entries = {"text": text, "pooled_text": pooled, "time_ids": whole.expand(len(prompts), -1)}
        return Condition(entries, tuple(notes))

    return read


def inputs(config: Any, rows: int, side: int, dtype: torch.dtype) -> dict[str, Any]:
    """Add the pooled text (rows, width) and the time ids (rows, 6) to the inputs of any family."""
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    added = {"text_embeds": torch.empty(rows, pooled, dtype=dtype), "time_ids": torch.empty(rows, 6, dtype=dtype)}
    return {**plain_inputs(config, rows, side, dtype), "added_cond_kwargs": added}


UNET = partial(
    network,
    [PLAIN, CROSS, CROSS],
    **LATENT,
    sample_size=128,
    block_out_channels=[320, 640, 1280],
    cross_attention_dim=2048,
    attention_head_dim=[5, 10, 20],
    use_linear_projection=True,
    transformer_layers_per_block=[1, 2, 10],
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)
SDXL = Family(
    pipelines=("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
    embed=embed,
    denoiser=partial(unet, added={"text_embeds": "pooled_text", "time_ids": "time_ids"}),
    inputs=inputs,
    published={"stabilityai/stable-diffusion-xl-base-1.0": Blueprint(UNET, (CLIP_L, CLIP_G), BETAS, VAE)},
)

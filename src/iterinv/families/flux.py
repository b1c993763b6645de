"""FLUX.1 is a flow on latents; CLIP reads the words as a whole and T5 one by one.

FLUX.1 Kontext: Flow Matching for In-Context Image Generation and Editing in Latent Space (Black Forest Labs, 2025),
https://arxiv.org/abs/2506.15742, describes the network.
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
from iterinv.models.blueprint import CLIP_L, VAE_16, Blueprint, t5_xxl, transformer
from iterinv.models.pipelines import checked_transformer, whose
from iterinv.models.text import tokenize, tokens_of
from iterinv.models.tokens import Tokenize
from iterinv.models.transformer import TransformerDenoiser
from iterinv.schedules import FLOW, flow_from_config

T5_TOKENS = 512
"""The tokens that T5 reads, as in diffusers' pipeline."""


class FluxDenoiser(TransformerDenoiser):
    """A ``FluxTransformer2DModel``: an image token is a patch of 2 x 2 values of all channels, at its row and column.

    FLUX.1-dev is distilled from a guided model and takes a guidance scale as an input, the entry ``guidance`` (rows,)
    of a condition: it costs no further network call, and 1 asks for a picture without guidance. Classifier-free
    guidance (a plan's ``guidance``) is another thing, which contrasts the predictions for two prompts and may be used
    besides, as diffusers' ``true_cfg_scale``. FLUX.1-schnell takes no guidance scale.
    """

    @property
    def distilled(self) -> bool:
        """Tell whether the network takes a guidance scale as an input."""
        return bool(self.transformer.config.guidance_embeds)

    def flow(self, x: Tensor, level: Level, condition: Condition) -> Tensor:
        rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
        text = condition["text"].to(x.dtype)
        out: Tensor = self.transformer(
            hidden_states=F.pixel_unshuffle(x, 2).flatten(2).mT,
            timestep=torch.full((len(x),), level.t / 1000, dtype=torch.float32, device=x.device),
            guidance=condition["guidance"] if self.distilled else None,
            encoder_hidden_states=text,
            pooled_projections=condition["pooled_text"].to(x.dtype),
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device),
            img_ids=positions(rows, columns, x.device),
        ).sample
        return F.pixel_shuffle(out.mT.unflatten(2, (rows, columns)), 2)


def positions(rows: int, columns: int, device: torch.device | str) -> Tensor:
    """The positions (tokens, 3) of image tokens, row by row: 0, the row and the column."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in (1, rows, columns)]
    return torch.cartesian_prod(*axes)


def denoiser(pipe: Any, channels: int, low_level: Level | None) -> FluxDenoiser:
    """Check a pipeline's transformer. Raises ``ValueError`` for one that cannot be called as its pipeline calls it."""
    from diffusers import FluxTransformer2DModel

    return FluxDenoiser(checked_transformer(pipe, FluxTransformer2DModel, 4 * channels))


def embed(pipe: Any, size: int, device: str, clean: bool) -> Embed:
    """Read prompts as T5's last hidden states, and CLIP's pooled text; a missing negative prompt is the empty one.

    Raises ``ValueError`` where one of the encoders is not there.
    """
    if None in (pipe.tokenizer, pipe.tokenizer_2, pipe.text_encoder, pipe.text_encoder_2):
        raise ValueError(f"{whose(pipe)} lacks one of FLUX's two text encoders or a tokenizer: load it with all parts")

    @torch.no_grad()
    def read(prompts: Sequence[str | None]) -> Condition:
        short, cut = tokens_of(pipe.tokenizer, prompts, pipe.tokenizer.model_max_length, device, pipe, "CLIP")
        long, more = tokens_of(pipe.tokenizer_2, prompts, T5_TOKENS, device, pipe, "T5")
        text, pooled = pipe.text_encoder_2(long.input_ids)[0], pipe.text_encoder(short.input_ids).pooler_output
        return Condition({"text": text, "pooled_text": pooled}, tuple(dict.fromkeys([*cut, *more])))

    return read


def tokens(pipe: Any, clean: bool) -> Tokenize:
    """Read the tokens of prompts as T5 does, which :func:`embed` has checked to be there."""
    return tokenize(pipe.tokenizer_2, T5_TOKENS, str)


def inputs(config: Any, rows: int, side: int, dtype: torch.dtype) -> dict[str, Any]:
    """Make examples of the transformer's inputs, by the names of its arguments."""
    return {
        "hidden_states": torch.empty(rows, (side // 2) ** 2, config.in_channels, dtype=dtype),
        "timestep": torch.zeros(rows),
        "guidance": torch.zeros(rows) if config.guidance_embeds else None,
        "encoder_hidden_states": torch.empty(rows, T5_TOKENS, config.joint_attention_dim, dtype=dtype),
        "pooled_projections": torch.empty(rows, config.pooled_projection_dim, dtype=dtype),
        "txt_ids": torch.zeros(T5_TOKENS, 3),
        "img_ids": torch.zeros((side // 2) ** 2, 3),
    }


def _published(schedule: dict[str, Any], **config: Any) -> Blueprint:
    network = partial(transformer, "FluxTransformer2DModel", **config)
    return Blueprint(network, (CLIP_L, t5_xxl), {"_class_name": FLOW, **schedule}, VAE_16)


FLUX = Family(
    pipelines=("FluxPipeline", "FluxImg2ImgPipeline"),
    embed=embed,
    tokens=tokens,
    shifts=True,
    side=128,
    network="transformer",
    denoiser=denoiser,
    schedule=flow_from_config,
    inputs=inputs,
    distilled_guidance=3.5,
    published={
        "black-forest-labs/FLUX.1-dev": _published({"use_dynamic_shifting": True}, guidance_embeds=True),
        "black-forest-labs/FLUX.1-schnell": _published({"shift": 1.0}),
    },
)

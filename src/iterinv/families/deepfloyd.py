"""DeepFloyd-IF works on pixels; T5 reads the words, for all stages at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from iterinv.families.family import Family
from iterinv.models import Embed, digest_of
from iterinv.models.blueprint import Blueprint, network, t5_xxl
from iterinv.models.checkpoints import variant_in
from iterinv.models.memory import CachedTextEncoder, Placement, signature
from iterinv.models.pipelines import settings_of, still
from iterinv.models.text import plain, t5, tokenize
from iterinv.models.tokens import Tokenize

LARGER = ("IFSuperResolutionPipeline", "IFImg2ImgSuperResolutionPipeline", "IFInpaintingSuperResolutionPipeline")
RESNET, SIMPLE = "ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"


def embed(pipe: Any, size: int, device: str, clean: bool) -> Embed | None:
    """Read prompts by a pipeline's T5; ``None`` where it holds none."""
    if pipe.text_encoder is None or pipe.tokenizer is None:
        return None
    return t5(pipe.tokenizer, pipe.text_encoder, _cleaner(pipe) if clean else None, device)


def tokens(pipe: Any, clean: bool) -> Tokenize | None:
    """Read the tokens of prompts as :func:`embed` does; ``None`` where a pipeline has no tokenizer."""
    return None if pipe.tokenizer is None else tokenize(pipe.tokenizer, 77, _cleaner(pipe) if clean else plain)


def spare(kind: str, number: int, text: bool) -> tuple[str, ...]:
    """Leave out the encoder of a later stage that enlarges, which is the first one's again, and any that is loaded
    apart."""
    if number and kind in LARGER:
        return "text_encoder", "tokenizer"
    return () if text else ("text_encoder",)


def words(
    pipe: Any,
    folder: Path,
    dtype: torch.dtype,
    place: Placement,
    clean: bool,
    use_safetensors: bool | None,
    variant: str | None,
) -> CachedTextEncoder | None:
    """Read words for a pipeline that has a tokenizer and no encoder, by the encoder in its folder."""
    if pipe.text_encoder is not None or pipe.tokenizer is None:
        return None
    encoders = folder / "text_encoder"
    if not any(encoders.glob("*")):
        return None
    cleaner = _cleaner(pipe) if clean else None

    def load() -> Any:
        from transformers import T5EncoderModel

        how = {"variant": variant_in(encoders, variant), "use_safetensors": use_safetensors, "local_files_only": True}
        return still(T5EncoderModel.from_pretrained(encoders, dtype=dtype, **how))

    def read(encoder: Any) -> Embed:
        place.put(encoder)
        return t5(pipe.tokenizer, encoder, cleaner, place.device)

    late = CachedTextEncoder(
        load,
        read,
        lambda encoder: digest_of(encoder, settings_of(encoder)),
        lambda: signature((encoders, folder / "tokenizer"), dtype, clean, variant),
        place,
    )
    place.turns.before.append(late.free)
    return late


def _cleaner(pipe: Any) -> Callable[[str], str]:
    """Clean captions as IF's ``clean_caption`` does. Raises ``ModuleNotFoundError`` without the packages that it
    needs."""
    from diffusers.utils import is_bs4_available, is_ftfy_available

    if not (is_bs4_available() and is_ftfy_available()):
        raise ModuleNotFoundError(
            "cleaning captions as DeepFloyd does needs ftfy and beautifulsoup4: pip install 'iterinv[if]'"
        )
    return lambda prompt: str(pipe._text_preprocessing(prompt, clean_caption=True)[0])


def unet(down: Sequence[str], widths: Sequence[int], **config: Any) -> Any:
    """Make a network of IF's kind."""
    return network(
        down,
        block_out_channels=widths,
        cross_attention_dim=widths[-1],
        out_channels=6,
        encoder_hid_dim=4096,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text",
        addition_embed_type_num_heads=64,
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        cross_attention_norm="group_norm",
        **{"attention_head_dim": 64, **config},
    )


# IF-I's networks follow diffusers' converter and have the parameters that DeepFloyd states for M, L and XL. IF-II's
# widths and layers are those that fit the stated counts (450 M, 1.2 B), since its folders are not open to all.
def first(width: int, **config: Any) -> Any:
    """Make IF-I's network in a width."""
    down, widths = [RESNET, SIMPLE, SIMPLE, SIMPLE], [width * k for k in (1, 2, 3, 4)]
    return unet(down, widths, sample_size=64, in_channels=3, layers_per_block=3, **config)


def second(width: int) -> Any:
    """Make IF-II's network in a width."""
    return unet(
        [RESNET, RESNET, RESNET, SIMPLE],
        [width * k for k in (1, 2, 4, 8)],
        sample_size=256,
        in_channels=6,
        layers_per_block=[2, 4, 8, 8],
        class_embed_type="timestep",
        resnet_skip_time_act=True,
        resnet_out_scale_factor=2**0.5,
        mid_block_scale_factor=2**0.5,
        only_cross_attention=True,
        time_embedding_dim=8 * width,
        time_embedding_act_fn="gelu",
    )


_NETWORKS = {
    "I-M": (first, 192),
    "I-L": (first, 320),
    "I-XL": (first, 704),
    "II-M": (second, 96),
    "II-L": (second, 160),
}
DEEPFLOYD = Family(
    pipelines=("IFPipeline", "IFImg2ImgPipeline", "IFInpaintingPipeline", *LARGER),
    embed=embed,
    tokens=tokens,
    noise_level=250,
    cleans=True,
    latent=False,
    published={
        f"DeepFloyd/IF-{name}-v1.0": Blueprint(partial(make, width), (t5_xxl,), {"beta_schedule": "squaredcos_cap_v2"})
        for name, (make, width) in _NETWORKS.items()
    },
    spare=spare,
    words=words,
)

"""A stage without its weights is a blueprint, by which it is counted, planned and timed; networks of it are random."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

PLAIN, CROSS = "DownBlock2D", "CrossAttnDownBlock2D"
LATENT = dict(in_channels=4, out_channels=4, layers_per_block=2)
BETAS = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, set_alpha_to_one=False)
"""Configurations of Stable Diffusion's kind are alike in these."""


@dataclass(frozen=True, eq=False)
class Blueprint:
    """The network, the text encoders and the autoencoder, none of a model in pixels, are made on the default device.

    ``schedule`` is the scheduler's configuration, as far as a grid depends on it.
    """

    network: Callable[[], Any]
    texts: Sequence[Callable[[], Any]]
    schedule: Mapping[str, Any]
    vae: Callable[[], Any] | None = None


def network(down: Sequence[str], **config: Any) -> Any:
    """Make a network of blocks on the way down, and of their mirror images on the way up."""
    from diffusers import UNet2DConditionModel

    up = [name.replace("Downsample", "Upsample").replace("Down", "Up") for name in reversed(down)]
    return UNet2DConditionModel(down_block_types=down, up_block_types=up, **config).eval().requires_grad_(False)


def transformer(name: str, **config: Any) -> Any:
    """Make a transformer of diffusers' class of that name."""
    import diffusers

    return getattr(diffusers, name)(**config).eval().requires_grad_(False)


def autoencoder(*widths: int, **config: Any) -> Any:
    """Make an autoencoder of those widths, of 4 latent channels unless ``config`` says otherwise."""
    from diffusers import AutoencoderKL

    return (
        AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * len(widths),
            up_block_types=["UpDecoderBlock2D"] * len(widths),
            block_out_channels=widths,
            layers_per_block=2,
            **{"latent_channels": 4, **config},
        )
        .eval()
        .requires_grad_(False)
    )


def clip_text(width: int, layers: int, heads: int, activation: str = "gelu", **config: Any) -> Any:
    """Make a CLIP text encoder."""
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = dict(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads)
    return CLIPTextModel(CLIPTextConfig(**sizes, hidden_act=activation, **config)).eval()


def t5_xxl() -> Any:
    """Make T5's encoder in the size that IF, Stable Diffusion 3 and FLUX have."""
    from transformers import T5Config, T5EncoderModel

    sizes = dict(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, vocab_size=32128)
    return T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False)).eval()


CLIP_L, CLIP_H = partial(clip_text, 768, 12, 12, "quick_gelu"), partial(clip_text, 1024, 23, 16)
CLIP_G = partial(clip_text, 1280, 32, 20, projection_dim=1280)
VAE = partial(autoencoder, 128, 256, 512, 512)
VAE_16 = partial(VAE, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False)

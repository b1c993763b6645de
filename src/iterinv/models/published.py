"""The networks of published cascades, from their configurations: to count, plan and time them without their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RESNET, SIMPLE = "ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"
PLAIN, CROSS = "DownBlock2D", "CrossAttnDownBlock2D"

_IF = dict(
    out_channels=6, mid_block_type="UNetMidBlock2DSimpleCrossAttn", attention_head_dim=64, encoder_hid_dim=4096,
    encoder_hid_dim_type="text_proj", addition_embed_type="text", addition_embed_type_num_heads=64,
    resnet_time_scale_shift="scale_shift", act_fn="gelu", cross_attention_norm="group_norm",
)  # fmt: skip
_SD = dict(in_channels=4, out_channels=4, layers_per_block=2)


def _if_1(width: int) -> dict[str, Any]:
    channels = [width * k for k in (1, 2, 3, 4)]
    blocks = _blocks([RESNET, SIMPLE, SIMPLE, SIMPLE])
    return {**_IF, **blocks, "sample_size": 64, "in_channels": 3, "block_out_channels": channels,
            "layers_per_block": 3, "cross_attention_dim": channels[-1]}  # fmt: skip


def _if_2(width: int) -> dict[str, Any]:
    channels = [width * k for k in (1, 2, 4, 8)]
    own = dict(class_embed_type="timestep", resnet_skip_time_act=True, resnet_out_scale_factor=2**0.5,
               mid_block_scale_factor=2**0.5, only_cross_attention=True, time_embedding_dim=channels[-1],
               time_embedding_act_fn="gelu")  # fmt: skip
    blocks = _blocks([RESNET, RESNET, RESNET, SIMPLE])
    return {**_IF, **own, **blocks, "sample_size": 256, "in_channels": 6, "block_out_channels": channels,
            "layers_per_block": [2, 4, 8, 8], "cross_attention_dim": channels[-1]}  # fmt: skip


def _blocks(down: Sequence[str]) -> dict[str, Any]:
    up = [name.replace("Downsample", "Upsample").replace("Down", "Up") for name in reversed(down)]
    return {"down_block_types": list(down), "up_block_types": up}


UNETS: Mapping[str, dict[str, Any]] = {
    "DeepFloyd/IF-I-M-v1.0": _if_1(192),
    "DeepFloyd/IF-I-L-v1.0": _if_1(320),
    "DeepFloyd/IF-I-XL-v1.0": _if_1(704),
    "DeepFloyd/IF-II-M-v1.0": _if_2(96),
    "DeepFloyd/IF-II-L-v1.0": _if_2(160),
    "stabilityai/stable-diffusion-x4-upscaler": {
        **_SD, **_blocks([PLAIN, CROSS, CROSS, CROSS]), "sample_size": 128, "in_channels": 7, "num_class_embeds": 1000,
        "block_out_channels": [256, 512, 512, 1024], "cross_attention_dim": 1024, "attention_head_dim": 8,
        "use_linear_projection": True, "only_cross_attention": [True, True, True, False],
    },
    "stable-diffusion-v1-5/stable-diffusion-v1-5": {
        **_SD, **_blocks([CROSS, CROSS, CROSS, PLAIN]), "sample_size": 64, "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 768, "attention_head_dim": 8,
    },
    "stabilityai/stable-diffusion-2-1": {
        **_SD, **_blocks([CROSS, CROSS, CROSS, PLAIN]), "sample_size": 96, "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True,
    },
    "stabilityai/stable-diffusion-xl-base-1.0": {
        **_SD, **_blocks([PLAIN, CROSS, CROSS]), "sample_size": 128, "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "use_linear_projection": True,
        "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
"""diffusers' configurations by name on the hub.

Those of IF-I are by its converter and fit the parameters that DeepFloyd states for M, L and XL; of IF-II the widths and layers
are those that fit the stated ones (450 M, 1.2 B), its folders not being open to all.
"""

VAES: Mapping[str, tuple[int, ...]] = {
    "stabilityai/stable-diffusion-x4-upscaler": (128, 256, 512),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (128, 256, 512, 512),
    "stabilityai/stable-diffusion-2-1": (128, 256, 512, 512),
    "stabilityai/stable-diffusion-xl-base-1.0": (128, 256, 512, 512),
}
"""Widths of their autoencoders."""

T5_XXL = dict(
    d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu", vocab_size=32128,
    tie_word_embeddings=False,
)  # fmt: skip
CLIP_L = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu")
CLIP_H = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu")
CLIP_G = dict(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    hidden_act="gelu",
    projection_dim=1280,
)
TEXTS: Mapping[str, tuple[dict[str, Any], ...]] = {
    **{name: (T5_XXL,) for name in UNETS if name.startswith("DeepFloyd")},
    "stabilityai/stable-diffusion-x4-upscaler": (CLIP_H,),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (CLIP_L,),
    "stabilityai/stable-diffusion-2-1": (CLIP_H,),
    "stabilityai/stable-diffusion-xl-base-1.0": (CLIP_L, CLIP_G),
}
"""Their text encoders' configurations."""


_BETAS = dict(beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False)
SCHEDULES: Mapping[str, dict[str, Any]] = {
    **{name: dict(_BETAS, beta_start=0.00085, beta_end=0.012) for name in UNETS},
    **{name: dict(beta_schedule="squaredcos_cap_v2") for name in UNETS if name.startswith("DeepFloyd")},
    "stabilityai/stable-diffusion-x4-upscaler": dict(_BETAS, beta_start=0.0001, beta_end=0.02),
}
"""Their schedulers' configurations, as far as a grid depends on them."""


def unet(name: str) -> Any:
    """A network of a published configuration, with random weights, on the default device. Raises ``KeyError``."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**UNETS[name]).eval().requires_grad_(False)


def vae(name: str) -> Any:
    from diffusers import AutoencoderKL

    widths = VAES[name]
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths), up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=widths, layers_per_block=2, latent_channels=4,
    ).eval().requires_grad_(False)  # fmt: skip


def text_encoders(name: str) -> list[Any]:
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    return [
        (T5EncoderModel(T5Config(**config)) if "d_model" in config else CLIPTextModel(CLIPTextConfig(**config))).eval()
        for config in TEXTS[name]
    ]

"""Stable Diffusion's x4 upscaler works on latents as large as the noised picture that it enlarges, and beside it."""

from functools import partial

from iterinv.families.family import Family
from iterinv.models.blueprint import BETAS, CLIP_H, CROSS, LATENT, PLAIN, Blueprint, autoencoder, network

X4 = partial(
    network,
    [PLAIN, CROSS, CROSS, CROSS],
    **{**LATENT, "in_channels": 7},
    sample_size=128,
    num_class_embeds=1000,
    block_out_channels=[256, 512, 512, 1024],
    cross_attention_dim=1024,
    attention_head_dim=8,
    use_linear_projection=True,
    only_cross_attention=[True, True, True, False],
)
_BETAS = {**BETAS, "beta_start": 0.0001, "beta_end": 0.02}
UPSCALER = Family(
    pipelines=("StableDiffusionUpscalePipeline",),
    noise_level=20,
    any_size=True,
    published={
        "stabilityai/stable-diffusion-x4-upscaler": Blueprint(
            X4, (CLIP_H,), _BETAS, partial(autoencoder, 128, 256, 512)
        )
    },
)

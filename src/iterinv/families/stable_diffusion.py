"""Stable Diffusion 1 and 2 work on latents; CLIP reads the words."""

from functools import partial

from iterinv.families.family import Family
from iterinv.models.blueprint import BETAS, CLIP_H, CLIP_L, CROSS, LATENT, PLAIN, VAE, Blueprint, network

_UNET = partial(network, [CROSS, CROSS, CROSS, PLAIN], **LATENT, block_out_channels=[320, 640, 1280, 1280])
SD15 = partial(_UNET, sample_size=64, cross_attention_dim=768, attention_head_dim=8)
SD21 = partial(
    _UNET, sample_size=96, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True
)
STABLE_DIFFUSION = Family(
    pipelines=("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
    published={
        "stable-diffusion-v1-5/stable-diffusion-v1-5": Blueprint(SD15, (CLIP_L,), BETAS, VAE),
        "stabilityai/stable-diffusion-2-1": Blueprint(SD21, (CLIP_H,), BETAS, VAE),
    },
)

"""These pipelines are real diffusers and transformers classes in the published form, but narrower and with random
weights.

Block types, what they predict, schedules, class labels and text encoders are those of the public folders'
configurations.
"""

from dataclasses import replace

import torch

from iterinv import families
from iterinv.cascade import Cascade

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SD_SCHEDULE = dict(
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    steps_offset=1,
    clip_sample=False,
    set_alpha_to_one=False,
)
X4_SCHEDULE = dict(SD_SCHEDULE, beta_start=0.0001, beta_end=0.02)
ATTENTION, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"


def words():
    """Make a CLIP tokenizer of single letters."""
    from transformers import CLIPTokenizer

    pieces = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    return CLIPTokenizer(
        vocab={piece: k for k, piece in enumerate(pieces)}, merges=[], model_max_length=77, pad_token="<|endoftext|>"
    )


def clip_text(width, projection=None):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=projection or width,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def vae(blocks, scaling):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        block_out_channels=[16] * blocks,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=scaling,
        sample_size=64,
    ).eval()


def unet(size, down, **other):
    from diffusers import UNet2DConditionModel

    up = [name.replace("Down", "Up") for name in reversed(down)]
    settings = dict(in_channels=4, out_channels=4, cross_attention_dim=32, attention_head_dim=2, norm_num_groups=8)
    network = UNet2DConditionModel(
        sample_size=size,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=[16, 32, 32, 32][: len(down)],
        layers_per_block=1,
        **{**settings, **other},
    )
    network.conv_out.weight.data *= 0.3  # a trained field is smoother than a random one
    return network.eval()


def schedule(prediction="epsilon", **other):
    from diffusers import DDIMScheduler

    return DDIMScheduler(prediction_type=prediction, **{**SD_SCHEDULE, **other})


ABSENT = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def sd(prediction="epsilon"):
    """Make Stable Diffusion 1.5, or 2.1 if it predicts the velocity."""
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    network = unet(8, [ATTENTION, ATTENTION, ATTENTION, PLAIN], use_linear_projection=prediction == "v_prediction")
    parts = dict(vae=vae(4, 0.18215), text_encoder=clip_text(32), tokenizer=words(), unet=network)
    return _quiet(StableDiffusionPipeline(**parts, scheduler=schedule(prediction), **ABSENT))


def sdxl():
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    torch.manual_seed(0)
    network = unet(
        8,
        [PLAIN, ATTENTION, ATTENTION],
        cross_attention_dim=80,
        transformer_layers_per_block=[1, 2, 4],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )
    betas = {key: value for key, value in SD_SCHEDULE.items() if key.startswith("beta") or key == "steps_offset"}
    return _quiet(
        StableDiffusionXLPipeline(
            vae=vae(4, 0.13025),
            text_encoder=clip_text(32),
            text_encoder_2=clip_text(48, 24),
            tokenizer=words(),
            tokenizer_2=words(),
            unet=network,
            scheduler=EulerDiscreteScheduler(**betas, timestep_spacing="leading"),
            add_watermarker=False,
        )
    )


def x4(prediction="v_prediction"):
    """Make the x4 upscaler: its network takes latents and the picture that it enlarges, at that picture's size."""
    from diffusers import DDPMScheduler, StableDiffusionUpscalePipeline

    torch.manual_seed(0)
    network = unet(
        16,
        [PLAIN, ATTENTION, ATTENTION, ATTENTION],
        in_channels=7,
        num_class_embeds=1000,
        use_linear_projection=True,
        only_cross_attention=[True, True, True, False],
    )
    low = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.0001, beta_end=0.02)
    parts = dict(vae=vae(3, 0.08333), text_encoder=clip_text(32), tokenizer=words(), unet=network)
    return _quiet(
        StableDiffusionUpscalePipeline(
            **parts,
            low_res_scheduler=low,
            scheduler=schedule(prediction, **X4_SCHEDULE),
            max_noise_level=350,
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
        )
    )


def _quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def single(kind, tiny):
    """Return a cascade of one stage in float64, where a batch and a single picture agree.

    ``kind`` is ``added``, for the first stage of ``tiny``, whose attention has added keys, or the name of a pipeline.
    """
    if kind == "added":
        stage = tiny.stages[0]
        network = stage.denoiser.unet
        copy = type(network).from_config(network.config).double().eval()
        copy.load_state_dict(network.state_dict())
        return Cascade((replace(stage, denoiser=replace(stage.denoiser, unet=copy)),))
    pipe = globals()[kind]()
    pipe.unet.double()
    return Cascade((families.stage(pipe),))

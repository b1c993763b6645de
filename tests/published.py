"""These pipelines are real diffusers and transformers classes in the published form, but narrower and with random
weights.

Block types, what they predict, schedules, class labels and text encoders are those of the public folders'
configurations.
"""

from dataclasses import replace

import torch

from iterinv import families
from iterinv.cascade import Cascade
from iterinv.edits import DiffEdit, FromPrompts
from iterinv.images import to_uint8

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


def t5_text(width):
    """Make a T5 tokenizer of the embedded captions' words, and an encoder."""
    from iterinv.embedded.train import networks

    words = networks.tokenizer(77)
    text = {"width": width, "heads": 2, "feed_forward": width, "layers": 1}
    return words, networks.text_encoder({"text": text}, len(words)).eval()


def vae(blocks, scaling, **other):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        block_out_channels=[16] * blocks,
        norm_num_groups=8,
        scaling_factor=scaling,
        sample_size=64,
        **{"latent_channels": 4, **other},
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


SIXTEEN = dict(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False)


def sd3(t5=True, medium=True, **schedule):
    """Make Stable Diffusion 3.5 medium, or 3: without dual attention and normalised queries; with T5 or without."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=24 + 16,
        pos_embed_max_size=16,
        dual_attention_layers=(0,) if medium else (),
        qk_norm="rms_norm" if medium else None,
    )
    network.proj_out.weight.data *= 0.3  # a trained field is smoother than a random one
    words_3, text_3 = t5_text(64) if t5 else (None, None)
    return _quiet(
        StableDiffusion3Pipeline(
            transformer=network.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **schedule}),
            vae=vae(4, 1.5305, shift_factor=0.0609, **SIXTEEN),
            text_encoder=clip_text(32, 16),
            tokenizer=words(),
            text_encoder_2=clip_text(24, 24),
            tokenizer_2=words(),
            text_encoder_3=text_3,
            tokenizer_3=words_3,
        )
    )


DEV = dict(shift=3.0, use_dynamic_shifting=True)


def flux(dev=True, **schedule):
    """Make FLUX.1-dev, or schnell: without a guidance scale as input, and without a shift."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=dev,
        axes_dims_rope=(4, 6, 6),
    )
    network.proj_out.weight.data *= 0.3
    words_2, text_2 = t5_text(32)
    return _quiet(
        FluxPipeline(
            transformer=network.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(**{**(DEV if dev else {"shift": 1.0}), **schedule}),
            vae=vae(4, 0.3611, shift_factor=0.1159, **SIXTEEN),
            text_encoder=clip_text(24),
            tokenizer=words(),
            text_encoder_2=text_2,
            tokenizer_2=words_2,
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


def assert_an_edit_of_its_file_stays_in_its_mask(cascade, inversion, picture, file):
    """The inversion of a picture, saved and opened again, is edited inside a region and nowhere else."""
    inversion.save(file)
    again = cascade.open(file)
    assert (to_uint8(again.picture) == to_uint8(picture)).all()
    edit = cascade.edit(again, "a blue ball", DiffEdit(region=FromPrompts(maps=2, grow=0)))
    mask = edit.masks[-1][0, 0] > 0
    assert 0 < float(mask.float().mean()) < 1
    changed = (to_uint8(edit.pictures[-1]) != to_uint8(picture)).any(-1)
    assert changed.any()
    assert not changed[~mask.numpy()].any()

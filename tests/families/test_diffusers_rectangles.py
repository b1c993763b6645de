"""A sample at a rectangle is that of diffusers' own pipeline at its height and width."""

from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler

import published
from iterinv import families, sources
from iterinv.cascade import Cascade
from iterinv.steps import DDIM
from iterinv.steps.run import run

from conftest import draw, field_of

PROMPT = "a red sphere"


def sampled(stage, condition, noise, scale, steps):
    """Return our sample by DDIM."""
    with torch.no_grad():
        *_, (x, *_) = run(DDIM(), field_of(stage, condition, scale), (noise,), stage.schedule.grid(steps))
    return stage.decode(x)


def ddim(pipe):
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False, thresholding=False)
    pipe.scheduler.register_to_config(variance_type="fixed_small")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def close(mine, theirs):
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize(("height", "width"), [(64, 128), (128, 64)])
@pytest.mark.parametrize("make", [published.sd, partial(published.sd, "v_prediction"), published.sdxl])
def test_stable_diffusion_and_sdxl_are_diffusers_at_a_rectangle(make, height, width):
    pipe = make()
    stage = Cascade((families.stage(pipe),)).at(height, width).stages[0]
    noise = draw((1, *stage.shape), 0)
    how = dict(num_inference_steps=4, guidance_scale=5.0, latents=noise, output_type="latent")
    theirs = ddim(pipe)("a b", height=height, width=width, **how).images
    close(sampled(stage, stage.condition("a b"), noise, 5.0, 4), stage.decode(theirs))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (64, 64)])
def test_the_time_ids_are_those_of_diffusers(height, width):
    pipe = published.sdxl()
    stage = Cascade((families.stage(pipe),)).at(height, width).stages[0]
    theirs = pipe._get_add_time_ids(
        (height, width), (0, 0), (height, width), torch.float32, text_encoder_projection_dim=24
    )
    condition = stage.condition(["a b", "c"])
    for each in (condition, stage.with_prompt(condition, None), stage.with_prompt(condition, "d")):
        assert torch.equal(each["time_ids"], theirs.expand(len(each["time_ids"]), -1))


def test_the_x4_upscaler_is_diffusers_at_a_rectangle():
    pipe = published.x4()
    stage = Cascade((families.stage(pipe),)).at(32, 96).stages[0]
    noise, low = draw((1, *stage.shape), 0), draw((1, 3, 8, 24), 1).clamp(-1, 1)
    how = dict(num_inference_steps=4, guidance_scale=5.0, latents=noise, output_type="latent", noise_level=20)
    theirs = ddim(pipe)("a b", image=low, generator=torch.Generator().manual_seed(3), **how).images
    on_low = torch.randn(1, 3, 8, 24, generator=torch.Generator().manual_seed(3))
    close(sampled(stage, stage.condition("a b", low, on_low), noise, 5.0, 4), stage.decode(theirs))


def test_ifs_first_stage_is_diffusers_at_a_rectangle(tiny_folder, tiny):
    pipe, stage = ddim(sources.open_folder(tiny_folder / "stage1")), tiny.at(48, 96).stages[0]
    how = dict(num_inference_steps=4, guidance_scale=5.0, output_type="pt")
    theirs = pipe(PROMPT, height=12, width=24, generator=torch.Generator().manual_seed(4), **how).images
    noise = torch.randn(1, *stage.shape, generator=torch.Generator().manual_seed(4))
    close(sampled(stage, stage.condition(PROMPT), noise, 5.0, 4), theirs)

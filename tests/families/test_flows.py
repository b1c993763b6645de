"""Stages of flow models agree with diffusers' own pipelines, on real classes with random weights, and invert exactly."""

from dataclasses import replace
from functools import partial

import pytest
import torch

import iterinv
import published
from iterinv import families
from iterinv.cascade import Cascade
from iterinv.steps import DDIM
from iterinv.steps.run import run

from conftest import draw, field_of

PROMPT = "a red ball"


def at(stage, height, width):
    return Cascade((stage,)).at(height, width).stages[0]


def sampled(stage, noise, scale, steps, prompt=PROMPT):
    """Return our sample by DDIM's rule, which on a flow is Euler's."""
    with torch.no_grad():
        field = field_of(stage, stage.condition(prompt), scale)
        *_, (x,) = run(DDIM(), field, (noise,), stage.schedule.grid(steps))
    return x


def close(mine, theirs):
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4 * max(1.0, float(theirs.abs().max())))


SD3 = {
    "3.5": published.sd3,
    "3": partial(published.sd3, medium=False),
    "without T5": partial(published.sd3, t5=False),
    "by size": partial(published.sd3, use_dynamic_shifting=True),
}
SIZES = [(64, 64), (64, 96), (96, 64)]


@pytest.mark.parametrize("make", SD3.values(), ids=SD3.keys())
@pytest.mark.parametrize("guidance", [1.0, 7.0])
@pytest.mark.parametrize(("steps", "size"), [(1, (64, 64)), (2, (64, 96)), (6, (64, 64)), (6, (96, 64))])
def test_stable_diffusion_3(make, guidance, steps, size):
    pipe = make()
    stage = at(families.stage(pipe), *size)
    noise = draw((1, *stage.shape), 0)
    how = dict(height=size[0], width=size[1], num_inference_steps=steps, guidance_scale=guidance)
    theirs = pipe(PROMPT, latents=noise, output_type="latent", **how).images
    mine = sampled(stage, noise, guidance, steps)
    close(mine, theirs)
    shown = pipe(PROMPT, latents=noise, output_type="pt", **how).images
    close((stage.decode(mine) / 2 + 0.5).clamp(0, 1), shown)

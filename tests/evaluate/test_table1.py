"""The rows of IterInv's Table I: DDIM's by their equations, the mistakes of the public code, autoencoders, and the
command."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from iterinv.evaluate import table1
from iterinv.evaluate.datasets import Task
from iterinv.evaluate.recipes import Ceiling, Inverting, UpperStages, VelocityAsNoise
from iterinv.evaluate.rows import rows
from iterinv.images import resize, to_uint8
from iterinv.levels import Level, Prediction, prediction_from
from iterinv.methods import plan
from iterinv.streams import draw_noise

from conftest import call

STEPS = 4
PROMPT = "a red sphere on a wooden floor"


@pytest.fixture
def task(picture):
    return Task("one", to_uint8(picture), PROMPT)


def ddim(stage, x, inverse, forward, steps=STEPS):
    """DDIM inversion with the destination's timestep, and DDIM, of a denoiser under two conditions."""
    grid = stage.schedule.grid(steps)
    for a, b in itertools.pairwise(reversed(grid)):  # from a, the cleaner
        (alpha, sigma), (beta, tau) = a[1:], b[1:]
        eps = inverse(x, b).eps
        x = beta * (x - sigma * eps) / alpha + tau * eps
    for a, b in itertools.pairwise(grid):
        x = forward(x, a).at(b)
    return x


def low(stage, picture, noise=None):
    condition = stage.condition(PROMPT, picture, noise=noise)
    return lambda x, level: stage.denoiser(x, level, condition)


@torch.no_grad()
def test_the_last_stage_alone_is_inverted_under_the_real_picture_below(tiny, picture, task):
    stage = tiny.stages[2]
    field = low(stage, resize(picture, tiny.stages[1].extent))
    expected = ddim(stage, picture.double(), field, field)
    made = UpperStages(3, plan("ddim", STEPS))(tiny, task, 0, "pad")
    torch.testing.assert_close(made.picture, expected, rtol=0, atol=1e-9)
    assert made.inversion is None


@torch.no_grad()
def test_all_stages_are_a_solved_inversion(tiny, task):
    made = UpperStages(1, plan("ddim", STEPS))(tiny, task, 0, "pad")
    inversion = tiny.invert(task.picture, PROMPT, "ddim", STEPS)
    torch.testing.assert_close(made.picture.clamp(-1, 1), inversion.picture, rtol=0, atol=1e-9)


@torch.no_grad()
def test_the_published_row_makes_both_mistakes(tiny, picture, task):
    stage, below = tiny.stages[2], resize(picture, tiny.stages[1].extent)
    right, shape = low(stage, below), (3, *stage.shape[1:])
    fresh = low(stage, below, draw_noise(shape, (0,), "low noise of a rerun", stage.name))

    def misread(x, level):
        x0, eps = right(x, level)
        return Prediction.from_eps(x, level, level.alpha * eps - level.sigma * x0)

    expected = ddim(stage, picture.double(), misread, fresh)
    made = UpperStages(3, plan("ddim", STEPS), "fresh", velocity_as_noise=True)(tiny, task, 0, "pad")
    torch.testing.assert_close(made.picture, expected, rtol=0, atol=1e-9)
    correct = UpperStages(3, plan("ddim", STEPS))(tiny, task, 0, "pad")
    assert not torch.allclose(made.picture, correct.picture, atol=1e-2)


def test_a_velocity_that_is_read_as_the_noise_is_the_networks_output():
    """A network that predicts the velocity: what it outputs is taken for the noise."""
    level, generator = Level(100, 0.8, 0.6), torch.Generator().manual_seed(0)
    x, v = torch.randn((2, 1, 3, 2, 2), generator=generator, dtype=torch.float64)
    misread = VelocityAsNoise(lambda x, level, condition: prediction_from(v, x, level, "v_prediction"))
    torch.testing.assert_close(misread(x, level, {}).eps, v)


@torch.no_grad()
def test_the_first_stage_has_no_mistake_to_make(tiny, task):
    """Its public code inverts it by the right prediction, and no noise is drawn there."""
    first = tiny.up_to(16)
    right = UpperStages(1, plan("ddim", STEPS))(first, task, 0, "pad")
    wrong = UpperStages(1, plan("ddim", STEPS), "fresh", velocity_as_noise=True)(first, task, 0, "pad")
    assert torch.equal(right.picture, wrong.picture)


def test_an_autoencoder_alone_is_the_ceiling(tmp_path, tiny, task):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    vae = AutoencoderKL(**blocks, block_out_channels=[4, 4], norm_num_groups=2, sample_size=16)
    vae.save_pretrained(tmp_path / "pipe" / "vae")
    recipe = Ceiling(str(tmp_path / "pipe"))
    recipe.check(tiny)
    made = recipe(tiny, task, 0, "pad")
    with torch.no_grad():
        expected = vae.decode(vae.encode(made.canvas.covered()).latent_dist.mode()).sample
    torch.testing.assert_close(made.picture, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="works on pixels, so it has no autoencoder"):
        Ceiling("own").check(tiny)
    with pytest.raises(OSError, match="nowhere"):
        Ceiling(str(tmp_path / "nowhere")).check(tiny)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (UpperStages(4, plan("ddim", STEPS)), "there is no stage 4: the cascade has 3"),
        (UpperStages(2, plan("bdia", STEPS)), "bdia is no method that solves its path without guidance"),
        (UpperStages(2, plan("ddim", STEPS, 3.0)), "ddim is no method that solves its path without guidance"),
        (UpperStages(2, plan("ddim", STEPS), "other"), "the noise is 'other'; it is matched or fresh"),
        (Inverting((plan("ddim", STEPS),) * 2), "2 methods or guidance scales for 3 stages: give one for each"),
    ],
)
def test_recipes_that_cannot_run_say_why(tiny, recipe, message):
    with pytest.raises(ValueError, match=message):
        recipe.check(tiny)


def test_rows_are_those_of_the_table():
    names = [name for name, _ in table1.recipes(3, autoencoders=("org/sdxl-vae",))]
    assert names == [
        "autoencoder-sdxl-vae",
        *("ddim-s3-published", "ddim-s3", "ddim-s2-s3-published", "ddim-s2-s3"),
        *("ddim-s1-s2-s3-published", "ddim-s1-s2-s3"),
        *("iterinv-w1", "iterinv-w3", "iterinv-w5", "iterinv-w7"),
        *("bdia", "aligned", "iterinv-anderson"),
    ]
    assert [name for name, _ in table1.recipes(1, scales=(1.0,), methods=())] == ["ddim-s1", "iterinv-w1"]
    with pytest.raises(ValueError, match="the row iterinv-w1 is there twice"):
        table1.recipes(2, scales=(1.0, 1.0))
    with pytest.raises(ValueError, match="there is no method 'magic'"):
        table1.recipes(2, methods=("magic",))


def test_the_null_text_of_a_guided_row_has_the_settings_of_the_papers_code():
    guided = dict(table1.recipes(2, scales=(1.0, 7.0)))
    first, second = guided["iterinv-w7"].plans
    assert (first.guidance, first.refine.iterations, first.refine.rate, first.refine.total) == (7.0, 51, 1e-3, True)
    assert (second.guidance, second.method) == (1.0, "iterinv")
    assert guided["iterinv-w1"].plans[0].refine is None


def test_stages_are_counted_without_weights_where_they_are_known(tiny_folder, tiny):
    def load():
        raise AssertionError("the weights are loaded")

    assert table1.stage_count(str(tiny_folder), load) == 3
    assert table1.stage_count("deepfloyd", load) == 3
    assert table1.stage_count(str(tiny_folder), lambda: tiny, size=32) == 2
    assert table1.stage_count("a list", lambda: tiny) == 3


def test_the_command_measures_the_rows(tiny_folder, tmp_path):
    out = tmp_path / "out"
    words = ["table1", "--data", "scenes", "--count", 2, "--steps", 2, "--model", tiny_folder, "--out", out]
    words += ["--guidance-scales", "1", "--methods", "bdia", "--metrics", "mse,psnr,ssim", "--threads", 1, "--size", 32]
    done = call(*map(str, words))
    assert done.exit_code == 0, done.output
    every = list(rows(out))
    names = ["ddim-s2-published", "ddim-s2", "ddim-s1-s2-published", "ddim-s1-s2", "iterinv-w1", "bdia"]
    assert {row["method"] for row in every} == set(names)
    assert all(row["error"] is None for row in every)
    lines = (out / "table1.md").read_text().splitlines()
    body = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert [line[0] for line in body] == ["row", "---", *names]
    assert body[0] == ["row", "MSE", "PSNR", "SSIM", "pictures", "forward", "backward", "seconds"]
    figures = dict(zip(names, body[2:], strict=True))
    assert figures["bdia"][1:4] == ["0", "exact", "1"]
    mean = np.mean([row["metrics"]["mse"] for row in every if row["method"] == "ddim-s2"])
    assert float(figures["ddim-s2"][1]) == pytest.approx(mean, rel=1e-3)
    assert figures["ddim-s2"][5:7] == ["4", "0"]  # one stage, two steps back and forth
    assert figures["ddim-s1-s2"][5:7] == ["8", "0"]
    settings = (out / "settings.json").read_text()
    assert "velocity_as_noise=True" in settings
    words[words.index("--guidance-scales") + 1] = "3"
    again = call(*map(str, words))
    assert (again.exit_code, "methods" in again.output) == (2, True)


def test_metrics_without_weights_are_left_out_with_the_reason(monkeypatch):
    chosen, reasons = table1.published_metrics()
    assert {"mse", "ssim", "psnr"} <= set(chosen)
    assert set(reasons) == {"lpips-alex", "clip-score", "st-lpips"} - set(chosen)
    assert all(reason.startswith("the metric") for reason in reasons.values())


def test_a_stage_that_a_recipe_counts_is_still_itself(tiny):
    """A counter has the attributes of the denoiser that it counts, such as the sides that it takes."""
    from iterinv.models import CountingDenoiser

    counted = [replace(stage, denoiser=CountingDenoiser(stage.denoiser)) for stage in tiny.stages]
    assert [stage.unit for stage in counted] == [stage.unit for stage in tiny.stages]

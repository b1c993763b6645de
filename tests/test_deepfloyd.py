"""The adapter against diffusers' own IF pipelines, on real classes with random weights at tiny size."""

import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from iterinv import app, drive, schedule, store
from iterinv.edits import DiffEdit
from iterinv.images import Frame, to_uint8
from iterinv.methods import plan
from iterinv.models import Calls, deepfloyd, draw, embedded, guide
from iterinv.steps import DDIM

PROMPT = "a red sphere on a wooden floor"


def pipeline(folder):
    absent = dict(safety_checker=None, feature_extractor=None, watermarker=None, requires_safety_checker=False)
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **absent)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, thresholding=False, clip_sample=False)
    pipe.scheduler.register_to_config(variance_type="fixed_small")  # else the pipeline hands DDIM the variance channels too
    return pipe


def ours(stage, condition, noise, guidance, steps=10):
    grid = stage.schedule.grid(steps)
    with torch.no_grad():
        *_, (x,) = drive.run(DDIM(), guide(stage.denoiser, condition, guidance), (noise,), grid)
    return x


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_sampling_is_what_ifpipeline_samples(tiny_folder, tiny, guidance):
    pipe, stage = pipeline(tiny_folder / "stage1"), tiny.stages[0]
    theirs = pipe(
        PROMPT, num_inference_steps=10, guidance_scale=guidance, output_type="pt", generator=torch.Generator().manual_seed(4)
    ).images
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(ours(stage, stage.condition(PROMPT), noise, guidance), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize(("k", "prediction"), [(1, "epsilon"), (2, "epsilon"), (1, "v_prediction")])
def test_enlarging_is_what_ifsuperresolutionpipeline_does(tiny_folder, tiny, tmp_path, k, prediction, guidance):
    """It draws the sample's noise first, then that on the enlarged picture, at the full size."""
    folder = shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    config = folder / f"stage{k + 1}" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"epsilon"', f'"{prediction}"'))
    stage, below = embedded.load(folder)[k], tiny.stages[k - 1].size
    low = draw((1, 3, below, below), 9).clamp(-1, 1)
    pipe = pipeline(folder / f"stage{k + 1}")
    text = tiny.stages[0].embed([PROMPT])
    null = tiny.stages[0].embed([""])
    theirs = pipe(
        image=low, prompt_embeds=text, negative_prompt_embeds=null, num_inference_steps=10, guidance_scale=guidance,
        noise_level=100, output_type="pt", generator=torch.Generator().manual_seed(4),
    ).images  # fmt: skip
    generator = torch.Generator().manual_seed(4)
    noise, on_low = (torch.randn(1, 3, stage.size, stage.size, generator=generator) for _ in range(2))
    mine = ours(stage, stage.condition(PROMPT, low, on_low), noise, guidance)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))  # random weights reach 20


def test_noise_on_the_low_picture_is_drawn_once_and_alike_for_every_picture_of_a_batch(tiny):
    stage = tiny.stages[1]
    low = draw((2, 3, 16, 16), 0)
    one, again = stage.condition(PROMPT, low, seed=5), stage.condition(PROMPT, low[:1], seed=5)
    assert torch.equal(one.low.noise[:1], again.low.noise)
    assert torch.equal(one.low.noise[0], one.low.noise[1])
    assert not torch.equal(one.low.noise, stage.condition(PROMPT, low, seed=6).low.noise)
    with pytest.raises(ValueError, match="stage II enlarges a smaller picture"):
        stage.condition(PROMPT)


def test_a_half_precision_network_keeps_the_states_dtype(tiny_folder):
    stage = deepfloyd.load([tiny_folder / "stage1"], dtype=torch.bfloat16)[0]
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        out = guide(stage.denoiser, stage.condition(PROMPT), 2.0)(x, stage.schedule.level(500))
    assert out.dtype == torch.float64
    assert out.shape == x.shape


def test_calls_count_guidance_twice_and_backward_apart(tiny):
    stage = tiny.stages[0]
    calls = Calls(stage.denoiser)
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    guide(calls, stage.condition(PROMPT), 1.0)(x, stage.schedule.level(500)).sum().backward()
    assert (calls.forward, calls.backward) == (1, 1)
    with torch.no_grad():
        guide(calls, stage.condition(PROMPT), 3.0)(x, stage.schedule.level(500))
    assert (calls.forward, calls.backward) == (3, 1)


def test_guidance_is_the_line_through_both_predictions(tiny):
    stage, x = tiny.stages[0], torch.randn(2, 3, 16, 16)
    condition, level = stage.condition(PROMPT), stage.schedule.level(300)
    with torch.no_grad():
        without, one, three = (guide(stage.denoiser, condition, scale)(x, level) for scale in (0.0, 1.0, 3.0))
    torch.testing.assert_close(three, without + 3 * (one - without), rtol=0, atol=1e-5)


def test_other_folders_are_refused(tiny_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model_index\.json"):
        deepfloyd.load([tmp_path])
    with pytest.raises(FileNotFoundError, match="holds no text encoder"):
        deepfloyd.load([tiny_folder / "stage2"])
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ValueError, match="is a StableDiffusionPipeline"):
        deepfloyd.load([tmp_path])
    other = shutil.copytree(tiny_folder / "stage1", tmp_path / "v")
    config = other / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"epsilon"', '"sample"'))
    with pytest.raises(ValueError, match="'sample'; what a pixel stage may predict is epsilon or v_prediction"):
        deepfloyd.load([other])


def test_a_velocity_is_told_as_noise():
    """v = alpha eps - sigma x0: at every level, of the velocity of a known picture and noise, the noise."""
    x0, eps = torch.rand(2, 1, 3, 4, 4, dtype=torch.float64)

    class Network:
        dtype = torch.float64

        def __init__(self, v):
            self.v = v

        def __call__(self, sample, t, **_):
            return type("Out", (), {"sample": torch.cat([self.v, torch.zeros_like(self.v)], 1)})

    for t in (0, 500, 999):
        level = schedule.from_config({"beta_schedule": "squaredcos_cap_v2"}).level(t)
        denoiser = deepfloyd.IFDenoiser(Network(level.alpha * eps - level.sigma * x0), "v_prediction")
        x = level.alpha * x0 + level.sigma * eps
        torch.testing.assert_close(denoiser(x, level, torch.zeros(1, 1, 1), None), eps)


def test_the_fingerprint_tells_of_any_change_that_a_prediction_would_see(tiny_folder, tmp_path):
    """Of one bit in any file but the pipeline's index, of the precision, and of the noise on the condition."""
    copy = shutil.copytree(tiny_folder / "stage2", tmp_path / "stage")
    shutil.copytree(tiny_folder / "stage1", copy, dirs_exist_ok=True)

    def told(dtype=torch.float32, noise_level=100):
        return deepfloyd.fingerprint(copy, dtype, noise_level)

    before, files = told(), [file for file in copy.rglob("*") if file.is_file() and file.name != "model_index.json"]
    assert {file.parent.name for file in files} >= {"unet", "text_encoder", "tokenizer", "scheduler", "image_noising_scheduler"}
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        assert told() != before, file
        file.write_bytes(whole)
    assert before == told()
    assert len({before, told(torch.bfloat16), told(noise_level=400)}) == 3


def test_a_prompt_that_is_cut_off_is_told(tiny):
    with pytest.warns(UserWarning, match="what comes after the 77th is not read"):
        tiny.stages[0].embed(["a red sphere " * 40])


def test_damaged_cascade_folders_are_refused_by_name(tiny_folder, tmp_path):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    for text, words in (
        ("{", "is damaged"),
        ("[]", "holds no object"),
        ("{}", "a list of folders"),
        ('{"stages": []}', "a list"),
    ):
        (copy / "cascade.json").write_text(text)
        with pytest.raises(ValueError, match=rf"cascade.json.*{words}"):
            embedded.load(copy)
    (copy / "cascade.json").write_text(json.dumps({"stages": ["stage1", "stage2"], "noise_level": 2000}))
    with pytest.raises(ValueError, match="label 2000 is not in this schedule"):
        embedded.load(copy)
    shutil.rmtree(copy / "stage1" / "tokenizer")
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        deepfloyd.load([copy / "stage1"])
    (copy / "stage2" / "model_index.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"model_index.json is damaged"):
        deepfloyd.load([copy / "stage2"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_inverts_samples_and_reopens(tiny_folder, picture, tmp_path):
    cascade = app.load(str(tiny_folder), device="cuda")
    frame = Frame.fit(to_uint8(picture), 64)[0]
    inversion = cascade.invert(picture, PROMPT, plan("bdia", 5))
    store.save(tmp_path / "a.safetensors", store.Saved(inversion, frame))
    again = cascade.rerun(store.open_(tmp_path / "a.safetensors", cascade).inversion)
    assert (to_uint8(again.picture) == to_uint8(picture)).all()
    assert cascade.sample(PROMPT, 2)[-1].is_cuda
    assert cascade.edit(again, "a blue sphere", DiffEdit()).pictures[-1].is_cuda

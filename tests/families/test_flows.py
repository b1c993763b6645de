"""Stages of flow models agree with diffusers' own pipelines, on real classes with random weights; they invert
exactly."""

import json
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, StableDiffusion3Img2ImgPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

import iterinv
import published
from iterinv import families, sources
from iterinv.cascade import Cascade
from iterinv.edits import EDITORS, FlowEdit
from iterinv.edits.attention import AttentionEditor
from iterinv.families.flux import positions
from iterinv.images import to_uint8
from iterinv.methods import METHODS, plan
from iterinv.models import pipelines
from iterinv.schedules import FLOW, flow_from_config
from iterinv.steps import DDIM
from iterinv.steps.run import NotFinite, run
from iterinv.streams import draw_noise

from conftest import Hearing, draw, field_of, refused

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


@pytest.mark.parametrize("make", SD3.values(), ids=SD3.keys())
@pytest.mark.parametrize("guidance", [1.0, 7.0])
@pytest.mark.parametrize(("steps", "size"), [(1, (64, 64)), (3, (64, 96)), (6, (96, 64))])
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


FLUX = {
    "dev": published.flux,
    "schnell": partial(published.flux, dev=False),
    "by size, otherwise": partial(published.flux, base_shift=0.3, max_shift=0.9, base_image_seq_len=8),
    "of a fixed shift": partial(published.flux, use_dynamic_shifting=False),
}


def small(pipe, size=(64, 64), **settings):
    """Make FLUX's stage, of 1024 px, at a small size."""
    return at(families.stage(pipe, **settings), *size)


@pytest.mark.parametrize("make", FLUX.values(), ids=FLUX.keys())
@pytest.mark.parametrize("guidance", [None, 1.0])
@pytest.mark.parametrize(("steps", "size"), [(1, (64, 64)), (3, (64, 96)), (6, (96, 64))])
def test_flux(make, guidance, steps, size):
    """The guidance scale of the distilled network is diffusers' 3.5 where none is given."""
    pipe = make()
    stage = small(pipe, size, distilled_guidance=guidance)
    noise = draw((1, *stage.shape), 0)
    packed = pipe._pack_latents(noise, *noise.shape)
    how = dict(height=size[0], width=size[1], num_inference_steps=steps)
    how |= {} if guidance is None else {"guidance_scale": guidance}
    theirs = pipe(PROMPT, latents=packed, output_type="latent", **how).images
    mine = sampled(stage, noise, 1.0, steps)
    close(pipe._pack_latents(mine, *mine.shape), theirs)
    shown = pipe(PROMPT, latents=packed, output_type="pt", **how).images
    close((stage.decode(mine) / 2 + 0.5).clamp(0, 1), shown)


@pytest.mark.parametrize("dev", [True, False])
def test_classifier_free_guidance_of_flux_is_diffusers_true_guidance(dev):
    pipe = published.flux(dev)
    stage = small(pipe)
    noise = draw((1, *stage.shape), 0)
    how = dict(height=64, width=64, num_inference_steps=4, true_cfg_scale=3.0, negative_prompt="")
    theirs = pipe(PROMPT, latents=pipe._pack_latents(noise, *noise.shape), output_type="pt", **how).images
    close((stage.decode(sampled(stage, noise, 3.0, 4)) / 2 + 0.5).clamp(0, 1), theirs)


def test_the_positions_of_image_tokens_are_diffusers_own():
    theirs = published.flux()._prepare_latent_image_ids(1, 3, 5, "cpu", torch.float32)
    assert torch.equal(positions(3, 5, "cpu"), theirs)


MADE = {"sd3": published.sd3, "flux": published.flux}


def cascade_of(name, dtype=torch.float32):
    """Make a cascade of 64 px, FLUX's too, by a network in a precision."""
    pipe = MADE[name]()
    pipe.transformer.to(dtype)
    return Cascade((replace(families.stage(pipe), size=64).at(None),))


FAMILIES = pytest.mark.parametrize("name", MADE)


@FAMILIES
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("method", ["bdia", "bdia-fixed", "bdia-heun", "bdia-2s", "iterinv-anderson", "direct"])
def test_every_pixel_comes_back_from_pure_noise(name, method, guidance, picture):
    (stage,) = (cascade := cascade_of(name)).stages
    inversion = cascade.invert(picture, PROMPT, plan(method, 5, guidance))
    assert inversion.stages[0].grid[0][1:] == (0, 1)
    assert (to_uint8(inversion.picture) == to_uint8(picture)).all()
    if METHODS[method].inverter.exact:
        latents = stage.encode(picture.double())
        torch.testing.assert_close(inversion.stages[0].path[-1], latents, rtol=0, atol=1e-9)
        assert inversion.stages[0].report.residual_max < 1e-9


@pytest.mark.parametrize("method", ["belm", "edict", "rex", "rex-heun", "aligned", "aligned-fixed"])
def test_a_method_without_a_step_from_pure_noise_names_those_that_have_one(method, picture):
    with pytest.raises(ValueError, match=r"level with timestep 1000.*take bdia"):
        cascade_of("sd3").invert(picture, PROMPT, method, 5)


@FAMILIES
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_every_pixel_comes_back_by_a_network_of_half_precision(name, half, picture):
    inversion = cascade_of(name, half).invert(picture, PROMPT, "bdia", 6, guidance_scale=2.0)
    assert inversion.stages[0].report.residual_max < 1e-6
    assert (to_uint8(inversion.picture) == to_uint8(picture)).all()


@FAMILIES
def test_the_part_of_a_transformer_that_overflows_is_named(name, picture):
    cascade = cascade_of(name)
    cascade.stages[0].denoiser.transformer.transformer_blocks[0].attn.to_q.bias.data.fill_(torch.inf)
    with pytest.raises(NotFinite, match=r"network's transformer_blocks.0.attn.to_q gives NaN"):
        cascade.invert(picture, PROMPT, "bdia", 4)


@FAMILIES
def test_an_edit_keeps_the_pixels_outside_its_mask(name, tmp_path, picture):
    cascade = cascade_of(name)
    inversion = cascade.invert(picture, PROMPT, "bdia", 5)
    published.assert_an_edit_of_its_file_stays_in_its_mask(cascade, inversion, picture, tmp_path / "a.safetensors")
    for editor in ("automatic", "flowedit"):
        assert cascade.edit(inversion, "a blue ball", editor).pictures[-1].isfinite().all()


def test_flowedit_gives_its_scales_to_a_distilled_network_as_published_for_flux(picture):
    """The oracle is the paper's algorithm 1 on the flows of diffusers' network."""
    cascade = cascade_of("flux", torch.float64)
    (stage,), target = cascade.stages, "a blue ball"
    inversion = cascade.invert(picture, PROMPT, "bdia", 4)
    edit = cascade.edit(inversion, target, FlowEdit(1.0, 5.5, 1.5, seed=3))
    x, grid = stage.encode(picture.double()), inversion.stages[0].grid

    def flow(z, a, prompt, scale):
        condition = stage.condition(prompt).updated(guidance=torch.tensor([scale]))
        return stage.denoiser.flow(z, a, condition)

    z = x
    for i, (a, b) in enumerate(pairwise(grid)):
        source = (1 - a.sigma) * x + a.sigma * draw_noise(x.shape[1:], [3], "flowedit", i, 0).double()
        change = flow(z + source - x, a, target, 5.5) - flow(source, a, PROMPT, 1.5)
        z = z + (b.sigma - a.sigma) * change
    torch.testing.assert_close(edit.pictures[-1].double(), stage.decode(z).clamp(-1, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("editor", [name for name, made in EDITORS.items() if issubclass(made, AttentionEditor)])
def test_editors_of_attention_name_those_that_work_on_a_transformer(editor, picture):
    cascade = cascade_of("flux")
    inversion = cascade.invert(picture, PROMPT, "bdia", 3)
    with pytest.raises(ValueError, match=r"layers of a UNet, and stage I has none: take automatic, .*flowedit"):
        cascade.edit(inversion, "a blue ball", editor)


@FAMILIES
def test_a_batch_is_its_pictures_alone(name, picture):
    """The network is in float64; the text encoders and the autoencoder, in float32, round a batch otherwise."""
    cascade, prompts = cascade_of(name, torch.float64), (PROMPT, "a cube")
    both = torch.cat([picture, picture.flip(-1)])
    inversion = cascade.invert(both, prompts, "bdia", 4, guidance_scale=2.0)
    edit = cascade.edit(inversion, "a blue ball", "flowedit")
    for k in range(2):
        alone = cascade.invert(both[k : k + 1], prompts[k], "bdia", 4, guidance_scale=2.0)
        torch.testing.assert_close(inversion.noise[k : k + 1], alone.noise, rtol=0, atol=2e-5)
        mine = cascade.edit(alone, "a blue ball", "flowedit").pictures[-1]
        torch.testing.assert_close(edit.pictures[-1][k : k + 1], mine, rtol=0, atol=1e-4)


@FAMILIES
def test_a_folder_is_the_live_pipeline_which_stays_as_it_is(name, tmp_path):
    pipe = MADE[name]().to(dtype=torch.float32)
    pipe.transformer.train()
    before = {key: x.clone() for key, x in pipe.transformer.state_dict().items()}
    live = iterinv.load(pipe)
    assert pipe.transformer.training
    assert all(x.requires_grad for x in pipe.transformer.parameters())
    assert all(torch.equal(x, before[key]) for key, x in pipe.transformer.state_dict().items())
    pipe.save_pretrained(tmp_path)
    folder = iterinv.load(str(tmp_path))
    assert folder.fingerprint == live.fingerprint
    assert folder.probes[0].agrees(live.probes[0])
    assert folder.size == {"sd3": 64, "flux": 1024}[name]
    assert iterinv.load(str(tmp_path)).to("cpu").fingerprint == folder.fingerprint
    half = iterinv.load(str(tmp_path), dtype=torch.bfloat16)
    assert half.stages[0].denoiser.network.dtype == torch.bfloat16
    assert half.fingerprint != folder.fingerprint


@FAMILIES
@pytest.mark.parametrize("mode", ["staged", "layered"])
def test_networks_that_take_turns_are_the_same_stage(name, mode, tmp_path, picture):
    MADE[name]().save_pretrained(tmp_path)
    (plain,), (turns,) = (sources.stages(tmp_path, mode=each) for each in (None, mode))
    assert plain.fingerprint == turns.fingerprint
    pictures = []
    for stage in (plain, turns):
        cascade = Cascade((replace(stage, size=64).at(None),))
        inversion = cascade.invert(picture, PROMPT, "bdia", 3)
        assert (to_uint8(inversion.picture) == to_uint8(picture)).all()
        pictures.append(inversion.noise)
    torch.testing.assert_close(*pictures, rtol=0, atol=1e-6)


def test_the_guidance_scale_of_a_distilled_network_is_a_setting_and_an_entry_of_its_conditions(picture):
    pipe = published.flux()
    three, one = (iterinv.load(pipe, distilled_guidance=scale).stages[0] for scale in (3.5, 1.0))
    assert iterinv.load(pipe).fingerprint == three.fingerprint != one.fingerprint
    condition = one.condition([PROMPT, "a"])
    assert condition["guidance"].tolist() == [1.0, 1.0]
    two = condition.updated(guidance=torch.tensor([2.0]))
    assert one.with_prompt(two, None)["guidance"].tolist() == [2.0]
    assert one.to("cpu").embed(["a"])["guidance"].tolist() == [1.0]
    assert "guidance" not in families.stage(published.flux(dev=False)).condition(PROMPT)
    for pipe in (published.flux(dev=False), published.sd3()):
        with pytest.raises(ValueError, match="none of them takes a guidance scale as an input"):
            iterinv.load(pipe, distilled_guidance=2.0)
    with pytest.raises(ValueError, match="distilled_guidance is -1"):
        iterinv.load(published.flux(), distilled_guidance=-1)


def test_a_prompt_that_an_encoder_cuts_off_is_told_with_its_name():
    long = "a red sphere " * 40
    for pipe, notes in (
        (published.sd3(), ["the 77th are not read by CLIP"]),
        (published.sd3(t5=False), ["the 77th are not read"]),
        (published.flux(), ["the 77th are not read by CLIP"]),
    ):
        cut = families.stage(pipe).embed([long]).notes
        assert [note.partition("after ")[2] for note in cut] == notes
    heard = Hearing()
    Cascade((small(published.flux()),)).sample("a red sphere " * 300, 1, height=64, width=64, observer=heard)
    assert [note.partition("not read ")[2] for note in heard.notes] == ["by CLIP", "by T5"]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.sampled_from([1.0, 3.0, 0.7]),
    st.booleans(),
    st.integers(1, 64),
    st.integers(1, 64),
    st.sampled_from([1000, 500]),
)
def test_grids_are_those_that_the_pipelines_walk(steps, shift, by_size, rows, columns, timesteps):
    """Stable Diffusion 3's pipeline leaves the levels to the scheduler, and FLUX's gives them to it."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps

    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=timesteps, shift=shift, use_dynamic_shifting=by_size
    )
    how = {"mu": calculate_shift(rows * columns)} if by_size else {}
    for to_lowest in (True, False):
        given_levels = {} if to_lowest else {"sigmas": [1 - k / steps for k in range(steps)]}
        retrieve_timesteps(scheduler, steps, "cpu", **given_levels, **how)
        config = pipelines.config_of(scheduler)
        grid = flow_from_config(config, to_lowest).at(rows * columns).grid(steps)
        assert [level.sigma for level in grid] == pytest.approx(scheduler.sigmas.tolist(), abs=2e-6)
        assert [level.t for level in grid[:-1]] == pytest.approx(scheduler.timesteps.tolist(), abs=2e-3)
        assert all(level.alpha + level.sigma == pytest.approx(1) for level in grid)


def test_the_shift_is_that_of_the_pictures_size():
    stage = families.stage(published.flux())
    assert stage.schedule.shift == pytest.approx(math.exp(1.15))  # 1024 px are 4096 tokens
    wide = at(stage, 512, 1536)
    assert wide.schedule.shift == pytest.approx(math.exp(0.5 + 0.65 * (32 * 96 - 256) / 3840))
    assert wide.at(None).schedule == stage.schedule
    assert wide.to("cpu").schedule == wide.schedule


def test_an_inversion_at_a_rectangle_has_its_levels_and_opens_again(tmp_path):
    cascade = Cascade((families.stage(published.sd3(use_dynamic_shifting=True)),))
    wide = (255 * torch.rand(32, 64, 3)).byte().numpy()
    inversion = cascade.invert(wide, PROMPT, "bdia", 4, fit="aspect")
    (stage,) = cascade.at(*inversion.extent).stages
    assert inversion.extent[1] > inversion.extent[0]
    assert inversion.stages[0].grid == stage.schedule.grid(4)
    assert inversion.stages[0].grid != cascade.stages[0].schedule.grid(4)
    inversion.save(tmp_path / "a.safetensors")
    again = cascade.open(tmp_path / "a.safetensors")
    assert (to_uint8(again.picture) == to_uint8(inversion.picture)).all()
    assert cascade.edit(again, "a blue ball", "flowedit").pictures[-1].shape[2:] == inversion.extent


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("invert_sigmas", True),
        ("shift_terminal", 0.1),
        ("stochastic_sampling", True),
        ("use_karras_sigmas", True),
        ("use_exponential_sigmas", True),
        ("use_beta_sigmas", True),
    ],
)
@FAMILIES
def test_settings_of_the_scheduler_that_are_not_known_are_refused_by_name(name, setting, value, tmp_path):
    pipe = MADE[name](**{setting: value})
    with pytest.raises(ValueError, match=f"levels of a {FLOW} with {setting} {value} are not known here"):
        families.stage(pipe)
    pipe.save_pretrained(tmp_path)
    refused(f"with {setting} {value} are not known", "sample", PROMPT, "--model", tmp_path)


def test_levels_that_are_none_are_refused():
    with pytest.raises(ValueError, match="time_shift_type linear"):
        families.stage(published.flux(time_shift_type="linear"))
    families.stage(published.flux(dev=False, time_shift_type="linear"))  # which acts on dynamic shifts alone
    with pytest.raises(ValueError, match=r"shift is 0\.0; it is 0\.001 to 1000"):
        families.stage(published.sd3(shift=0.0))
    with pytest.raises(ValueError, match="base_image_seq_len is 4096 and max_image_seq_len 4096"):
        families.stage(published.flux(base_image_seq_len=4096))
    for make in MADE.values():
        pipe = make()
        pipe.scheduler = DDIMScheduler()
        with pytest.raises(ValueError, match=f"levels of a DDIMScheduler are not those of a flow: .* {FLOW}"):
            families.stage(pipe)


@FAMILIES
def test_a_pipeline_that_lacks_a_part_or_has_another_is_refused(name):
    lacks = {
        "transformer": "has no transformer",
        "scheduler": "has no scheduler",
        "text_encoder": "lacks one of",
        "tokenizer_2": "lacks one of",
        "vae": "vae of .* is missing",
    }
    for part, sentence in lacks.items():
        pipe = MADE[name]()
        setattr(pipe, part, None)
        with pytest.raises(ValueError, match=sentence):
            families.stage(pipe)
    pipe = MADE[name]()
    pipe.transformer = MADE["flux" if name == "sd3" else "sd3"]().transformer
    with pytest.raises(ValueError, match=r"transformer of .* is a \w+, and only a \w+Transformer2DModel is known"):
        families.stage(pipe)


def test_transformers_that_take_more_are_refused():
    pipe = published.sd3()
    pipe.tokenizer_3 = None
    with pytest.raises(ValueError, match="and no tokenizer_3"):
        families.stage(pipe)
    pipe = published.flux()
    pipe.transformer.register_to_config(in_channels=384, out_channels=64)
    with pytest.raises(ValueError, match=r"takes 384 channels and gives 64, .*fill, depth, canny"):
        families.stage(pipe)
    pipe = published.flux()
    pipe.transformer.encoder_hid_proj = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="also takes a picture as prompt: take its IP-Adapter off"):
        families.stage(pipe)
    for kind in (
        "FluxFillPipeline",
        "FluxControlNetPipeline",
        "FluxKontextPipeline",
        "StableDiffusion3InpaintPipeline",
    ):
        with pytest.raises(ValueError, match=f"is a {kind}; a stage of a cascade is one of"):
            families.family_of(kind)


def test_stable_diffusion_3_from_picture_to_picture_is_the_same_stage():
    pipe = published.sd3()
    assert families.stage(StableDiffusion3Img2ImgPipeline(**pipe.components)).fingerprint == (
        families.stage(pipe).fingerprint
    )


def test_a_folder_without_t5_is_stable_diffusion_3_without_t5(tmp_path):
    pipe = published.sd3(t5=False)
    pipe.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["text_encoder_3"] == [None, None]
    absent = dict(text_encoder_3=None, tokenizer_3=None)
    assert DiffusionPipeline.from_pretrained(tmp_path, **absent).text_encoder_3 is None
    assert iterinv.load(str(tmp_path)).fingerprint == iterinv.load(pipe).fingerprint


def test_an_autoencoder_tile_by_tile_is_told_apart(picture):
    plain, tiled = (iterinv.load(published.sd3(), tiled=each) for each in (False, True))
    assert plain.fingerprint != tiled.fingerprint
    assert (to_uint8(tiled.invert(picture, PROMPT, "bdia", 3).picture) == to_uint8(picture)).all()


def test_a_cascade_of_one_stage_samples_at_a_rectangle():
    assert iterinv.load(published.sd3()).sample(PROMPT, 2, height=48, width=80)[-1].shape == (1, 3, 48, 80)
    assert iterinv.load(published.sd3()).stages[0].unit == 16

"""The shipped cascade has the stated size and format, and inverts, samples and edits as stated."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

import iterinv
from iterinv.cascade import Cascade, resize
from iterinv.edits import DiffEdit, PromptSwap
from iterinv.embedded import FOLDER
from iterinv.embedded.reader import read as read_scene
from iterinv.embedded.scenes import COLORS, Scene, caption, object_mask, render
from iterinv.embedded.seeds import HELD_OUT
from iterinv.embedded.train import RECIPE
from iterinv.images import from_uint8, read, to_uint8
from iterinv.methods import plan
from iterinv.metrics import psnr
from iterinv.steps import BDIA, DDIM
from iterinv.steps.run import run

from conftest import draw, field_of

PICTURES = sorted((Path(__file__).parents[2] / "examples").glob("*.png"))
PROMPT = "a large red shiny sphere on a wooden floor in front of a beige wall"


@pytest.fixture(scope="module")
def cascade():
    return iterinv.load()


def decibels(a, b, where):
    return psnr(to_uint8(a), to_uint8(b), where[0, 0].numpy() > 0) or float("inf")


def recolourings(count):
    names = list(COLORS)
    for k in range(count):
        scene = Scene.random(HELD_OUT + k, things=1)
        yield scene, scene.with_(color=names[(names.index(scene.things[0].color) + 3) % 8])


def nearest_color(picture, scene, size):
    """Return the colour whose recolouring of a scene is nearest to a picture within the thing."""
    inside = object_mask(scene, size)[None]
    return max(COLORS, key=lambda c: decibels(picture, render(scene.with_(color=c), size)[None], inside))


def test_it_is_small_and_readable_and_says_how_it_was_made():
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 30e6
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in files)
    assert not [file for file in files if file.suffix in {".bin", ".pt", ".pkl"}]
    assert (FOLDER / "recipe.yaml").read_text() == RECIPE.read_text()
    assert "iterinv train all" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("k", [0, 1, 2])
def test_diffusers_opens_it_and_samples_what_we_sample(cascade, k):
    """IF's own pipeline and our loop agree to 1e-5, with the same noise and words."""
    absent = dict(safety_checker=None, feature_extractor=None, watermarker=None, requires_safety_checker=False)
    pipe = DiffusionPipeline.from_pretrained(FOLDER / f"stage{k + 1}", dtype=torch.float32, **absent)
    pipe.unet.to(memory_format=torch.channels_last)  # the test compares the loops, so both must sum in one order
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, thresholding=False, clip_sample=False)
    pipe.scheduler.register_to_config(variance_type="fixed_small")
    stage, generator = cascade.stages[k], torch.Generator().manual_seed(7)
    low = draw((1, 3, cascade.stages[k - 1].size, cascade.stages[k - 1].size), 1).clamp(-1, 1) if k else None
    words = dict(prompt_embeds=stage.embed([PROMPT])["text"], negative_prompt_embeds=stage.embed([""])["text"])
    settings = dict(
        num_inference_steps=4, guidance_scale=2.0, output_type="pt", generator=torch.Generator().manual_seed(7)
    )
    theirs = pipe(**words, **settings, **({"image": low, "noise_level": int(stage.low_level.t)} if k else {})).images
    noise = torch.randn(1, 3, stage.size, stage.size, generator=generator)
    on_low = torch.randn(1, 3, stage.size, stage.size, generator=generator) if k else None
    field = field_of(stage, stage.condition(PROMPT, low, on_low), 2.0)
    with torch.no_grad():
        *_, (ours,) = run(DDIM(), field, (noise,), stage.schedule.grid(4))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_shipped_picture_comes_back_exactly_at_every_stage(cascade):
    steps, x = 4, from_uint8(read(PICTURES[0])[0])
    inversion = cascade.invert(x, PICTURES[0].with_suffix(".txt").read_text().strip(), plan("bdia", steps))
    for stage, stage_inversion in zip(cascade.stages, inversion.stages, strict=True):
        assert (to_uint8(stage_inversion.picture) == to_uint8(resize(x, stage.extent))).all()
        assert (stage_inversion.report.forward, stage_inversion.report.backward) == (2 * steps - 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(p.stem for p in PICTURES), "astronaut", "coffee", "chelsea"])
def test_pictures_and_photographs_come_back_exactly_at_the_default_settings(cascade, name):
    from skimage import data

    from iterinv.images import Canvas

    picture = next((read(p)[0] for p in PICTURES if p.stem == name), None)
    frame, _ = Canvas.fit(getattr(data, name)() if picture is None else picture, cascade.extent, "crop")
    inversion = cascade.invert(frame.covered(), "")
    for stage, stage_inversion in zip(cascade.stages, inversion.stages, strict=True):
        assert (to_uint8(stage_inversion.picture) == to_uint8(resize(frame.covered(), stage.extent))).all()
        assert stage_inversion.report.forward == 39
    assert (frame.place(inversion.picture) == frame.image).all()


@pytest.mark.slow
def test_ddim_loses_what_iterinv_keeps(cascade):
    """At stage I, on pictures like the training data, DDIM inversion stays under 40 dB and its solution to a tolerance
    exceeds 45 dB."""
    stage = Cascade(cascade.stages[:1])
    where = torch.ones(1, 1, 32, 32)
    for source, _ in recolourings(2):
        x = from_uint8(to_uint8(render(source, 32)[None]))
        ddim, solved = (stage.invert(x, caption(source), plan(m)).picture for m in ("ddim", "iterinv-anderson"))
        assert decibels(ddim, x, where) < 40
        assert decibels(solved, x, where) > 45


@pytest.mark.slow
def test_exactness_is_not_editability(cascade):
    """Both rules rerun the same exact inversion under other words: the exact pair spoils the background, a damped rule
    does not."""
    stage, background = Cascade(cascade.stages[:1]), {1.0: 0.0, 0.5: 0.0, 0.0: 0.0}
    for source, target in recolourings(4):
        x = from_uint8(to_uint8(render(source, 32)[None]))
        inversion = stage.invert(x, caption(source), plan("bdia", 25))
        outside = (object_mask(source, 32)[None] == 0).float()
        for gamma in background:
            rule = BDIA(gamma) if gamma else DDIM()
            edited = stage.edit(inversion, caption(target), PromptSwap(0.8, 3.0, rule=rule)).pictures[0]
            background[gamma] += decibels(edited, x, outside) / 4
    assert background[0.0] > background[1.0] + 4
    assert background[0.5] > background[1.0] + 4


def test_a_colour_edit_changes_the_colour_and_keeps_the_rest(cascade):
    stage, right = Cascade(cascade.stages[:1]), 0
    for source, target in recolourings(6):
        x = from_uint8(to_uint8(render(source, 32)[None]))
        inversion = stage.invert(x, caption(source), plan("bdia"))
        edit = stage.edit(inversion, caption(target), DiffEdit())
        right += nearest_color(edit.pictures[0], source, 32) == target.things[0].color
        unchanged = edit.masks[0] == 0
        assert 0.5 < unchanged.float().mean() < 0.99
        outside = unchanged.expand_as(x)
        assert (
            to_uint8(edit.pictures[0])[outside[0].permute(1, 2, 0).numpy()]
            == to_uint8(x)[outside[0].permute(1, 2, 0).numpy()]
        ).all()
    assert right >= 5


def test_samples_show_the_colour_asked_for(cascade):
    """The reader nearly always sees the right colour in samples of one sphere per colour."""
    part, right = cascade.up_to(64), 0
    for color in COLORS:
        *_, picture = part.sample(f"a large {color} matte sphere on a plain floor in front of a grey wall", seed=3)
        (attributes,) = read_scene(picture)
        right += [thing.color for thing in attributes.things] == [color]
    assert right >= 7

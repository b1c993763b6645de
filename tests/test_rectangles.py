"""Pictures of other aspect ratios are inverted and edited at rectangles, as exactly as at squares."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import published
from iterinv import families, path_cache
from iterinv.cascade import Cascade
from iterinv.edits import EDITORS
from iterinv.edits.prompt_to_prompt import LARGEST, most_positions
from iterinv.images import from_uint8, to_uint8
from iterinv.reports import inversion_report
from iterinv.store import BadInversion, read_header
from iterinv.workbench import Model, SampleRequest, Workbench

from conftest import call, refused

PROMPT, TARGET = "a red sphere", "a blue cube"
pytestmark = pytest.mark.filterwarnings("ignore:enlarged", "ignore:reduced", "ignore:not square")


def photo(height, width, seed=0):
    """Return a smooth picture (height, width, 3) uint8 with some grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(coarse, int) + rng.integers(-9, 10, (height, width, 3)), 0, 255).astype(np.uint8)


def sd(side=16):
    pipe = published.sd()
    pipe.unet.register_to_config(sample_size=side)
    return Cascade((families.stage(pipe),))


def sdxl():
    return Cascade((families.stage(published.sdxl()),))


def upscaled(tiny):
    """Return a pixel stage of 16 px with the x4 upscaler, which works on latents, above it."""
    return Cascade((tiny.stages[0], families.stage(published.x4(), 1, tiny.stages[0])))


CASCADES = {"tiny": lambda tiny: tiny, "sd": lambda _: sd(), "sdxl": lambda _: sdxl(), "x4": upscaled}


@pytest.mark.parametrize("method", ["bdia", "bdia-fixed"])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (30, 60)])
@pytest.mark.parametrize("name", CASCADES)
def test_every_pixel_comes_back_at_every_stage(tiny, name, shape, method):
    """The states of a rerun by bdia-fixed are those of the inversion bit for bit; a latent is rounded to 40 bits."""
    cascade = CASCADES[name](tiny)
    inversion = cascade.invert(photo(*shape), PROMPT, method, 3, fit="aspect")
    (canvas,), extent = inversion.canvases, inversion.extent
    assert extent[0] != extent[1]
    assert (extent[0] > extent[1]) == (shape[0] > shape[1])
    assert canvas.covered().shape[2:] == extent
    assert (canvas.place(inversion.picture) == canvas.image).all()
    for stage, each in zip(cascade.at(*extent).stages, inversion.stages, strict=True):
        assert each.picture.shape[2:] == stage.extent
        assert each.path[-1].shape[1:] == stage.shape
        assert (to_uint8(each.picture) == to_uint8(each.origin.picture)).all()
        fixed = 0 if stage.codec is None else 2.0**-40
        assert each.report.residual_max <= (1e-9 if method == "bdia" else fixed)


@pytest.mark.parametrize("name", CASCADES)
def test_a_square_picture_is_inverted_as_by_padding(tiny, name):
    cascade = CASCADES[name](tiny)
    padded, shaped = (cascade.invert(photo(50, 50), PROMPT, "bdia", 3, fit=fit) for fit in ("pad", "aspect"))
    for a, b in zip(padded.stages, shaped.stages, strict=True):
        assert torch.equal(a.noise, b.noise)
        assert torch.equal(a.picture, b.picture)


def test_a_batch_is_its_pictures_alone(tiny):
    """In float64, where a batch and a picture alone agree, and by the first stage alone."""
    cascade = published.single("added", tiny)
    pictures = [photo(40, 60, seed) for seed in (1, 2)]
    both = cascade.invert(pictures, [PROMPT, TARGET], "bdia", 3, seed=[4, 5], fit="aspect")
    for k, (picture, prompt, seed) in enumerate(zip(pictures, [PROMPT, TARGET], [4, 5], strict=True)):
        alone = cascade.invert(picture, prompt, "bdia", 3, seed=seed, fit="aspect")
        torch.testing.assert_close(both.noise[k : k + 1], alone.noise, rtol=0, atol=1e-9)
        assert (to_uint8(both.row(k).picture) == to_uint8(alone.picture)).all()


def test_pictures_of_two_rectangles_are_no_batch(tiny):
    with pytest.raises(ValueError, match=r"worked on at 80x56 and 56x80 px, .* invert them one by one"):
        tiny.invert([photo(40, 60), photo(60, 40)], PROMPT, fit="aspect")


def test_a_tensor_of_a_cascades_extent_is_a_batch(tiny):
    """A cascade that is at a rectangle pads and crops to it, and takes tensors of it as they are."""
    at, x = tiny.at(56, 80), from_uint8(photo(56, 80))
    batch = at.invert(torch.cat([x, x.flip(-1)]), PROMPT, num_inference_steps=2)
    assert len(batch) == 2
    assert batch.extent == (56, 80)
    assert at.invert(photo(40, 40), PROMPT, num_inference_steps=2, fit="crop").extent == (56, 80)
    assert torch.equal(batch.stages[-1].origin.picture[:1].float(), x)


@pytest.mark.parametrize("name", ["tiny", "x4"])
def test_a_file_gives_the_same_bytes_and_edits_again(tiny, tmp_path, name):
    cascade, file = CASCADES[name](tiny), tmp_path / "a.safetensors"
    inversion = cascade.invert(photo(40, 60), PROMPT, "bdia", 3, fit="aspect")
    inversion.save(file)
    assert read_header(file)["canvases"][0]["size"] == list(inversion.extent)
    again = cascade.open(file)
    assert again.extent == inversion.extent
    rerun = cascade.rerun(again)
    assert rerun.stages[-1].rerun.pixels
    assert torch.equal(rerun.noise, inversion.noise)
    again.save(tmp_path / "b.safetensors")
    assert file.read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    first, second = (cascade.edit(each, TARGET, "prompt-swap") for each in (inversion, again))
    assert (to_uint8(first.pictures[-1]) == to_uint8(second.pictures[-1])).all()
    report = inversion_report(cascade, inversion, 1.0, [])
    assert [(each["width"], each["height"]) for each in report["stages"]][-1] == inversion.extent[::-1]
    assert report["reconstruction"]["exact_pixels"] == 1
    assert {"tiny": "of 20x14 -> 40x28 -> 80x56 px", "x4": "of 24x16 -> 96x64 px"}[name] in repr(again)


def test_a_squares_file_says_its_side_as_it_always_did(tiny, tmp_path):
    tiny.invert(photo(40, 60), PROMPT, "bdia", 2).save(tmp_path / "a.safetensors")
    assert read_header(tmp_path / "a.safetensors")["canvases"][0]["size"] == 64


def test_states_that_an_edit_asked_for_are_kept_beside_the_file(tiny, tmp_path):
    file = tmp_path / "a.safetensors"
    tiny.invert(photo(40, 60), PROMPT, "bdia", 4, fit="aspect").save(file)
    opened = tiny.as_needed(tiny.open(file))
    edit = tiny.edit(opened, TARGET, "prompt-swap")
    path_cache.save(path_cache.place(file), opened)
    known = tiny.as_needed(tiny.open(file), path=path_cache.place(file))
    assert known.stages[0].trajectory.depth == opened.stages[0].trajectory.depth > 0
    assert torch.equal(tiny.edit(known, TARGET, "prompt-swap").pictures[-1], edit.pictures[-1])


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ([56, 84], "multiples of 8|does not lie under"),
        ([56, 80, 1], "has 3 entries, not 2"),
        ([56, -80], "is -80; it is 1 to 10000"),
        ([80, 56], "does not lie under a rectangle of 56x80 px"),
        (64, "does not lie under a square of 64 px"),
        ("56x80", "a str; it is a whole number"),
    ],
)
def test_a_forged_rectangle_is_refused(tiny, tmp_path, size, words):
    from safetensors import safe_open
    from safetensors.torch import save_file

    from iterinv.store import checksum

    file = tmp_path / "a.safetensors"
    tiny.invert(photo(40, 60), PROMPT, "bdia", 2, fit="aspect").save(file)
    with safe_open(file, framework="pt") as f:
        tensors, header = {name: f.get_tensor(name) for name in f.keys()}, json.loads(f.metadata()["iterinv"])  # noqa: SIM118
    header["canvases"][0]["size"] = size
    header.pop("sha256")
    save_file(tensors, file, {"iterinv": json.dumps({"sha256": checksum(header, tensors), **header})})
    with pytest.raises(BadInversion, match=words):
        tiny.open(file)


def masked(height, width):
    """Return a mask with a box of the middle."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 3 : width // 2] = 255
    return mask


@pytest.mark.parametrize("name", CASCADES)
def test_a_mask_keeps_every_pixel_outside(tiny, name):
    cascade, mask = CASCADES[name](tiny), masked(40, 60)
    inversion = cascade.invert(photo(40, 60), PROMPT, "bdia", 4, fit="aspect")
    edit = cascade.edit(inversion, TARGET, "prompt-swap", mask=mask)
    (canvas,), region = inversion.canvases, edit.region(0)
    edited = canvas.place(edit.pictures[-1])
    assert region.shape == edited.shape[:2] == canvas.image.shape[:2]
    assert 0 < (region > 0).mean() < 0.5
    assert (edited == canvas.image).all(-1)[region == 0].all()
    assert (edited != canvas.image).any()
    (own,) = edit.at_own_size()
    assert own.values.shape == (40, 60, 3)
    assert (own.values == photo(40, 60))[mask == 0].all()


@pytest.mark.parametrize("editor", EDITORS)
def test_every_editor_works_at_a_rectangle(tiny, editor):
    inversion = tiny.invert(photo(40, 60), PROMPT, "bdia", 3, fit="aspect")
    edit = tiny.edit(inversion, TARGET, editor, mask=masked(40, 60))
    assert [each.shape[2:] for each in edit.pictures] == [(14, 20), (28, 40), (56, 80)]
    (canvas,) = inversion.canvases
    outside = edit.region(0) == 0
    assert (canvas.place(edit.pictures[-1]) == canvas.image)[outside].all()


def test_the_same_layers_are_attended_at_a_rectangle_as_at_the_square():
    """The maps of Prompt-to-Prompt are those of layers up to 32 x 32 positions: at 448 x 640 px those of 28 x 40."""
    stage = replace(sd().stages[0], size=512)
    assert most_positions(stage) == LARGEST
    assert most_positions(stage.at((448, 640))) == 28 * 40
    assert most_positions(stage.at((384, 768))) == 24 * 48


@pytest.mark.parametrize("editor", ["prompt-to-prompt", "ledits"])
def test_the_maps_of_words_are_of_the_rectangles_shape(editor):
    """Lying and upright: the maps have the height and width of the states."""
    cascade = sdxl()
    for shape in ((40, 60), (60, 40)):
        inversion = cascade.invert(photo(*shape), "a b", "bdia", 3, fit="aspect")
        settings = {"local_blend": True} if editor == "prompt-to-prompt" else {}
        edit = cascade.edit(inversion, "a c", EDITORS[editor](**settings))
        assert edit.pictures[-1].shape[2:] == inversion.extent


def test_samples_have_the_height_and_width_that_are_asked_for(tiny):
    pictures = tiny.sample(PROMPT, 2, height=48, width=96)
    assert [tuple(x.shape) for x in pictures] == [(1, 3, 12, 24), (1, 3, 24, 48), (1, 3, 48, 96)]
    assert torch.equal(tiny.sample(PROMPT, 2, width=96)[-1], tiny.sample(PROMPT, 2, height=64, width=96)[-1])
    assert torch.equal(tiny.sample(PROMPT, 2)[-1], tiny.sample(PROMPT, 2, height=64, width=64)[-1])
    assert tiny(PROMPT, num_inference_steps=2, height=48, width=96).images[0].size == (96, 48)
    two = tiny.sample(PROMPT, 2, num_images_per_prompt=2, height=48, width=96, batch_size=1)
    torch.testing.assert_close(two[-1][:1], pictures[-1], rtol=0, atol=1e-6)


def test_the_workbench_and_the_command_line_draw_and_invert_at_rectangles(tiny_folder, tmp_path):
    request = SampleRequest(PROMPT, num_inference_steps=2, height=48, width=96, model=Model(str(tiny_folder)))
    assert Workbench().sample(request)[0].size == (96, 48)
    Image.fromarray(photo(80, 120)).save(tmp_path / "photo.png")
    model = ("--model", tiny_folder, "--steps", 3)
    run = call("sample", PROMPT, *model, "--height", 48, "--width", 96, "--out", tmp_path / "s")
    assert run.exit_code == 0
    assert "96x48 px" in run.output
    run = call("invert", tmp_path / "photo.png", "-p", PROMPT, *model, "--fit", "aspect", "--out", tmp_path / "i")
    assert run.exit_code == 0, run.output
    assert "80x56" in run.output
    assert "exact" in run.output
    stages = json.loads((tmp_path / "i" / "report.json").read_text())["stages"]
    assert [(each["size"], each["width"], each["height"]) for each in stages] == [
        (16, 20, 14),
        (32, 40, 28),
        (64, 80, 56),
    ]
    edit = ("edit", tmp_path / "photo.png", "-p", PROMPT, "--to", TARGET, *model, "--box", "20,20,40,40")
    run = call(*edit, "--fit", "aspect", "--editor", "prompt-swap", "--out", tmp_path / "e")
    assert run.exit_code == 0, run.output
    edited = np.asarray(Image.open(tmp_path / "e" / "edited.png"))
    assert edited.shape == (80, 120, 3)
    outside = np.ones((80, 120), bool)
    outside[20:60, 20:60] = False
    assert (edited == photo(80, 120))[outside].all()
    refused("multiples of 8", "sample", PROMPT, *model, "--height", 50, "--out", tmp_path / "r")
    refused("not one of pad, crop, aspect", "invert", tmp_path / "photo.png", "-p", PROMPT, *model, "--fit", "shape")

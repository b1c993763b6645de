"""An edit's change is carried up to the pixels of the picture's own file, and all other pixels are the file's."""

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from iterinv.edits import AdaptiveFlow, StageEdit
from iterinv.edits.own_size import carry_up
from iterinv.edits.site import Edit
from iterinv.edits.structure import edge_slope
from iterinv.images import Canvas, read, to_own_pixels
from iterinv.masks import GivenMask
from iterinv.reading import UPRIGHT, Original, read_original
from iterinv.reading.colour import srgb_profile
from iterinv.workbench import EditRequest, InvertRequest, Model, ReopenRequest, Workbench
from iterinv.writing import write_png

from conftest import call, refused

sys.path.insert(0, str(Path(__file__).parents[1] / "reading"))
from made import grey_profile, rgb_png, rgb_profile

PROMPT, TARGET = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"
SIZE = 32


def photo(h=150, w=200, seed=0, dtype=np.uint8):
    """Make a picture (h, w, 3) of slow colours under fine grain."""
    y, x = np.mgrid[:h, :w] / max(h, w)
    rng = np.random.default_rng(seed)
    waves = np.stack([np.sin(5 * x + k) * np.cos(4 * y - k) for k in range(3)], -1)
    values = 0.5 + 0.25 * waves + rng.normal(0, 0.03, (h, w, 3))
    return np.rint(values.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


def edit_of(picture, change=(40.0, -30.0, 20.0), fit="pad", region=(10, 22, 9, 25), limits=()):
    """Make the edit of a picture at SIZE px, whose square changes by so many levels in the middle, smoothly."""
    array = picture.shown if isinstance(picture, Original) else picture
    canvas, _ = Canvas.fit(array, (SIZE, SIZE), fit)
    square, (top, bottom, left, right) = canvas.covered(), region
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., top:bottom, left:right] = 1
    y, x = (torch.linspace(0, torch.pi, n + 2)[1:-1].sin() for n in (bottom - top, right - left))
    bump = torch.zeros_like(mask)
    bump[..., top:bottom, left:right] = y[:, None] * x
    edited = (square + bump * torch.tensor(change).reshape(1, 3, 1, 1) / 127.5).clamp(-1, 1)
    return Edit((StageEdit(edited, mask),), (canvas,), prompts=("",), limits=limits)


def file_of(tmp_path, kind):
    """Write a picture file of a kind; returns its path and its own values (h, w, c)."""
    eight, path = photo(), tmp_path / f"{kind}.png"
    alpha = np.random.default_rng(5).integers(0, 256, (*eight.shape[:2], 1), dtype=np.uint8)
    alpha[:40] = 0
    arrays = {
        "RGB": eight,
        "L": eight[..., :1],
        "LA": np.concatenate([eight[..., :1], alpha], 2),
        "RGBA": np.concatenate([eight, alpha], 2),
    }
    name, depth, *_ = f"{kind}-8".split("-")
    if name == "P":
        Image.fromarray(eight).quantize(60).save(path)
        return path, np.array(Image.open(path).convert("RGB"))
    if name in ("P3", "grey"):
        array = arrays["RGB" if name == "P3" else "L"].squeeze()
        Image.fromarray(array).save(path, icc_profile=rgb_profile("P3", 2.2) if name == "P3" else grey_profile(1.8))
        return path, array.reshape(*eight.shape[:2], -1)
    if name == "gamma":
        path.write_bytes(rgb_png(eight, (b"gAMA", struct.pack(">I", 100000))))
        return path, eight
    values = arrays[name]
    if depth == "16":
        low = np.random.default_rng(6).integers(0, 256, values.shape, dtype=np.uint8)
        values = values * np.uint16(256) + low
    write_png(path, values)
    return path, values


KINDS = ["RGB", "L", "LA", "RGBA", "P", "P3", "grey", "gamma", "RGB-16", "L-16", "LA-16", "RGBA-16"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_outside_the_region_is_the_files_own(tmp_path, kind):
    path, values = file_of(tmp_path, kind)
    (own,) = edit_of(read_original(path)).at_own_size(path)
    own.save(tmp_path / "edited.png")
    again = read_original(tmp_path / "edited.png")
    assert (again.values.dtype, again.encoding.plain) == (values.dtype, read_original(path).encoding.plain)
    colours = values.shape[2] - 1 if kind[1:2] == "A" or kind.startswith("RGBA") else values.shape[2]
    outside = own.region == 0
    assert 0.5 < outside.mean() < 0.95
    assert (again.values[outside] == values[..., :colours][outside]).all()
    if colours < values.shape[2]:
        assert (again.alpha == values[..., -1]).all()
        assert (again.values[again.alpha == 0] == values[..., :colours][again.alpha == 0]).all()
    else:
        assert again.alpha is None
    inside = np.zeros(outside.shape, bool)
    inside[70:80, 95:105] = True  # the change is whole in the middle
    inside &= again.alpha is None or again.alpha > 2**15 * (again.alpha.dtype == np.uint16) + 127
    change = (again.shown.astype(float) - read(path)[0])[inside].mean(0)
    if kind == "grey":
        assert np.ptp(change) == 0
        assert 1 < np.abs(change).max() < 8
    else:
        assert np.abs(change - [40, -30, 20]).max() < 5
    if kind in ("P3", "grey"):
        icc = rgb_profile("P3", 2.2) if kind == "P3" else grey_profile(1.8)
        assert Image.open(tmp_path / "edited.png").info["icc_profile"] == icc == own.image.info["icc_profile"]
    assert bool(own.notes) == (kind == "grey")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_turned_upright_exactly(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(photo()).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    turn = UPRIGHT.get(orientation, lambda x: x)
    for name in ("a.png", "a.jpg"):
        (own,) = edit_of(read(tmp_path / name)[0]).at_own_size(tmp_path / name)
        want = turn(np.array(Image.open(tmp_path / name)))
        assert own.values.shape == want.shape
        assert (own.values == want)[own.region == 0].all()
        assert own.changed > 0.05
        own.save(tmp_path / "b.png")
        assert (read(tmp_path / "b.png")[0] == own.values).all()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_sixteen_bits_of_tiff_are_turned_too(tmp_path, orientation):
    values = photo(dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    (own,) = edit_of(read_original(tmp_path / "a.tif")).at_own_size(tmp_path / "a.tif")
    want = UPRIGHT.get(orientation, lambda x: x)(values)
    assert (own.values == want)[own.region == 0].all()
    assert own.image.size == want.shape[1::-1]


def test_a_grey_file_stays_grey_unless_the_edit_has_colours(tmp_path):
    path, values = file_of(tmp_path, "L-16")
    original = read_original(path)
    (grey,) = edit_of(original, change=(30.0, 30.0, 30.0)).at_own_size(path)
    assert grey.values.shape == values.shape
    assert (grey.values == values)[grey.region == 0].all()
    assert grey.values[75, 100, 0] - int(values[75, 100, 0]) == pytest.approx(30 * 257, abs=1000)
    (coloured,) = edit_of(original).at_own_size(path)
    assert (coloured.values == values)[coloured.region == 0].all()
    assert coloured.values.shape == (150, 200, 3)


def test_a_cmyk_file_is_written_in_srgb(tmp_path):
    Image.fromarray(photo()).convert("CMYK").save(tmp_path / "a.tif")
    (own,) = edit_of(read(tmp_path / "a.tif")[0]).at_own_size(tmp_path / "a.tif")
    assert "cannot be written to a PNG file as they are" in own.notes[0]
    assert (own.values == read(tmp_path / "a.tif")[0])[own.region == 0].all()
    assert own.image.info["icc_profile"] == srgb_profile()


def test_premultiplied_sixteen_bits_of_tiff_keep_their_alpha(tmp_path):
    values = np.concatenate([photo(dtype=np.uint16), photo(dtype=np.uint16, seed=1)[..., :1]], 2)
    how = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", values, **how)
    (own,) = edit_of(read_original(tmp_path / "a.tif")).at_own_size(tmp_path / "a.tif")
    own.save(tmp_path / "b.png")
    assert (own.array == values)[own.region == 0].all()
    again = read_original(tmp_path / "b.png")
    assert (np.dstack([again.values, again.alpha]) == own.array).all()


def test_the_carried_change_is_the_edit_when_it_is_reduced_again():
    for picture in (photo(), photo(600, 400, 1)):
        edit = edit_of(picture)
        (own,) = edit.at_own_size(picture)
        canvas = edit.canvases[0]
        h, w = canvas.image.shape[:2]
        small = np.asarray(Image.fromarray(own.values).resize((w, h), Image.Resampling.LANCZOS), float)
        assert np.abs(small - np.array(edit.images[0])).mean() < 0.3
        assert np.abs(small - np.array(edit.images[0])).max() <= 4


def test_at_the_models_size_it_is_the_edit_itself():
    picture = photo(SIZE, SIZE)
    edit = edit_of(picture)
    (own,) = edit.at_own_size(picture)
    assert (own.values == np.array(edit.images[0])).all()
    assert ((own.region > 0) == (edit.region(0) > 0)).all()


@pytest.mark.parametrize("shape", [(20, 28), (24, 24)])
def test_a_picture_smaller_than_the_model_keeps_its_size(shape):
    picture = photo(*shape)
    edit = edit_of(picture)
    (own,) = edit.at_own_size(picture)
    assert own.values.shape == picture.shape
    assert (own.values == picture)[own.region == 0].all()
    middle = np.s_[shape[0] // 2, shape[1] // 2]
    assert np.abs(own.values[middle].astype(float) - picture[middle] - [40, -30, 20]).max() < 8


def test_an_aspect_ratio_of_one_to_twenty():
    picture = photo(40, 800)
    with pytest.raises(ValueError, match="cut it to a squarer shape, or crop"):
        edit_of(picture)
    edit = edit_of(picture, fit="crop")
    edit = replace(edit, stages=(replace(edit.stages[0], mask=None),))
    (own,) = edit.at_own_size(picture)
    assert own.values.shape == picture.shape
    columns = np.flatnonzero((own.region > 0).any(0))
    assert (columns[0], columns[-1]) == (380, 419)  # the square in the middle
    assert (own.values == picture)[own.region == 0].all()
    assert (own.values != picture).any()
    tall = photo(800, 80)
    (own,) = edit_of(tall, region=(10, 22, 15, 17), fit="crop").at_own_size(tall)
    assert own.values.shape == tall.shape


def test_no_seam_is_seen():
    """Steps across the border of the region, and in the fade, are as the picture's own there; its grain stays."""
    y, x = np.mgrid[:480, :640] / 480
    smooth = np.rint(np.stack([120 + 80 * x, 90 + 60 * y, 140 - 40 * x], -1)).astype(np.uint8)
    for picture in (photo(480, 640), smooth):
        (own,) = edit_of(picture).at_own_size(picture)
        inside = own.region > 0
        for axis in (0, 1):
            after, before = (np.abs(np.diff(each.astype(int), axis=axis)) for each in (own.values, picture))
            border = np.diff(inside.astype(int), axis=axis) != 0
            assert after[border].mean() <= 1.5 * before[border].mean()
            if picture is not smooth:
                fade = np.delete((own.region > 0) & (own.region < 255), 0, axis)
                assert after[fade].mean() <= 1.1 * before[fade].mean()
                assert after[200:280, 280:360].mean() == pytest.approx(before[200:280, 280:360].mean(), rel=0.05)


def test_the_seam_of_a_change_that_is_cut_fades():
    picture = photo(480, 640)
    mask = np.zeros((480, 640), bool)
    mask[200:280, 250:390] = True
    (own,) = edit_of(picture, limits=(mask,)).at_own_size(picture)
    assert (own.values == picture)[~mask].all()
    assert ((own.region > 0) <= mask).all()
    assert own.region[240, 320] == 255
    assert own.region[200, 320] < 20
    assert np.abs(np.diff(own.values.astype(int) - picture, axis=0)).max() <= 6  # of 40 levels, over 20 pixels


def test_nothing_changes_where_the_edit_is_the_picture(tmp_path):
    for kind in ("RGB", "RGBA-16", "P3", "grey", "L"):
        path, _ = file_of(tmp_path, kind)
        original = read_original(path)
        (own,) = edit_of(original, change=(0.0, 0.0, 0.0)).at_own_size(path)
        assert own.changed == 0
        assert own.values.shape == original.values.shape
        assert (own.values == original.values).all()


def test_a_new_colour_ends_where_the_old_one_does():
    """A red disc becomes blue: at 20 times the model's size its edge is as sharp as before, and its grain stays."""
    y, x = np.mgrid[:640, :640]
    disc = (np.hypot(y - 320, x - 330) < 140)[..., None]
    grain = np.random.default_rng(0).normal(0, 3, (640, 640, 1))
    picture, wanted = (
        np.rint(np.where(disc, colour, (150, 140, 120)) + grain).clip(0, 255).astype(np.uint8)
        for colour in ((190, 40, 50), (40, 60, 190))
    )
    before, after = (
        np.array(Image.fromarray(each).resize((64, 64), Image.Resampling.LANCZOS)) for each in (picture, wanted)
    )
    mask = np.zeros((64, 64), np.uint8)
    mask[14:50, 15:51] = 255
    own = carry_up(Original.of_array(picture), before, after, mask)
    off = np.abs(own.values.astype(float) - wanted)
    plain = np.asarray(Image.fromarray(after).resize((640, 640), Image.Resampling.LANCZOS), float)
    near = np.abs(np.hypot(y - 320, x - 330) - 140) < 10
    assert off[near].mean() < 0.5 * np.abs(plain - wanted)[near].mean()
    assert off.mean() < 1.5
    inner = np.hypot(y - 320, x - 330) < 100
    assert np.corrcoef(own.values[inner][:, 2], picture[inner][:, 2])[0, 1] > 0.9


def test_no_ghost_of_the_old_thing_is_left():
    """The fine stripes of a thing vanish with it."""
    picture = np.full((640, 640, 3), 150, np.uint8)
    striped = picture.copy()
    striped[240:400, 240:400] = np.where(np.arange(160)[:, None] // 2 % 2, 60, 90)[..., None]
    before, after = (
        np.array(Image.fromarray(each).resize((64, 64), Image.Resampling.LANCZOS)) for each in (striped, picture)
    )
    after = after.copy()
    rng = np.random.default_rng(1)
    after[25:39, 25:39] = rng.integers(100, 200, (14, 14, 1))  # drawn anew, with an outline of its own
    mask = np.zeros((64, 64), np.uint8)
    mask[20:44, 20:44] = 255
    own = carry_up(Original.of_array(striped), before, after, mask)
    steps = np.abs(np.diff(own.values[280:360, 280:360].astype(float), axis=0)).mean()
    assert steps < 0.5 * np.abs(np.diff(striped[280:360, 280:360].astype(float), axis=0)).mean()
    plain = np.asarray(Image.fromarray(after).resize((640, 640), Image.Resampling.BICUBIC), float)
    assert np.abs(own.values - plain)[280:360, 280:360].mean() < 6


def test_the_slope_explains_edges_of_hue_and_neither_gradients_nor_grain():
    x = torch.linspace(0, 1, 40, dtype=torch.float64).expand(40, 40)
    contrast, change = torch.tensor([0.4, -0.8, -0.6]).double(), torch.tensor([-1.2, 0.1, 1.1]).double()
    edge = contrast.reshape(1, 3, 1, 1) * (x < 0.5)
    slope = edge_slope(edge, change.reshape(1, 3, 1, 1) * (x < 0.5))[0, :, :, 20, 20]
    torch.testing.assert_close(contrast @ slope, change, rtol=0.1, atol=0)
    assert float(slope.sum(0).abs().max()) < 0.15  # of grain that is grey
    ramps = torch.stack([x, x.T, x + x.T])[None]
    assert float(edge_slope(ramps, 3 * ramps + 0.1)[..., 4:-4, 4:-4].abs().max()) < 1e-9


def test_bands_do_not_show(monkeypatch):
    picture = photo(300, 200)
    mask = np.zeros((300, 200), bool)
    mask[90:200, 60:150] = True
    whole = edit_of(picture, limits=(mask,)).at_own_size(picture)[0]
    monkeypatch.setattr("iterinv.edits.own_size.BAND", 2000)
    monkeypatch.setattr("iterinv.edits.own_size.STRIP", 5)
    assert (edit_of(picture, limits=(mask,)).at_own_size(picture)[0].values == whole.values).all()


def test_another_picture_is_refused():
    edit = edit_of(photo())
    with pytest.raises(ValueError, match=r"another picture than the inverted one \(it differs by"):
        edit.at_own_size(photo()[::-1].copy())
    with pytest.raises(ValueError, match=r"another picture than the inverted one \(it is 100x300 px"):
        edit.at_own_size(photo(300, 100))
    with pytest.raises(ValueError, match="2 originals for 1 pictures"):
        edit.at_own_size([photo(), photo()])
    with pytest.raises(ValueError, match=r"end it in \.png"):
        edit.at_own_size(photo())[0].save("edited.jpg")
    with pytest.raises(ValueError, match="reopened holds its picture at the model's size alone: give the original"):
        edit.at_own_size()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_files_are_read_by_others_as_they_were_written(tmp_path, channels, dtype):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (130, 17, channels), dtype=dtype)
    write_png(tmp_path / "a.png", values)
    again = read_original(tmp_path / "a.png")
    assert (np.dstack([again.values] + [again.alpha] * (again.alpha is not None)) == values).all()
    if dtype == np.uint8:
        assert (np.array(Image.open(tmp_path / "a.png")).reshape(values.shape) == values).all()
    elif channels == 1:
        assert (np.array(Image.open(tmp_path / "a.png")) == values[..., 0]).all()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "photo.png"
    Image.fromarray(photo(240, 320)).save(path)
    return path


@pytest.mark.filterwarnings("ignore:.*")
def test_python_gives_the_pictures_own_size(tiny, large):
    small = tiny.up_to(16)
    mask = np.zeros((240, 320), np.uint8)
    mask[60:180, 80:240] = 255
    both = small.invert([large, photo(100, 100, 3)], PROMPT, num_inference_steps=2)
    edit = small.edit(both, TARGET, "flowedit", mask=[mask, np.ones((10, 10))])
    one, two = edit.at_own_size()
    assert [own.image.size for own in (one, two)] == [(320, 240), (100, 100)]
    assert (one.values == np.array(Image.open(large)))[mask == 0].all()
    assert (one.values != np.array(Image.open(large))).any()
    assert "320 x 240 px, worked out at 16 x 12" in repr(one)
    same = small.edit(both, PROMPT, AdaptiveFlow(strength=0.5), mask=[mask, np.ones((10, 10))])
    assert (same.at_own_size()[0].values == np.array(Image.open(large))).all()


def test_the_workbench_and_the_command_line_write_it(tiny_folder, large, tmp_path):
    model, values = tiny_folder / "stage1", np.array(Image.open(large))
    how = "--to", TARGET, "--model", model, "--box", "80,60,160,120", "--editor", "flowedit"
    words = "edit", large, "--prompt", PROMPT, "--steps", 3, "--keep-inversion", *how
    done = call(*words, "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    edited, mask = (np.array(Image.open(tmp_path / "a" / f"{name}.png")) for name in ("edited", "mask"))
    assert edited.shape == (240, 320, 3)
    assert (edited == values)[mask == 0].all()
    assert not mask[:60].any()
    assert not mask[:, 240:].any()
    own = json.loads((tmp_path / "a" / "report.json").read_text())["edits"][0]["own_size"]
    assert (own["width"], own["height"], own["bits"]) == (320, 240, 8)
    assert own["worked_at"] == {"height": 12, "width": 16}
    assert own["region"] == pytest.approx((mask > 0).mean())
    assert own["changed"] == pytest.approx((edited != values).any(-1).mean())
    assert "size: 320x240 px, worked out at 16x12" in done.output
    again = "edit", "--inversion", tmp_path / "a" / "inversion.safetensors", *how
    assert call(*again, "--original", large, "--out", tmp_path / "b").exit_code == 0
    assert (np.array(Image.open(tmp_path / "b" / "edited.png")) == edited).all()
    small = call(*words, "--size", "model", "--out", tmp_path / "c")
    assert small.exit_code == 0, small.output
    assert Image.open(tmp_path / "c" / "edited.png").size == (16, 12)
    assert "own_size" not in json.loads((tmp_path / "c" / "report.json").read_text())["edits"][0]


def test_an_inversion_alone_is_edited_at_the_models_size(tiny_folder, large, tmp_path):
    model = Model(str(tiny_folder / "stage1"))
    source = InvertRequest(large, PROMPT, num_inference_steps=2, model=model)
    Workbench().invert(source).inversion.save(tmp_path / "a.safetensors")
    file = ReopenRequest(tmp_path / "a.safetensors", model)
    result = Workbench().edit(EditRequest(file, (TARGET,), "flowedit"))
    assert any("with --original" in note for note in result.notes)
    assert result.original is None
    Image.fromarray(photo(240, 320, 9)).save(tmp_path / "other.png")
    for words, request in (
        ("give the picture's file as the original", EditRequest(file, (TARGET,), size="own")),
        ("size is 'huge'", EditRequest(file, (TARGET,), size="huge")),
        ("another picture", EditRequest(file, (TARGET,), original=photo(240, 320)[:, ::-1].copy())),
        ("the picture itself is the original", EditRequest(source, (TARGET,), original=large)),
        ("the box reaches outside", EditRequest(file, (TARGET,), mask=GivenMask(box=(100, 100, 20, 20)))),
    ):
        with pytest.raises(ValueError, match=words):
            Workbench().edit(request)
    refused("size is 'huge'", "edit", large, "-p", PROMPT, "-t", TARGET, "--size", "huge", "--model", model.name)


def test_a_transparent_colour_of_a_palette_or_a_key_becomes_alpha(tmp_path):
    values = photo()
    key = tuple(int(v) for v in values[3, 4])
    tail = struct.pack(">3H", *key)
    (tmp_path / "a.png").write_bytes(rgb_png(values, (b"tRNS", tail)))
    original = to_own_pixels(tmp_path / "a.png")
    assert (original.alpha == np.where((values == key).all(-1), 0, 255)).all()
    assert (original.values == values).all()

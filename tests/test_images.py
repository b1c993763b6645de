import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iterinv.images import BadPicture, Canvas, difference, fits, from_uint8, read, strip, to_uint8

EXTENTS = st.sampled_from([(64, 64), (48, 80), (80, 40)])


def pixels(h, w, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_eight_bits_go_both_ways(h, w, seed):
    picture = pixels(h, w, seed)
    assert (to_uint8(from_uint8(picture)) == picture).all()
    assert (to_uint8(from_uint8(picture).double()) == picture).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), EXTENTS, st.sampled_from(["pad", "crop", "aspect"]))
def test_a_picture_of_any_shape_comes_back_whole(h, w, extent, how):
    """The picture is fitted to a rectangle and its part put back: every pixel at working scale returns, and none of the
    padding."""
    frame, notes = Canvas.fit(pixels(h, w), extent, how)
    part = frame.covered()
    assert part.shape == (1, 3, *extent)
    assert (frame.place(part) == frame.image).all()
    sides = frame.image.shape[:2]
    gaps = [side - own for side, own in zip(sides, extent, strict=True)]
    assert (min(gaps) if how == "crop" else max(gaps)) == 0
    assert sides[0] / sides[1] == pytest.approx(h / w, rel=0.1)
    assert bool(notes) == ((h, w) != extent)


def test_a_square_of_the_right_size_is_taken_as_it_is():
    picture = pixels(64, 64)
    frame, notes = Canvas.fit(picture, (64, 64))
    assert notes == []
    assert (to_uint8(frame.covered()) == picture).all()


def test_cropping_works_on_the_middle_and_puts_it_back():
    frame, notes = Canvas.fit(pixels(64, 128), (64, 64), "crop")
    placed = frame.place(from_uint8(np.zeros((64, 64, 3), np.uint8)))
    assert (placed[:, 32:96] == 0).all()
    assert (placed[:, :32] == frame.image[:, :32]).all()
    assert any("only its middle" in note for note in notes)


def test_padding_repeats_the_edge():
    frame, _ = Canvas.fit(pixels(32, 64), (64, 64), "pad")
    square = to_uint8(frame.covered())
    assert (square[:16] == square[16]).all()
    assert (square[48:] == square[47]).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="not one of pad, crop, aspect"):
        Canvas.fit(pixels(64, 64), (64, 64), "stretch")
    with pytest.raises(BadPicture, match="cut it to a squarer shape"):
        Canvas.fit(pixels(16, 1000), (64, 64))
    with pytest.raises(BadPicture, match="cut it shorter"):
        Canvas.fit(np.zeros((16, 100_000, 3), np.uint8), (1024, 1024), "crop")


MODES = {
    "L": ("png", "grey"),
    "P": ("png", "palette"),
    "CMYK": ("jpg", "CMYK"),
    "1": ("png", "black and white"),
    "RGBA": ("png", "hides nothing"),
    "LA": ("png", "grey"),
}


@pytest.mark.parametrize("mode", MODES)
def test_other_modes_are_converted_and_told(tmp_path, mode):
    suffix, note = MODES[mode]
    Image.fromarray(pixels(20, 30)).convert(mode).save(tmp_path / f"a.{suffix}")
    picture, notes = read(tmp_path / f"a.{suffix}")
    assert picture.shape == (20, 30, 3)
    assert any(note in n for n in notes)


def test_an_rgb_picture_is_read_without_a_word(tmp_path):
    Image.fromarray(pixels(20, 30)).save(tmp_path / "a.png")
    picture, notes = read(tmp_path / "a.png")
    assert (picture == pixels(20, 30)).all()
    assert notes == []


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "a.png")
    picture, _ = read(tmp_path / "a.png")
    assert (picture == 255).all()


def test_sixteen_bits_are_reduced_not_cut(tmp_path):
    grey = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    Image.fromarray(grey).save(tmp_path / "a.png")
    picture, notes = read(tmp_path / "a.png")
    assert any("16 bits" in note for note in notes)
    assert np.abs(picture[..., 0].astype(float) - grey / 257).max() <= 0.51


def test_sixteen_bit_colour_is_told(tmp_path):
    """Pillow opens a 16-bit colour PNG as 8-bit RGB without a word."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels(20, 20).astype(np.uint16) * 257)
    header = struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    picture, notes = read(tmp_path / "a.png")
    assert (picture == pixels(20, 20)).all()
    assert any("16 bits" in note for note in notes)


def test_exif_rotation_is_applied_and_told(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(20, 40)).save(tmp_path / "a.jpg", exif=exif)
    picture, notes = read(tmp_path / "a.jpg")
    assert picture.shape == (40, 20, 3)
    assert any("EXIF" in note for note in notes)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (20, 20), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    picture, notes = read(tmp_path / "a.gif")
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert any("animation of 2" in note for note in notes)


def test_bad_files_are_refused_with_a_sentence(tmp_path, monkeypatch):
    def refused(path, words):
        with pytest.raises(BadPicture, match=words):
            read(path)

    refused(tmp_path / "none.png", "there is no file")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "is empty")
    (tmp_path / "text.png").write_text("hello")
    refused(tmp_path / "text.png", "not a picture")
    for suffix in ("png", "jpg"):
        Image.fromarray(pixels(200, 200)).save(tmp_path / f"whole.{suffix}")
        data = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
        refused(tmp_path / f"cut.{suffix}", "truncated or damaged")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    refused(tmp_path / "dot.png", "1x1 px; a side of at least 16")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    refused(tmp_path / "huge.png", "more than 89 million pixels")
    Image.new("F", (20, 20)).save(tmp_path / "float.tif")
    refused(tmp_path / "float.tif", "floating-point")


def test_a_difference_is_brightened_so_that_the_largest_is_white():
    one = np.full((2, 3, 3), 100, np.uint8)
    other = one.copy()
    other[0, 0, 2], other[1, 2, 0] = 140, 80
    assert difference(one, other).tolist() == [[255, 0, 0], [0, 0, 128]]
    assert (difference(one, other) == difference(other, one)).all()
    assert not difference(one, one).any()


def test_a_strip_shows_each_picture_under_its_name():
    sheet = strip([("a", pixels(32, 32)), ("b", pixels(32, 48))])
    assert sheet.size == (32 + 48 + 3 * 8, 32 + 28 + 8)


@settings(max_examples=30, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), EXTENTS, st.sampled_from(["pad", "crop", "aspect"]))
def test_what_lies_under_the_rectangle_is_what_was_worked_on(h, w, extent, how):
    frame, _ = Canvas.fit(pixels(h, w), extent, how)
    assert fits(*frame.image.shape[:2], frame.extent, frame.top, frame.left)
    inverted = frame.place(-frame.covered())
    assert (frame.crop(inverted) == 255 - frame.crop(frame.image)).all()
    outside = np.ones(frame.image.shape[:2], bool)
    frame.crop(outside)[:] = False
    assert (inverted[outside] == frame.image[outside]).all()
    there = (frame.place_mask(torch.ones(1, 1, *extent)) == 255, frame.cover(np.ones((h, w), np.float32)))
    assert (there[0] == ~outside).all()
    assert (there[1] == 1).all()


def test_nothing_is_said_of_what_was_not_done(tmp_path):
    """Widths with a 16 in their stride are not depth; an orientation that does not exist turns nothing."""
    for width in (54, 72):
        Image.fromarray(pixels(20, width)).save(tmp_path / f"{width}.bmp")
        assert read(tmp_path / f"{width}.bmp")[1] == []
    exif = Image.Exif()
    exif[0x0112] = 99
    Image.fromarray(pixels(20, 30)).save(tmp_path / "odd.png", exif=exif)
    assert read(tmp_path / "odd.png")[1] == []


def test_values_without_a_known_range_are_refused(tmp_path):
    Image.fromarray(np.full((20, 20), 70_000, np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(BadPicture, match="32-bit values"):
        read(tmp_path / "deep.tif")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadPicture, match="not a regular file"):
        read(tmp_path / "pipe")

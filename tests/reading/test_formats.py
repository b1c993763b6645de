"""Depth, transparency, orientation, pages and kinds of files each agree with the way the file was made."""

import io
import itertools
import locale
import os
import random
import struct
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
import tifffile
import torch
from made import chunked, pixels, png, refused, rgb_png
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin

from iterinv.images import to_array
from iterinv.reading import BadPicture, read

NEAREST = np.rint(np.arange(65536) / 257).astype(np.uint8)


def read_noting(path, *words):
    picture, notes = read(path)
    assert [word for word in words if not any(word in note for note in notes)] == []
    assert len(notes) == len(words), notes
    return picture


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_sixteen_bits_of_png_go_to_the_nearest_eight(tmp_path, channels, interlaced):
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, channels), dtype=np.uint16)
    if channels in (2, 4):
        values[..., -1] = 65535
    rows = values.astype(">u2").reshape(20, -1).view(np.uint8)
    data = png(rows, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 16)
    (tmp_path / "a.png").write_bytes(interlace(values.astype(">u2"), data) if interlaced else data)
    words = ["16 bits"] + ["grey"] * (channels < 3) + ["hides nothing"] * (channels in (2, 4))
    want = NEAREST[values[..., :3] if channels > 2 else values[..., :1]]
    assert (read_noting(tmp_path / "a.png", *words) == want).all()


def interlace(values, data):
    """Write the same picture by Adam7: each pass is a picture of its own."""
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [values[y::dy, x::dx] for x, y, dx, dy in steps]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    return chunked((b"IHDR", data[16:28] + b"\1"), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("alpha", [None, "unassalpha", "unspecified"])
def test_sixteen_bits_of_tiff_go_to_the_nearest_eight(tmp_path, order, compression, alpha):
    values, path = pixels(dtype=np.uint16), tmp_path / "a.tif"
    layers = values if alpha is None else np.dstack([values, np.full((20, 30), 65535, np.uint16)])
    how = {} if alpha is None else {"extrasamples": [alpha]}
    tifffile.imwrite(path, layers, photometric="rgb", byteorder=order, compression=compression, **how)
    words = ["16 bits"] + ["hides nothing"] * (alpha == "unassalpha")
    assert (read_noting(path, *words) == NEAREST[values]).all()
    tifffile.imwrite(path, values[..., 0], photometric="minisblack", byteorder=order, compression=compression)
    assert (read_noting(path, "16 bits", "grey") == NEAREST[values[..., :1]]).all()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bits_that_alpha_has_been_multiplied_into(tmp_path, order, compression):
    """On white the picture is what is stored, and the rest of white: three roundings to 8 bits are 1.5 levels."""
    alpha = pixels(dtype=np.uint16, seed=1)[..., :1]
    stored = np.rint(pixels(dtype=np.uint16) * (alpha / 65535)).astype(np.uint16)
    how = {"photometric": "rgb", "extrasamples": ["assocalpha"], "byteorder": order, "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([stored, alpha]), **how)
    got = read_noting(tmp_path / "a.tif", "16 bits", "transparent").astype(float)
    assert np.abs(got - 255 * (stored / 65535 + 1 - alpha / 65535)).max() <= 1.5
    opaque = np.full_like(alpha, 65535)
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([stored, opaque]), **how)
    assert (read_noting(tmp_path / "a.tif", "16 bits", "hides nothing") == NEAREST[stored]).all()


def test_sixteen_bits_of_ppm_go_to_the_nearest_eight(tmp_path):
    values = pixels(dtype=np.uint16)
    for head, part, words in ((b"P6", values, []), (b"P5", values[..., :1], ["grey"])):
        (tmp_path / "a.ppm").write_bytes(head + b" 30 20 65535\n" + part.astype(">u2").tobytes())
        assert (read_noting(tmp_path / "a.ppm", "16 bits", *words) == NEAREST[part]).all()
        (tmp_path / "a.ppm").write_bytes(head + b" 30 20 1023\n" + (part >> 6).astype(">u2").tobytes())
        assert np.abs(read_noting(tmp_path / "a.ppm", "10 bits", *words) - (part >> 6) * (255 / 1023)).max() <= 0.51


def test_grey_tiff_of_other_ranges(tmp_path):
    values, path = pixels(dtype=np.uint16)[..., 0], tmp_path / "a.tif"
    for order, compression in itertools.product("<>", (None, "zlib")):
        tifffile.imwrite(path, values, photometric="miniswhite", byteorder=order, compression=compression)
        assert (read_noting(path, "16 bits", "grey")[..., 0] == NEAREST[65535 - values]).all()
    packed = np.array([[0, 0xFFF, 0x800, 0x7FF] * 8] * 20)
    pairs = packed.reshape(20, -1, 2)
    data = np.stack([pairs[..., 0] >> 4, (pairs[..., 0] & 15) << 4 | pairs[..., 1] >> 8, pairs[..., 1] & 255], -1)
    tags = {256: 32, 257: 20, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 20, 279: 960}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    body = data.astype(np.uint8).tobytes()
    path.write_bytes(b"II*\0" + struct.pack("<I", 968) + body + struct.pack("<H", len(tags)) + entries + bytes(4))
    assert read_noting(path, "12 bits", "grey")[0, :4, 0].tolist() == [0, 255, 128, 127]


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float16", "float32", "uint64"])
def test_values_without_a_known_range_are_refused(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", (pixels()[..., 0] // 3).astype(dtype))
    refused(tmp_path / "a.tif", "signed|32-bit values|floating-point|unknown pixel mode")
    for mode in ("I", "F"):
        with pytest.raises(BadPicture, match="no known range"):
            to_array(Image.new(mode, (20, 20), 7))


def test_sixteen_bit_channels_in_planes_are_not_misread(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels().transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate")
    assert (read_noting(tmp_path / "a.tif") == pixels()).all()
    deep = pixels(dtype=np.uint16).transpose(2, 0, 1).copy()
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", planarconfig="separate")
    refused(tmp_path / "a.tif", "16-bit channels in planes")


def test_the_colour_that_is_transparent_is_so_at_every_depth(tmp_path):
    """Exactly one value of grey or one colour, of 1 to 16 bits, is transparent: its neighbour is opaque."""
    for bits in (1, 2, 4, 8, 16):
        top = 2**bits - 1
        values = np.array([[top, 0] * 16] * 20)
        packed = np.packbits(values[..., None] >> np.arange(bits)[::-1] & 1, axis=None).reshape(20, -1)
        (tmp_path / "a.png").write_bytes(png(packed, 0, bits, (b"tRNS", struct.pack(">H", 0))))
        words = ["16 bits"] * (bits == 16) + ["black and white" if bits == 1 else "grey", "transparent"]
        assert (read_noting(tmp_path / "a.png", *words) == 255).all()
        (tmp_path / "a.png").write_bytes(png(packed, 0, bits, (b"tRNS", struct.pack(">H", top))))
        assert read_noting(tmp_path / "a.png", *words)[0, :2, 0].tolist() == [255, 0]
    rows = np.array([[256, 0, 0, 257, 0, 0] * 8] * 20).astype(">u2").view(np.uint8)
    (tmp_path / "a.png").write_bytes(png(rows, 2, 16, (b"tRNS", struct.pack(">3H", 256, 0, 0))))
    assert read_noting(tmp_path / "a.png", "16 bits", "transparent")[0, :2].tolist() == [[255] * 3, [1, 0, 0]]


def test_half_a_transparency_is_half_of_white(tmp_path):
    Image.new("RGBA", (20, 20), (200, 0, 100, 51)).save(tmp_path / "a.png")
    assert (read_noting(tmp_path / "a.png", "transparent: laid on white") == [244, 204, 224]).all()
    Image.new("LA", (20, 20), (0, 51)).save(tmp_path / "a.png")
    assert (read_noting(tmp_path / "a.png", "grey", "transparent") == 204).all()
    few = Image.new("P", (20, 20))
    few.putpalette([200, 0, 100, 51], "RGBA")
    few.save(tmp_path / "a.png")
    assert (read_noting(tmp_path / "a.png", "palette", "transparent") == [244, 204, 224]).all()


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "tga"])
def test_an_alpha_channel_that_hides_nothing_is_not_called_transparent(tmp_path, suffix):
    how = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels()).convert("RGBA").save(tmp_path / f"a.{suffix}", **how)
    assert (read_noting(tmp_path / f"a.{suffix}", *[] if suffix == "webp" else ["hides nothing"]) == pixels()).all()


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "avif"])
def test_every_orientation_is_that_of_pillow(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels()).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as file:
        want = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    words = ["EXIF orientation"] * (orientation in range(2, 9))
    assert (read_noting(tmp_path / f"a.{suffix}", *words) == want).all()


def test_rotation_needs_no_exif_that_can_be_written_again(tmp_path):
    """The file has a resolution unit as LONG, and other entries of kinds that Pillow reads and cannot write."""
    for tag, kind, count, value in ((296, 4, 1, 2), (0x9286, 2, 4, 0xFFFFFFFF), (0xA300, 3, 1, 70_000), (282, 9, 1, 7)):
        entries = struct.pack("<HHIHH", 274, 3, 1, 6, 0) + struct.pack("<HHII", tag, kind, count, value)
        exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
        Image.fromarray(pixels()).save(tmp_path / "a.jpg", exif=exif)
        assert read_noting(tmp_path / "a.jpg", "EXIF orientation").shape == (30, 20, 3)


def test_exif_that_is_damaged_damages_nothing_else(tmp_path):
    for exif in (
        b"Exif\0\0",
        b"Exif\0\0nothing at all",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff",
    ):
        Image.fromarray(pixels()).save(tmp_path / "a.jpg", exif=exif)
        assert read_noting(tmp_path / "a.jpg").shape == (20, 30, 3)


def test_a_png_whose_text_is_longer_than_pillow_takes_is_read(tmp_path):
    long = zlib.compress(bytes(1_200_000))
    compressed = [
        (b"zTXt", b"key\0\0" + long),
        (b"iTXt", b"key\0\1\0\0\0" + long),
        (b"tEXt", b"key\0" + b"a" * 2_000_000),
    ]
    xmp = (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + long)
    for chunks in ([each] for each in (*compressed, xmp)):
        (tmp_path / "a.png").write_bytes(rgb_png(pixels(), *chunks))
        assert (read_noting(tmp_path / "a.png") == pixels()).all()
    profiles = (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(500_000)))
    for many in ([compressed[0]] * 100, [profiles] * 200, [xmp] * 200):
        (tmp_path / "a.png").write_bytes(rgb_png(pixels(), *many))
        assert (read_noting(tmp_path / "a.png") == pixels()).all()


def test_orientation_in_the_texts_of_a_png_is_followed(tmp_path):
    xmp = b'<x tiff:Orientation="6"/>'
    exif = Image.Exif()
    exif[274] = 6
    raw = exif.tobytes().hex()
    legacy = f"\nexif\n{len(raw) // 2}\n{raw}\n".encode()
    long = xmp + b" " * 1_200_000
    for chunk in (
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + long),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(long)),
        (b"zTXt", b"Raw profile type exif\0\7" + zlib.compress(legacy)),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(legacy)),
        (b"eXIf", exif.tobytes()[6:]),
    ):
        (tmp_path / "a.png").write_bytes(rgb_png(pixels(), chunk))
        assert (read_noting(tmp_path / "a.png", "EXIF orientation") == pixels().swapaxes(0, 1)[:, ::-1]).all()


def test_several_pictures_in_a_file_are_called_what_they_are(tmp_path):
    first, more = Image.fromarray(pixels()), [Image.fromarray(pixels(seed=k)) for k in (1, 2)]
    for suffix, words in (("tif", "3 pages"), ("gif", "animation of 3"), ("png", "animation of 3")):
        first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=more)
        picture = read_noting(tmp_path / f"a.{suffix}", *([words, "palette"] if suffix == "gif" else [words]))
        with Image.open(tmp_path / f"a.{suffix}") as file:
            assert (picture == np.asarray(file.convert("RGB"))).all()
    for suffix in ("webp", "avif"):
        first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=more)
        read_noting(tmp_path / f"a.{suffix}", "animation of 3")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=more, quality=100, subsampling=0)
    assert np.abs(read_noting(tmp_path / "a.jpg", "a file of 3 pictures").astype(int) - pixels()).max() <= 4


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("stated", [2, 9, 2**32 - 1])
def test_the_frames_of_an_animated_png_are_those_that_it_holds(tmp_path, apart, stated):
    """A still picture before the first frame is none of the frames."""
    control = (b"fcTL", struct.pack(">IIIIIHHBB", 0, 30, 20, 0, 0, 1, 10, 0, 0))
    start = (b"acTL", struct.pack(">II", stated, 0))
    chunks = [start] if apart else [start, control]
    still = rgb_png(pixels(), *chunks)
    rest = chunked(*[control] * (1 + apart), (b"IEND", b""))[8:]
    (tmp_path / "a.png").write_bytes(still[:-12] + rest)
    used = "the still picture beside it is used" if apart else "the first is used"
    assert (read_noting(tmp_path / "a.png", f"an animation of 2 frames: {used}") == pixels()).all()
    (tmp_path / "a.png").write_bytes(rgb_png(pixels())[:-12] + chunked(start, control)[8:] + rest)
    read_noting(tmp_path / "a.png")  # what follows the picture makes no animation of it


def test_a_pil_image_at_another_frame_is_called_by_its_number(tmp_path):
    more = [Image.fromarray(pixels(seed=k)) for k in (1, 2)]
    for suffix in ("gif", "tif"):
        Image.fromarray(pixels()).save(tmp_path / f"a.{suffix}", save_all=True, append_images=more)
        with Image.open(tmp_path / f"a.{suffix}") as file:
            file.seek(2)
            assert any("of 3" in note and "number 3 is used" in note for note in to_array(file)[1])


@pytest.mark.parametrize("kind", ["float64", "int64", "channels"])
def test_a_page_that_is_not_used_may_be_of_any_kind(tmp_path, kind):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels(), photometric="rgb")
        further = np.zeros((20, 30, 5), np.uint8) if kind == "channels" else np.zeros((20, 30), kind)
        file.write(further, photometric="minisblack", planarconfig="contig")
    assert (read_noting(tmp_path / "a.tif", "a file of 2 pages: the first is used") == pixels()).all()


def test_a_smaller_copy_and_a_mask_are_no_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels(), photometric="rgb")
        file.write(pixels()[::2, ::2], photometric="rgb", subfiletype=1)
        file.write(np.ones((20, 30), bool), photometric="mask", subfiletype=4)
    assert (read_noting(tmp_path / "a.tif") == pixels()).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jp2", "bmp", "ppm", "qoi", "tga", "pcx", "sgi", "dds"])
def test_formats_without_loss_give_every_pixel(tmp_path, suffix):
    picture = pixels(64, 64)
    Image.fromarray(picture).save(tmp_path / f"a.{suffix}", **{"webp": {"lossless": True}}.get(suffix, {}))
    got = read_noting(tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as file:
        assert (got == np.asarray(file.convert("RGB"))).all()
    assert (got == picture).all()


def test_the_merged_picture_of_a_psd_is_read(tmp_path):
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 20, 30, 8, 3)
    planes = pixels().transpose(2, 0, 1).tobytes()
    (tmp_path / "a.psd").write_bytes(header + bytes(12) + b"\0\0" + planes)
    assert (read_noting(tmp_path / "a.psd") == pixels()).all()
    (tmp_path / "a.psd").write_bytes(header + bytes(12) + b"\0\0" + planes[:1500])
    refused(tmp_path / "a.psd", "data end before the picture does|truncated")


def test_a_thumbnail_is_not_taken_for_the_picture(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels(), photometric="rgb", subfiletype=1)
    refused(tmp_path / "a.tif", "begins with a thumbnail")
    tifffile.imwrite(tmp_path / "a.nef", pixels(), photometric="rgb")
    refused(tmp_path / "a.nef", "raw file of a camera")


def test_what_is_not_read_is_named(tmp_path):
    for data, words in (
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "PostScript"),
        (b"%PDF-1.7", "PDF"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"<svg xmlns='...'/>", "SVG"),
        (b"\0\0\0\x18ftypmp42" + bytes(40), "video"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a picture"),
        (b"\0\0\2\0" + bytes(400), "not a picture"),
    ):
        (tmp_path / "a.png").write_bytes(data)
        refused(tmp_path / "a.png", f"{words}.*save it as PNG")


def test_heic_is_read_with_its_orientation_and_named_without_its_library(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    before = list(Image.ID), dict(Image.EXTENSION)
    smooth = Image.fromarray(pixels()).resize((64, 48), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[274] = 6
    heif.from_pillow(smooth).save(tmp_path / "a.heic", quality=-1, chroma=444, exif=exif.tobytes())
    got, _ = read(tmp_path / "a.heic")
    assert np.abs(got.astype(int) - np.asarray(smooth.transpose(Image.Transpose.ROTATE_270))).max() <= 3
    assert (list(Image.ID), dict(Image.EXTENSION)) == before
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    refused(tmp_path / "a.heic", r"needs pillow-heif: pip install 'iterinv\[heif\]'")


def test_the_state_of_the_process_is_untouched_in_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1234)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    Image.init()
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    Image.fromarray(pixels()).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:900])
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "large.jpg")

    def state():
        return (
            list(warnings.filters),
            Image.MAX_IMAGE_PIXELS,
            ImageFile.LOAD_TRUNCATED_IMAGES,
            list(Image.ID),
            TiffImagePlugin.READ_LIBTIFF,
            dict(Image.OPEN),
            locale.setlocale(locale.LC_ALL),
            os.getcwd(),
            random.getstate(),
            str(np.random.get_state()),
            torch.random.get_rng_state().tolist(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
        )

    before, states, wrong = state(), [], []

    def work(name, words):
        for _ in range(20):
            states.append(state())
            try:
                read(tmp_path / name)
                wrong.extend([name] * bool(words))
            except BadPicture as error:
                wrong.extend([str(error)] * (words not in str(error) or not words))

    jobs = [("a.png", ""), ("a.jpg", ""), ("cut.jpg", "end before"), ("large.png", "pixels"), ("large.jpg", "pixels")]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(each == before for each in (*states, state()))


def test_no_limit_is_a_limit_that_was_taken_off(tmp_path, monkeypatch):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in (tmp_path / "a.png", tmp_path / "a.tif"):
            refused(path, "more than 89 million pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused(tmp_path / "a.png", "pixels; reduce it first")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.fromarray(pixels()).save(tmp_path / "b.png")
    assert (read_noting(tmp_path / "b.png") == pixels()).all()


def test_a_pil_image_is_left_as_it_was(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels()).save(tmp_path / "a.jpg", exif=exif)
    image = Image.open(tmp_path / "a.jpg")
    got, notes = to_array(image)
    assert (got == read(tmp_path / "a.jpg")[0]).all()
    assert notes == read(tmp_path / "a.jpg")[1]
    assert image.size == (30, 20)
    assert image.getexif()[ExifTags.Base.Orientation] == 6
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:800])
    with pytest.raises(BadPicture, match=r"b\.jpg is truncated or damaged"):
        to_array(Image.open(tmp_path / "b.jpg"))
    with pytest.raises(BadPicture, match="the PIL image is truncated or damaged"):
        to_array(Image.open(io.BytesIO((tmp_path / "b.jpg").read_bytes())))

"""Files that are cut, changed at random or inconsistent give a picture, or the package's one error, which names the
file."""

import contextlib
import io
import itertools
import re
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from made import chunked, cmyk_profile, pixels, png, refused, rgb_png, rgb_profile
from PIL import Image, ImageFile

from iterinv.reading import BadPicture, read


def seeds():
    """Make files of many formats, as bytes by suffix and kind."""
    smooth = Image.fromarray(pixels(6, 8)).resize((64, 48), Image.Resampling.BICUBIC)
    few, more = smooth.quantize(32), [smooth.rotate(180), smooth.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    exif = Image.Exif()
    exif[274], exif[296] = 6, 2
    exif[0x8769] = {0xA001: 65535, 0xA005: {1: "R03"}}
    icc, inks = rgb_profile("P3", 2.2), cmyk_profile(lambda c, m, y, k: (100 - 60 * k, 10 * c, 10 * y))
    several, turned = {"save_all": True}, Image.Exif()
    turned[274] = 8
    made = {
        "png": [(smooth, {"icc_profile": icc, "exif": exif}), (few, {}), (smooth.convert("LA"), {}), (smooth, several)],
        "jpg": [(smooth, {"exif": exif, "icc_profile": icc}), (smooth.convert("CMYK"), {"icc_profile": inks})],
        "jpeg": [(smooth, {"progressive": True}), (smooth, {"format": "MPO", **several})],
        "tif": [
            *((smooth, {"compression": each}) for each in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
            (smooth, {}),
            (smooth, several),
            (few, {}),
            (smooth.convert("1"), {"compression": "group4"}),
            (smooth.convert("CMYK"), {"icc_profile": inks, "exif": turned}),
        ],
        "gif": [(few, {}), (smooth, several)],
        "webp": [(smooth, {"icc_profile": icc}), (smooth.convert("RGBA"), {"lossless": True}), (smooth, several)],
        "avif": [(smooth, {"speed": 10}), (smooth, several)],
        "jp2": [(smooth, {}), (smooth.convert("L"), {})],
        "j2k": [(smooth, {})],
        "bmp": [(smooth, {}), (few, {})],
        "ppm": [(smooth, {})],
        "pgm": [(Image.fromarray(pixels(dtype=np.uint16)[..., 0]), {})],
        "tga": [(smooth, {"compression": "tga_rle"}), (few, {})],
        "ico": [(smooth.resize((64, 64)), {"sizes": [(64, 64), (32, 32)]}), (few, {"bitmap_format": "bmp"})],
        "pcx": [(smooth, {})],
        "sgi": [(smooth, {})],
        "qoi": [(smooth, {})],
        "dds": [(smooth, {})],
    }
    for suffix, each in made.items():
        for image, how in each:  # in copies, since encoders leave settings behind
            file = io.BytesIO()
            if "save_all" in how:
                how = how | {"append_images": [each.copy() for each in more]}
            image.copy().save(file, **{"format": Image.registered_extensions()[f".{suffix}"], **how})
            yield suffix, file.getvalue()
    yield "png", png(pixels(dtype=np.uint16).astype(">u2").reshape(20, -1).view(np.uint8), 2, 16)
    plain = " ".join(map(str, pixels().ravel()))
    yield "ppm", f"P3 30 20 255 {plain}".encode()
    try:
        import pillow_heif
    except ImportError:
        return
    file = io.BytesIO()
    pillow_heif.from_pillow(smooth).save(file)
    yield "heic", file.getvalue()


def mutated(data, rng):
    """Damage a file in one of the usual ways: bits, bytes, header numbers, holes, cuts, moved blocks."""
    changed, size = bytearray(data), len(data)
    at = int(rng.integers(0, size if rng.random() < 0.5 else min(size, 600)))
    match rng.integers(0, 8):
        case 0:
            changed[at] ^= 1 << rng.integers(0, 8)
        case 1:
            for k in rng.integers(0, size, rng.integers(1, 20)):
                changed[k] = rng.integers(0, 256)
        case 2:
            changed[at : at + 4] = rng.choice(
                [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\1\0\0\0"]
            )
        case 3:
            del changed[at:]
        case 4:
            del changed[at : at + int(rng.integers(1, 64))]
        case 5:
            changed[at:at] = rng.bytes(int(rng.integers(1, 64)))
        case 6:
            length = int(rng.integers(1, 200))
            to = int(rng.integers(0, size))
            changed[to : to + length] = changed[at : at + length]
        case 7:
            changed[at : at + 2] = struct.pack(rng.choice(["<H", ">H"]), rng.integers(0, 65536))
    return checksums(bytes(changed)) if data[:4] == b"\x89PNG" and rng.random() < 0.7 else bytes(changed)


def checksums(data):
    """Correct the checksums of a PNG, so that a reader gets past them."""
    out, place = [data[:8]], 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        body = data[place + 4 : place + 8 + size]
        out.append(data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body)))
        place += 12 + size
    return b"".join(out) + data[place:]


def outcomes(folder, count, seed):
    """Read mutated files; return the number of pictures, and every end that is neither a picture nor the one error.

    Time is the process's own, memory its peak, both above what a picture of the size that came out needs.
    """
    rng, pictures, other = np.random.default_rng(seed), 0, []
    for k, (suffix, data) in zip(range(count), itertools.cycle(list(seeds())), strict=False):
        path = folder / f"{k % 50}.{suffix}"
        path.write_bytes(mutated(data, rng))
        peak, began, megapixels, wrong = peak_memory(), time.process_time(), 0, None
        try:
            picture, notes = read(path)
            megapixels, pictures = picture.size / 3e6, pictures + 1
            if picture.dtype != np.uint8 or picture.ndim != 3 or not all(note.isprintable() for note in notes):
                wrong = picture.shape, notes
        except BadPicture as error:
            wrong = None if str(path) in str(error) and str(error).isprintable() else str(error)
        except BaseException as error:
            wrong = repr(error)
        if time.process_time() - began > 2 + megapixels or peak_memory() - peak > 500 + 30 * megapixels:
            wrong = f"{time.process_time() - began:.1f} s, {peak_memory() - peak:.0f} MB"
        if wrong:
            other.append((k, suffix, wrong))
    return pictures, other


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


@pytest.mark.filterwarnings("ignore")
def test_files_changed_at_random(tmp_path):
    pictures, other = outcomes(tmp_path, 200, seed=0)
    assert other == []
    assert 20 < pictures < 180


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(1, 9))
def test_twenty_thousand_files_changed_at_random(tmp_path, seed):
    pictures, other = outcomes(tmp_path, 2500, seed)
    assert other == []
    assert pictures > 250


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accepted", [False, True])
def test_a_cut_file_of_any_format_is_refused(tmp_path, monkeypatch, accepted):
    """This does not depend on Pillow's settings in the process. A file's last bytes may hold nothing of its picture."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", accepted)
    for k, (suffix, data) in enumerate(seeds()):
        path = tmp_path / f"{k}.{suffix}"
        for share in (0.2, 0.5, 0.8):
            path.write_bytes(data[: int(len(data) * share)])
            with contextlib.suppress(BadPicture):
                cut, notes = read(path)
                path.write_bytes(data)
                assert (cut == read(path)[0]).all()
                assert any("first is used" in note or "hides" in note for note in notes)


def test_a_png_whose_data_end_early_is_refused(tmp_path):
    path, data = tmp_path / "a.png", rgb_png(pixels())
    rows = b"".join(b"\0" + row.tobytes() for row in pixels())
    header = data[16:29]

    def written(*chunks):
        path.write_bytes(chunked((b"IHDR", header), *chunks, (b"IEND", b"")))
        return path

    assert (read(written((b"IDAT", zlib.compress(rows))))[0] == pixels()).all()
    assert (read(written((b"IDAT", zlib.compress(rows + b"more")), (b"tEXt", b"key\0a")))[0] == pixels()).all()
    halves = zlib.compress(rows)
    assert (read(written((b"IDAT", halves[:99]), (b"IDAT", b""), (b"IDAT", halves[99:])))[0] == pixels()).all()
    for missing in (1, 91, len(rows) // 2, len(rows)):
        refused(written((b"IDAT", zlib.compress(rows[:-missing]))), "data end before the picture does")
    refused(written(), "data end before")
    refused(written((b"IDAT", zlib.compress(rows)), (b"IHDR", header)), "its one IHDR chunk")
    for interlaced in (header[:12] + b"\1",):
        path.write_bytes(chunked((b"IHDR", interlaced), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))
        refused(path, "data end before")
    flipped = bytearray(data)
    flipped[data.index(b"IDAT") + 40] ^= 1
    path.write_bytes(flipped)
    refused(path, "checksum of its IDAT|incorrect|invalid|distance")


@pytest.mark.parametrize("how", [{}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_a_jpeg_whose_data_end_early_is_refused(tmp_path, how):
    """The file is cut and closed by an end marker, which the decoder fills with grey. Files with a flat end or with
    bytes behind it are complete."""
    picture, path = pixels(64, 80), tmp_path / "a.jpg"
    Image.fromarray(picture).save(path, **how)
    data = path.read_bytes()
    for share in (0.4, 0.7, 0.95):
        path.write_bytes(data[: int(len(data) * share)] + b"\xff\xd9")
        refused(path, "data end before the picture does")
    picture[20:] = 77
    Image.fromarray(picture).save(path, **how)
    want, notes = read(path)
    assert notes == []
    path.write_bytes(path.read_bytes() + b"\xff\xd8\xff\xd9 and a camera's own words")
    assert (read(path)[0] == want).all()


def jpeg_parts(data):
    """The places in a progressive JPEG at which a scan, or the tables of one, begins."""
    return [match.start() for match in re.finditer(rb"\xff[\xc4\xda]", data)][1:]


def test_a_jpeg_that_lacks_scans_is_refused(tmp_path):
    """Between any two of its scans, closed by an end marker or not; a decoder shows the picture more coarsely."""
    path = tmp_path / "a.jpg"
    for mode in ("RGB", "L", "CMYK"):
        Image.fromarray(pixels(64, 80)).convert(mode).save(path, progressive=True)
        data = path.read_bytes()
        read(path)
        assert len(jpeg_parts(data)) > 5
        for at, end in itertools.product(jpeg_parts(data), (b"", b"\xff\xd9")):
            path.write_bytes(data[:at] + end)
            refused(path, "data end before the picture does|cannot load|truncated or damaged")


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "avif", "qoi", "gif", "ico", "png", "heic"])
def test_a_file_whose_end_is_zeros_is_refused(tmp_path, suffix):
    """As an interrupted copy leaves it, at its whole length; zeros behind a whole file harm nothing."""
    if suffix == "heic":
        pytest.importorskip("pillow_heif")
    how = {"jpeg": {"progressive": True}, "avif": {"speed": 10}}.get(suffix, {})
    path, picture = tmp_path / f"a.{suffix}", Image.fromarray(pixels(96, 128))
    if suffix == "heic":
        import pillow_heif

        pillow_heif.from_pillow(picture).save(path)
    else:
        picture.save(path, **how)
    data = path.read_bytes()
    want, _ = read(path)
    for share in (0.3, 0.6, 0.9, 0.95):
        kept = int(len(data) * share)
        path.write_bytes(data[:kept] + bytes(len(data) - kept))
        refused(path)
    path.write_bytes(data + bytes(200))
    if suffix not in ("avif", "heic"):  # whose boxes have no room for zeros between them
        assert (read(path)[0] == want).all()


def gif(codes, width, height):
    """A GIF of 256 greys whose 9-bit codes are given: pixels, 256 to begin anew, 257 to end."""
    bits = sum(code << 9 * k for k, code in enumerate(codes))
    packed = bits.to_bytes((9 * len(codes) + 7) // 8, "little")
    blocks = b"".join(bytes([len(each)]) + each for each in (packed[k : k + 255] for k in range(0, len(packed), 255)))
    palette = bytes(value for grey in range(256) for value in (grey, grey, grey))
    frame = struct.pack("<4HB", 0, 0, width, height, 0)
    return (
        struct.pack("<6sHH3B", b"GIF89a", width, height, 0xF7, 0, 0)
        + palette
        + b","
        + frame
        + b"\x08"
        + blocks
        + b"\0;"
    )


def test_a_gif_whose_codes_end_early_is_refused(tmp_path):
    """Its blocks and its end are whole: only the codes within them are too few."""
    values, path = pixels()[..., 0], tmp_path / "a.gif"
    codes = [code for k in range(0, 600, 200) for code in (256, *values.ravel()[k : k + 200].tolist())]
    path.write_bytes(gif([*codes, 257], 30, 20))
    assert (read(path)[0] == values[..., None]).all()
    for missing in (1, 30, 300, 590):
        path.write_bytes(gif([*codes[:-missing], 257], 30, 20))
        refused(path, "data end before the picture does|image file is truncated")


def test_a_png_in_an_icon_is_checked_as_any(tmp_path):
    path = tmp_path / "a.ico"
    Image.fromarray(pixels(64, 64)).save(path, sizes=[(64, 64)])
    data = path.read_bytes()
    assert (read(path)[0] == pixels(64, 64)).all()
    for at in range(data.index(b"IDAT") + 8, len(data) - 16, 1000):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        refused(path)


def test_a_fax_that_is_decoded_with_errors_is_refused(tmp_path, capfd):
    """libtiff prints its errors and Pillow does not learn of them; nothing of it is printed here."""
    smooth = Image.fromarray(pixels(12, 16)).resize((128, 96), Image.Resampling.BICUBIC).convert("1")
    path, counts = tmp_path / "a.tif", {"group4": 0, "group3": 0}
    for compression in counts:
        smooth.save(path, compression=compression)
        data = path.read_bytes()
        assert (read(path)[0][..., 0] == np.asarray(smooth) * 255).all()
        for at in range(100, 3000, 290):
            path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
            with contextlib.suppress(BadPicture):
                read(path)
                counts[compression] += 1
    assert counts["group4"] <= 1
    assert capfd.readouterr().err == ""


def test_a_palette_that_is_missing_is_said(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.zeros((20, 30), np.uint8), 3))
    refused(tmp_path / "a.png", r"it holds no palette \(PLTE\)")


@pytest.mark.filterwarnings("ignore")
def test_several_pages_cut_in_the_middle_give_the_one_error(tmp_path):
    more = [Image.fromarray(pixels(seed=k)) for k in (1, 2)]
    for suffix in ("tif", "gif", "webp", "avif", "png"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(pixels()).save(path, save_all=True, append_images=more)
        data = path.read_bytes()
        first = read(path)[0]
        for end in range(8, len(data), max(1, len(data) // 60)):
            path.write_bytes(data[:end])
            with contextlib.suppress(BadPicture):
                assert (read(path)[0] == first).all()


def test_headers_that_promise_too_much_are_cheap(tmp_path):
    """Files of a few bytes, or of holes, state gigabytes."""
    huge = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(chunked((b"IHDR", huge), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")))
    refused(tmp_path / "a.png", "pixels; reduce it first")
    bomb = zlib.compress(bytes(50_000_000))
    (tmp_path / "b.png").write_bytes(rgb_png(pixels(), (b"zTXt", b"Raw profile type exif\0\0" + bomb)))
    (tmp_path / "c.png").write_bytes(rgb_png(pixels(), (b"iCCP", b"name\0\0" + bomb)))
    peak = peak_memory()
    assert (read(tmp_path / "b.png")[0] == pixels()).all()
    assert any("damaged" in note for note in read(tmp_path / "c.png")[1])
    small = struct.pack(">IIBBBBB", 30, 20, 8, 2, 0, 0, 0)
    (tmp_path / "d.png").write_bytes(chunked((b"IHDR", small), (b"IDAT", bomb), (b"IEND", b"")))
    assert read(tmp_path / "d.png")[0].shape == (20, 30, 3)
    assert peak_memory() - peak < 300


@pytest.mark.slow
@pytest.mark.parametrize("size", [50_000_000, 3_000_000_000])
def test_files_of_holes_are_cheap(tmp_path, size):
    """Each file has a beginning and then zeros that take no room on the disk. The test measures the process's own
    time."""
    for start in (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"II*\0",
        b"BM",
        b"P6 ",
        b"\0\0\0\x1cftypavif",
    ):
        with open(tmp_path / "e.tga", "wb") as file:
            file.write(start)
            file.truncate(size)
        began = time.process_time()
        refused(tmp_path / "e.tga")
        assert time.process_time() - began < 10


def test_every_failure_of_a_file_is_named(tmp_path):
    refused(tmp_path / "none.png", "there is no file")
    refused(tmp_path, "is a folder")
    refused(tmp_path / ("a" * 300), "too long")
    refused(Path("a\0b"), "there is no file")
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    refused(loop, "there is no file")

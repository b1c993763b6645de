"""Colours agree with the closed form of their space, under profiles of all kinds."""

import struct
import warnings

import numpy as np
import pytest
from made import CHROMATICITIES, cmyk_profile, decode, encode, grey_profile, in_srgb, pixels, png, rgb_png, rgb_profile
from PIL import Image, ImageCms

from iterinv.images import strip, to_array, to_pil
from iterinv.reading import BadPicture, read
from iterinv.reading.colour import srgb_profile


def chrm(name):
    values = (0.3127, 0.3290, *np.ravel(CHROMATICITIES[name]))
    return b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in values))


def gama(exponent):
    return b"gAMA", struct.pack(">I", round(exponent * 100_000))


def read_noting(path, *words):
    picture, notes = read(path)
    assert [word for word in words if not any(word in note for note in notes)] == []
    assert bool(words) == bool(notes), notes
    return picture.astype(float)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "avif"])
@pytest.mark.parametrize(("space", "gamma"), [("Adobe", 563 / 256), ("P3", 2.2), ("2020", 2.4), ("P3", 1.0)])
def test_a_profile_is_followed_to_the_closed_form(tmp_path, suffix, space, gamma):
    how = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {"quality": 100})
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels()).save(path, icc_profile=rgb_profile(space, gamma), **how)
    stored = np.asarray(Image.open(path).convert("RGB")) / 255
    got = read_noting(path, "colour profile made here: converted to sRGB")
    assert np.abs(got - in_srgb(stored, space, lambda x: x**gamma)).max() <= 2
    assert np.abs(got - 255 * stored).mean() > 4


def test_a_profile_of_srgb_changes_nothing_whatever_its_name(tmp_path):
    for icc in (srgb_profile(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        Image.fromarray(pixels()).save(tmp_path / "a.png", icc_profile=icc)
        assert (read_noting(tmp_path / "a.png") == pixels()).all()


def test_a_grey_profile_and_grey_under_a_colour_profile(tmp_path):
    grey = pixels()[..., 0]
    for icc, gamma in ((grey_profile(1.0), 1.0), (rgb_profile("Adobe", 1.8), 1.8)):
        Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=icc)
        got = read_noting(tmp_path / "a.png", "grey", "colour profile")
        assert np.abs(got - np.rint(255 * encode((grey[..., None] / 255) ** gamma))).max() <= 1


def test_inks_are_those_of_the_profile(tmp_path):
    """The cyan of this press is a known colour; its greys between black and white are L*, which gives Y."""

    def inks(c, m, y, k):
        return (0 if k else 100 - 20 * (c + m + y), 0, 0)

    values = np.zeros((20, 51, 4), np.uint8)
    values[..., 3] = np.arange(0, 255, 5)
    Image.fromarray(values, "CMYK").save(tmp_path / "a.tif", icc_profile=cmyk_profile(inks))
    got = read_noting(tmp_path / "a.tif", "CMYK", "colour profile made here")
    lightness = 100 * (1 - np.arange(0, 255, 5) / 255)
    y = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    assert np.abs(got[0, :, 1] - 255 * encode(y)).max() <= 2
    values[..., 3] = 0
    values[:, 25:, 0] = 255
    Image.fromarray(values, "CMYK").save(tmp_path / "a.jpg", icc_profile=cmyk_profile(inks), quality=100)
    assert np.abs(read_noting(tmp_path / "a.jpg", "CMYK", "colour profile")[0, 40] - 255 * encode(0.5668)).max() <= 3
    Image.fromarray(values, "CMYK").save(tmp_path / "a.jpg", quality=100)
    read_noting(tmp_path / "a.jpg", "CMYK", "without a profile")


def test_colours_under_transparency_and_in_palettes_are_converted(tmp_path):
    picture, icc = pixels(), rgb_profile("P3", 2.2)
    want = in_srgb(picture / 255, "P3", lambda x: x**2.2)
    alpha = np.full((20, 30, 1), 255, np.uint8)
    alpha[:, 15:] = 0
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "a.png", icc_profile=icc)
    got = read_noting(tmp_path / "a.png", "transparent: laid on white", "colour profile")
    assert np.abs(got[:, :15] - want[:, :15]).max() <= 2
    assert (got[:, 15:] == 255).all()
    few = Image.fromarray(picture).quantize(16)
    few.save(tmp_path / "b.png", icc_profile=icc)
    want = in_srgb(np.asarray(few.convert("RGB")) / 255, "P3", lambda x: x**2.2)
    assert np.abs(read_noting(tmp_path / "b.png", "palette", "colour profile") - want).max() <= 2


def test_a_profile_that_is_none_or_for_other_channels_is_told(tmp_path):
    damaged = rgb_profile("P3", 2.2)[:200]
    for icc, words in (
        (b"nonsense", "damaged"),
        (damaged, "damaged"),
        (grey_profile(2.2), "other channels"),
        (cmyk_profile(lambda c, m, y, k: (0, 0, 0)), "other channels"),
    ):
        Image.fromarray(pixels()).save(tmp_path / "a.png", icc_profile=icc)
        assert (read_noting(tmp_path / "a.png", f"{words}") == pixels()).all()
    for data in (b"name", b"name\0\0not deflated", b""):
        (tmp_path / "a.png").write_bytes(rgb_png(pixels(), (b"iCCP", data)))
        assert (read_noting(tmp_path / "a.png", "damaged") == pixels()).all()


def test_a_profile_larger_than_pillow_takes_is_followed(tmp_path):
    icc = rgb_profile("P3", 2.2)
    Image.fromarray(pixels()).save(tmp_path / "a.png", icc_profile=icc + bytes(3_000_000))
    got = read_noting(tmp_path / "a.png", "converted to sRGB")
    assert np.abs(got - in_srgb(pixels() / 255, "P3", lambda x: x**2.2)).max() <= 2


@pytest.mark.parametrize("exponent", [1.0, 1 / 1.8, 1 / 1.4, 0.3])
def test_gamma_alone_is_followed(tmp_path, exponent):
    (tmp_path / "a.png").write_bytes(rgb_png(pixels(), gama(exponent)))
    want = np.rint(255 * encode((pixels() / 255) ** (1 / round(exponent, 5))))
    assert np.abs(read_noting(tmp_path / "a.png", "gAMA") - want).max() <= 1


def test_gamma_and_primaries_of_srgb_change_nothing(tmp_path):
    for chunks in ([gama(0.45455)], [gama(0.45455), chrm("sRGB")], [chrm("sRGB")], [(b"sRGB", b"\0"), gama(1.0)]):
        (tmp_path / "a.png").write_bytes(rgb_png(pixels(), *chunks))
        assert (read_noting(tmp_path / "a.png") == pixels()).all()


def test_primaries_are_followed_by_their_curve_or_srgbs(tmp_path):
    (tmp_path / "a.png").write_bytes(rgb_png(pixels(), chrm("Adobe"), gama(0.4547)))
    want = in_srgb(pixels() / 255, "Adobe", lambda x: x ** (1 / 0.4547))
    assert np.abs(read_noting(tmp_path / "a.png", "cHRM") - want).max() <= 1
    (tmp_path / "a.png").write_bytes(rgb_png(pixels(), chrm("P3")))
    assert np.abs(read_noting(tmp_path / "a.png", "cHRM") - in_srgb(pixels() / 255, "P3", decode)).max() <= 1


def test_linear_light_of_16_bits_keeps_its_shadows(tmp_path):
    levels = np.arange(600, dtype=">u2").reshape(20, 30) * 8
    rows = np.repeat(levels[..., None], 3, -1).reshape(20, -1).astype(">u2").view(np.uint8)
    (tmp_path / "a.png").write_bytes(png(rows, 2, 16, gama(1.0)))
    got = read_noting(tmp_path / "a.png", "16 bits", "gAMA")
    assert np.abs(got[..., 0] - 255 * encode(levels / 65535)).max() <= 0.51


def test_what_is_no_gamma_and_no_primaries_is_told(tmp_path):
    for chunk in (gama(0), (b"cHRM", bytes(32)), (b"cHRM", struct.pack(">8I", *[33_333] * 8))):
        (tmp_path / "a.png").write_bytes(rgb_png(pixels(), chunk))
        assert (read_noting(tmp_path / "a.png", "no colours") == pixels()).all()


def test_colour_codes_are_followed_or_refused(tmp_path):
    def code(*values):
        (tmp_path / "a.png").write_bytes(rgb_png(pixels(), (b"cICP", bytes(values)), gama(1.0)))
        return tmp_path / "a.png"

    assert (read_noting(code(1, 13, 0, 1)) == pixels()).all()
    for primaries, space in ((12, "P3"), (9, "2020")):
        for curve, decoded in ((13, decode), (8, lambda x: x), (4, lambda x: x**2.2)):
            want = in_srgb(pixels() / 255, space, decoded)
            assert np.abs(read_noting(code(primaries, curve, 0, 1), "cICP") - want).max() <= 1
    for values, words in (
        ((9, 16, 0, 1), "high dynamic range"),
        ((9, 18, 0, 1), "high dynamic range"),
        ((77, 13, 0, 1), "unknown"),
        ((1, 99, 0, 1), "unknown"),
        ((1, 13, 0, 0), "video range"),
    ):
        with pytest.raises(BadPicture, match=f"a.png .*{words}"):
            read(code(*values))


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_colour_codes_of_avif_and_heic(tmp_path, suffix):
    """The file is written as sRGB, and then the code in it is changed."""
    path = tmp_path / f"a.{suffix}"
    if suffix == "heic":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(Image.fromarray(pixels())).save(path, quality=-1, chroma=444)
    else:
        Image.fromarray(pixels()).save(path, quality=100, subsampling="4:4:4")
    plain, data = read_noting(path), path.read_bytes()
    at = data.index(b"colrnclx") + 8
    path.write_bytes(data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :])
    assert np.abs(read_noting(path, "cICP") - in_srgb(plain / 255, "P3", decode)).max() <= 1
    path.write_bytes(data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :])
    with pytest.raises(BadPicture, match="high dynamic range"):
        read(path)


def test_a_profile_in_jpeg_2000(tmp_path):
    """Pillow reads no profile there: the test replaces the box of an enumerated space by one with a profile."""
    Image.fromarray(pixels()).save(tmp_path / "a.jp2")
    data, icc = (tmp_path / "a.jp2").read_bytes(), rgb_profile("P3", 2.2)
    at = data.index(b"colr") - 4
    box = struct.pack(">I4sBBB", 11 + len(icc), b"colr", 2, 0, 0) + icc
    header = data.index(b"jp2h") - 4
    longer = struct.pack(">I", int.from_bytes(data[header : header + 4], "big") + len(box) - 15)
    (tmp_path / "a.jp2").write_bytes(data[:header] + longer + data[header + 4 : at] + box + data[at + 15 :])
    stored = np.asarray(Image.open(tmp_path / "a.jp2")) / 255
    got = read_noting(tmp_path / "a.jp2", "colour profile")
    assert np.abs(got - in_srgb(stored, "P3", lambda x: x**2.2)).max() <= 2
    (tmp_path / "a.jp2").write_bytes(data[: at + 11] + struct.pack(">I", 21) + data[at + 15 :])
    with pytest.raises(BadPicture, match="colours of a kind"):
        read(tmp_path / "a.jp2")


def test_a_camera_that_says_adobe_rgb_in_exif_alone(tmp_path):
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 65535, 0xA005: {1: "R03"}}
    Image.fromarray(pixels()).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    stored = np.asarray(Image.open(tmp_path / "a.jpg")) / 255
    want = in_srgb(stored, "Adobe", lambda x: x**2.19921875)
    assert np.abs(read_noting(tmp_path / "a.jpg", "Adobe RGB") - want).max() <= 1


def test_lab_is_read_by_its_white(tmp_path):
    lab = np.zeros((20, 101, 3), np.uint8)
    lab[..., 0] = np.rint(np.arange(101) * 2.55)
    Image.fromarray(lab, "LAB").save(tmp_path / "a.tif")
    y = np.where(np.arange(101) > 8, ((np.arange(101) + 16) / 116) ** 3, np.arange(101) / 903.3)
    plain = read_noting(tmp_path / "a.tif", "LAB")
    assert np.abs(plain[0] - 255 * encode(y)[:, None]).max() <= 3
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(lab, "LAB").save(tmp_path / "a.tif", icc_profile=icc)
    picture, notes = read(tmp_path / "a.tif")
    assert notes == ["LAB: converted to RGB"]
    assert (picture == plain).all()


def test_a_pil_image_brings_its_profile(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.png", icc_profile=rgb_profile("P3", 2.2))
    image = Image.open(tmp_path / "a.png")
    before = dict(image.info)
    got, notes = to_array(image)
    assert (got == read(tmp_path / "a.png")[0]).all()
    assert any("converted to sRGB" in note for note in notes)
    assert image.info == before


def test_what_is_written_has_the_profile_of_what_it_holds(tmp_path):
    for image in (to_pil(pixels()), strip([("a", pixels())])):
        for suffix in ("png", "tif"):
            image.save(tmp_path / f"a.{suffix}")
            assert Image.open(tmp_path / f"a.{suffix}").info["icc_profile"] == srgb_profile()


def test_the_name_of_a_profile_is_no_command_to_a_terminal(tmp_path):
    icc = rgb_profile("P3", 2.2).replace(b"made here", b"\x1b[31mred\x07")
    Image.fromarray(pixels()).save(tmp_path / "a.png", icc_profile=icc)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(note.isprintable() for note in read(tmp_path / "a.png")[1])


def test_a_run_converts_tells_and_writes_true_profiles(tiny_folder, tmp_path):
    """A file in another space is converted to sRGB once, with one note, on its way to the files of an edit."""
    from iterinv.workbench import EditRequest, InvertRequest, Model, SampleRequest, Workbench

    picture = pixels(64, 64)
    Image.fromarray(picture).save(tmp_path / "p3.png", icc_profile=rgb_profile("P3", 2.2))
    model = Model(str(tiny_folder))
    source = InvertRequest(tmp_path / "p3.png", "a red sphere", num_inference_steps=2, model=model)
    result = Workbench().edit(EditRequest(source, ("a blue sphere",), keep_inversion=True))
    report = result.write(tmp_path)
    assert [note for note in report["notes"] if "converted to sRGB" in note] == [
        "p3.png: colour profile made here: converted to sRGB"
    ]
    want = in_srgb(picture / 255, "P3", lambda x: x**2.2)
    assert np.abs(read(tmp_path / "original.png")[0] - want).max() <= 2
    for name in ("original", "reconstruction", "comparison"):
        assert Image.open(tmp_path / f"{name}.png").info["icc_profile"] == srgb_profile()
        assert read(tmp_path / f"{name}.png")[1] == []
    assert Image.open(tmp_path / "edited.png").info["icc_profile"] == rgb_profile("P3", 2.2)
    shown = [*result.inversion.images, *result.edits[0].images]
    shown += Workbench().sample(SampleRequest("a red sphere", num_inference_steps=2, model=model))
    assert all(image.info["icc_profile"] == srgb_profile() for image in shown)

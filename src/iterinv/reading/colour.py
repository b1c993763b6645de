"""Colours to sRGB: by a profile (ICC), by the primaries and transfer curve that a file states, or as they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from iterinv.reading.errors import Refused
from iterinv.reading.layers import Layers, to_eight_bits

D65 = (0.3127, 0.3290)
SRGB = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE_RGB = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 1 / 2.19921875
"""Chromaticities (x and y of white, red, green, blue), as PNG's cHRM has them, and the exponent of the encoding."""

PRIMARIES = {
    1: SRGB,
    2: SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""Chromaticities by their number in ITU-T H.273, table 2; 2 is unspecified."""

EXPONENTS = {1: None, 2: None, 4: 1 / 2.2, 5: 1 / 2.8, 6: None, 8: 1.0, 13: None, 14: None, 15: None}
"""Exponents of the encoding by their number in H.273, table 3. ``None`` is sRGB's curve, by which browsers show the
camera curves (1, 6, 14, 15) too."""

BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
ROWS = 256


@cache
def srgb_profile() -> bytes:
    """The profile that outputs carry: sRGB by LittleCMS, without the time it was made at."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


def to_srgb(layers: Layers, info: Mapping[Any, Any]) -> tuple[np.ndarray, list[str]]:
    """The colours of decoded layers as (h, w, 3) uint8 in sRGB, and notes on their conversion.

    ``info`` is that of the PIL image: ``icc_profile``, ``cicp``, ``srgb``, ``gamma`` and ``chromaticity`` as PNG has
    them, and ``adobe_rgb`` where a camera's EXIF says so. Raises :class:`Refused` for pictures of high dynamic range.
    """
    space, notes = layers.space, list[str]()
    if (curve := stated_curve(space, info)) is not None:
        return _by_curve(layers, *curve)
    if "icc_profile" in info:
        rgb, notes = _by_profile(layers, info["icc_profile"] or b"")
        if rgb is not None:
            return rgb, notes
    if space == "LAB":
        return transformed(_image(layers), _lab_profile(), "LAB"), notes
    if space == "CMYK":
        return np.asarray(_image(layers).convert("RGB")), [*notes, "without a profile: its inks are taken as ideal"]
    return _three(to_eight_bits(layers.values)), notes


def stated_curve(space: str, info: Mapping[Any, Any]) -> tuple[tuple[float, ...], float | None, str] | None:
    """The chromaticities and the exponent that a file states in place of a profile, and the words for them."""
    if space not in ("L", "RGB"):
        return None
    if "cicp" in info:
        primaries, curve = info["cicp"]
        if curve in (16, 18):
            raise Refused("is a picture of high dynamic range (PQ or HLG); save it in standard range as PNG or JPEG")
        if primaries not in PRIMARIES or curve not in EXPONENTS:
            raise Refused(f"has colours of a kind unknown here (cICP {primaries}, {curve}); save it as an sRGB PNG")
        return PRIMARIES[primaries], EXPONENTS[curve], "colour code (cICP)"
    if "icc_profile" in info:
        return None
    if "adobe_rgb" in info:
        return *ADOBE_RGB, "EXIF colour space (Adobe RGB)"
    if "srgb" not in info and {"gamma", "chromaticity"} & set(info):
        return info.get("chromaticity", SRGB), info.get("gamma"), "gamma and primaries (gAMA, cHRM)"
    return None


def _by_profile(layers: Layers, icc: bytes) -> tuple[np.ndarray | None, list[str]]:
    """The picture by its profile, if that is one for its channels; values as they are if they mean sRGB's colours."""
    from PIL import ImageCms

    taken = f"taken as {'ideal inks' if layers.space == 'CMYK' else 'sRGB'}"
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        of = space_of(profile)
        if of == layers.space == "LAB":
            return None, []  # whose colours are known without a profile
        if of != layers.space and (of, layers.space) != ("RGB", "L"):
            return None, [f"its colour profile is for other channels than it has: {taken}"]
        meant, same = lattice_in_srgb(profile, of)
        if same:
            return _three(to_eight_bits(layers.values)), []
        if of == "L":
            rgb = meant[0][to_eight_bits(layers.values)[..., 0]]
        else:
            image = _image(layers)
            rgb = transformed(image.convert(of) if image.mode != of else image, profile, of)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None, [f"its colour profile is damaged: {taken}"]
    try:
        name = "".join(c for c in profile.profile.profile_description or "" if c.isprintable())[:60]
    except Exception:  # a name may be in any state
        name = ""
    return rgb, [f"colour profile {name or 'without a name'}: converted to sRGB"]


def space_of(profile: Any) -> str:
    """The mode of the channels that a profile is for; empty for one that is not read."""
    return {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(profile.profile.xcolor_space.strip(), "")


def lattice_in_srgb(profile: Any, mode: str) -> tuple[np.ndarray, bool]:
    """The colours (1, n, 3) in sRGB of all levels of grey, or of a lattice, by a profile; and whether these are sRGB's
    own levels."""
    lattice = _lattice(mode)
    meant = transformed(Image.fromarray(lattice, mode), profile, mode)
    return meant, mode != "CMYK" and bool(np.abs(meant.astype(int) - _three(lattice)).max() <= 1)


def _lattice(mode: str) -> np.ndarray:
    """An image (1, n, ...) of all levels of grey, or of a lattice of colours."""
    if mode == "L":
        return np.arange(256, dtype=np.uint8)[None]
    steps = np.linspace(0, 255, 17 if mode == "RGB" else 2).round().astype(np.uint8)
    return np.stack(np.meshgrid(*[steps] * len(mode), indexing="ij"), -1).reshape(1, -1, len(mode))


def transformed(image: Image.Image, profile: Any, mode: str, back: bool = False) -> np.ndarray:
    """An image by its profile as (h, w, 3) uint8 in sRGB: relative colorimetric, black to black. ``back``, an image in
    sRGB by the profile, in its ``mode``."""
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(BytesIO(srgb_profile()))
    pairs = (profile, mode), (srgb, "RGB")
    (of, from_mode), (to, to_mode) = pairs[::-1] if back else pairs
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    if mode == "L":  # few values, whose shadows a precalculated table is too coarse for
        flags |= ImageCms.Flags.NOOPTIMIZE
    transform = ImageCms.buildTransform(of, to, from_mode, to_mode, intent, flags)
    return np.asarray(ImageCms.applyTransform(image, transform))


def _lab_profile() -> Any:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))


def _by_curve(
    layers: Layers, stated: tuple[float, ...], exponent: float | None, source: str
) -> tuple[np.ndarray, list[str]]:
    """The picture from stated chromaticities and the exponent of its encoding, ``None`` for sRGB's curve."""
    light = linear_light(layers.space, stated, exponent)
    if light is None:
        return _three(to_eight_bits(layers.values)), [f"its {source} are no colours: taken as sRGB"]
    matrix, exponent = light
    levels = np.linspace(0, 1, 256 if layers.values.dtype == np.uint8 else 65536)
    linear = levels ** (1 / exponent) if exponent is not None else decoded(levels)
    if matrix is None and exponent is None:
        return _three(to_eight_bits(layers.values)), []
    notes = [f"{source}: converted to sRGB"]
    if matrix is None:
        return _three(encoded_uint8(linear)[layers.values]), notes
    table, codes = linear.astype(np.float32), encoded_uint8(np.arange(65536) / 65535)
    rgb = np.empty(layers.values.shape, np.uint8)
    for top in range(0, len(rgb), ROWS):  # in blocks, since the picture in floats is four times as large
        light = table[layers.values[top : top + ROWS]] @ matrix.T.astype(np.float32)
        rgb[top : top + ROWS] = codes[np.rint(light.clip(0, 1) * 65535).astype(np.uint16)]
    return rgb, notes


def linear_light(
    space: str, stated: tuple[float, ...], exponent: float | None
) -> tuple[np.ndarray | None, float | None] | None:
    """The matrix of linear light to sRGB's and the exponent, each ``None`` where it is sRGB's own; ``None`` for both
    where they are no colours."""
    matrix = None if exponent is not None and not 0 < exponent < 100 else _matrix(stated)
    if matrix is None:
        return None
    if space != "L" and np.abs(matrix - np.eye(3)).max() >= 0.005:
        return matrix, exponent
    # Files of sRGB state 1 / 2.2 for its curve, and libpng takes 5 % for equal.
    near = exponent is not None and abs(exponent * 2.2 - 1) < 0.05
    return None, None if near else exponent


def _matrix(stated: tuple[float, ...]) -> np.ndarray | None:
    """Linear light of stated chromaticities to sRGB's, white to white by Bradford; ``None`` where they are none."""
    stated_xyz, srgb = _to_xyz(stated), _to_xyz(SRGB)
    return None if stated_xyz is None or srgb is None else np.linalg.inv(srgb) @ stated_xyz


def _to_xyz(stated: tuple[float, ...]) -> np.ndarray | None:
    """Linear light to CIE XYZ under D65."""
    x, y = np.array(stated, float)[:8].reshape(-1, 2).T
    if len(x) != 4 or not np.isfinite([x, y]).all() or (y <= 0).any():
        return None
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    white, primaries = xyz[:, 0], xyz[:, 1:]
    if abs(np.linalg.det(primaries)) < 1e-6:
        return None
    cones = BRADFORD @ white
    target = BRADFORD @ np.array([D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])
    if (cones <= 0).any():
        return None
    adapted = np.linalg.inv(BRADFORD) @ np.diag(target / cones) @ BRADFORD
    return adapted @ (primaries * np.linalg.solve(primaries, white))


def decoded(levels: np.ndarray) -> np.ndarray:
    """sRGB levels in [0, 1] to linear light (IEC 61966-2-1)."""
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def encoded_uint8(light: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to 8-bit sRGB levels."""
    return np.rint(255 * encoded(light)).astype(np.uint8)


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB levels in [0, 1]."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _image(layers: Layers) -> Image.Image:
    values = to_eight_bits(layers.values)
    return Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values), layers.space)


def _three(values: np.ndarray) -> np.ndarray:
    """Grey (h, w, 1) or (h, w), or colour (h, w, 3), as colour."""
    grey = values[..., None] if values.ndim == 2 else values
    return np.broadcast_to(grey, (*grey.shape[:2], 3))

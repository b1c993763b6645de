"""Pictures from files and PIL images to 8-bit sRGB: formats, depth, colour, transparency and orientation.

No state of Pillow or Python is changed: no warning filter, no limit, no list of plugins.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from iterinv.reading import colour, ends, formats
from iterinv.reading.errors import BadPicture, Refused, named
from iterinv.reading.layers import split
from iterinv.reading.png import too_large

__all__ = ["SMALLEST_SIDE", "BadPicture", "read", "read_mask", "to_rgb"]

SMALLEST_SIDE = 16

UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}
"""The turn of a picture (h, w, 3) to upright, by its EXIF orientation."""

PAGES = {"TIFF": "pages", "MPO": "pictures", "JPEG": "pictures", "HEIF": "pictures", "ICO": "sizes"}


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    """A picture file as (h, w, 3) uint8 in sRGB, upright, and a note for everything that was converted on the way.

    Raises :class:`BadPicture`, which names the file, for a file that is missing, empty, broken, no picture, too small
    or too large.
    """
    with named(path), formats.opened(path) as opener:
        image = opener()
        _check_size(image)
        if ends.early(path, image):
            raise ValueError("its data end before the picture does")
        return _converted(image, opener)


def read_mask(path: Path) -> np.ndarray:
    """A picture file as a mask (h, w) float32 in [0, 1]: its brightness, where it is opaque. Raises
    :class:`BadPicture`."""
    with named(path), formats.opened(path) as opener:
        image = opener()
        _check_size(image)
        if image.mode.startswith("I"):  # 16 bits, which Pillow would cut
            return (np.asarray(image, np.float32) / 65535).clip(0, 1)
        grey = np.asarray(image.convert("RGBA").convert("LA"), np.float32) / 255
        return np.asarray(grey[..., 0] * grey[..., 1])


def to_rgb(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    """A PIL image as (h, w, 3) uint8 in sRGB, upright, and a note for everything that was converted on the way.

    Raises :class:`BadPicture` for an image whose file is broken and for values without a known range.
    """
    with named(getattr(image, "filename", "") or "the PIL image"):
        return _converted(image)


def _converted(image: Image.Image, again: Callable[[], Image.Image] | None = None) -> tuple[np.ndarray, list[str]]:
    """:func:`to_rgb`; ``again`` opens the image's file once more."""
    notes, turned = _frames(image), getattr(image, "tag_v2", {}).get(274, 1)
    layers = split(image, again)
    if again is not None:
        _check_size(image)  # once more, since the picture in an icon may have another size than its table says
    info: dict[Any, Any] = dict(image.info)
    if _is_adobe_rgb(image):
        info["adobe_rgb"] = True
    rgb, converted = colour.to_srgb(layers, info)
    if layers.alpha is not None:
        shown = Image.fromarray(np.ascontiguousarray(layers.alpha))
        over = Image.fromarray(np.ascontiguousarray(rgb))
        rgb = np.asarray(Image.composite(over, Image.new("RGB", over.size, "white"), shown))
        converted.append("transparent: laid on white")
    orientation = _orientation(image)
    if orientation in UPRIGHT:
        rgb = UPRIGHT[orientation](rgb)
    if orientation in UPRIGHT or turned in UPRIGHT:  # Pillow decodes TIFF upright, and then it is no longer said
        notes.append("rotated as its EXIF orientation says")
    return np.array(rgb), [*notes, *layers.notes, *converted]


def _check_size(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    if image.width * image.height > limit:
        raise Refused(too_large(limit))
    if min(image.size) < SMALLEST_SIDE:
        raise Refused(f"is {image.width}x{image.height} px; a side of at least {SMALLEST_SIDE} px is needed")


def _frames(image: Image.Image) -> list[str]:
    count: int = image.info["frames"] if "frames" in image.info else getattr(image, "n_frames", 1)
    if count < 2 or image.format == "PSD":  # whose layers are merged into one picture
        return []
    several = PAGES.get(image.format or "")
    kind = f"a file of {count} {several}" if several else f"an animation of {count} frames"
    return [f"{kind}: the first is used"]


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, which is upright, where the EXIF data are damaged: the picture itself is not."""
    try:
        return int(image.getexif().get(274, 1))
    except Exception:
        return 1


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Tell whether the EXIF data of a camera say Adobe RGB: an index of interoperability is their word for it."""
    try:
        return str(image.getexif().get_ifd(ExifTags.IFD.Interop).get(1, "")).startswith("R03")
    except Exception:
        return False

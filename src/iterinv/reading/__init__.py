"""Pictures from files and PIL images to 8-bit sRGB: formats, depth, colour, transparency and orientation.

No state of Pillow or Python is changed: no warning filter, no limit, no list of plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from iterinv.reading import colour, ends, formats
from iterinv.reading.errors import BadPicture, Refused, named
from iterinv.reading.layers import Layers, split
from iterinv.reading.original import Original, on_white
from iterinv.reading.png import too_large

__all__ = ["SMALLEST_SIDE", "BadPicture", "Original", "read", "read_mask", "read_original", "to_original", "to_rgb"]

SMALLEST_SIDE = 16

Turn = Callable[[np.ndarray], np.ndarray]

UPRIGHT: dict[int, Turn] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}
"""The turn of a picture (h, w, 3) to upright, by its EXIF orientation."""

PAGES = {"TIFF": "pages", "MPO": "pictures", "JPEG": "pictures", "HEIF": "pictures"}


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    """A picture file as (h, w, 3) uint8 in sRGB, upright, and a note for everything that was converted on the way.

    Raises :class:`BadPicture`, which names the file, for a file that is missing, empty, broken, no picture, too small
    or too large.
    """
    with _whole(path) as (image, opener):
        return _converted(image, opener)


def read_original(path: Path) -> Original:
    """A picture file's own pixels. Raises :class:`BadPicture` as :func:`read` does."""
    with _whole(path) as (image, opener):
        return _original(image, opener)


def to_original(image: Image.Image) -> Original:
    """A PIL image's own pixels. Raises :class:`BadPicture` as :func:`to_rgb` does."""
    with named(getattr(image, "filename", "") or "the PIL image"):
        return _original(image)


@contextmanager
def _whole(path: Path) -> Iterator[tuple[Image.Image, Callable[[], Image.Image]]]:
    """The image of a file whose data are whole, and a function that opens the file once more."""
    with named(path), formats.opened(path) as opener:
        image = opener()
        _check_size(image)
        if ends.early(path, image):
            raise ValueError("its data end before the picture does")
        yield image, opener


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
    layers, _, rgb, turn, notes = _decoded(image, again)
    if layers.alpha is not None and layers.transparent:
        rgb = on_white(rgb, layers.alpha)
        notes.append("transparent: laid on white")
    return np.array(turn(rgb)), notes


def _decoded(
    image: Image.Image, again: Callable[[], Image.Image] | None
) -> tuple[Layers, dict[Any, Any], np.ndarray, Turn, list[str]]:
    """The layers of an image, the facts on their colours, their colours (h, w, 3) uint8 in sRGB, the turn that brings
    them upright, and notes."""
    notes, turned = _frames(image), getattr(image, "tag_v2", {}).get(274, 1)
    layers = split(image, again)
    if again is not None:
        _check_size(image)  # once more, since the picture in an icon may have another size than its table says
    info: dict[Any, Any] = dict(image.info)
    if _is_adobe_rgb(image):
        info["adobe_rgb"] = True
    rgb, converted = colour.to_srgb(layers, info)
    orientation = _orientation(image)
    if orientation in UPRIGHT or turned in UPRIGHT:  # Pillow decodes TIFF upright, and then it is no longer said
        notes.append("rotated as its EXIF orientation says")
    return layers, info, rgb, UPRIGHT.get(orientation, lambda x: x), [*notes, *layers.notes, *converted]


def _original(image: Image.Image, again: Callable[[], Image.Image] | None = None) -> Original:
    layers, info, rgb, turn, _ = _decoded(image, again)
    return Original.of(layers, info, rgb).turned(turn)


def _check_size(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    if image.width * image.height > limit:
        raise Refused(too_large(limit))
    if min(image.size) < SMALLEST_SIDE:
        raise Refused(f"is {image.width}x{image.height} px; a side of at least {SMALLEST_SIDE} px is needed")


def _frames(image: Image.Image) -> list[str]:
    beside = bool(image.info.get("default_image"))  # an animated PNG may have a still picture beside its frames
    count: int = image.info["frames"] if "frames" in image.info else getattr(image, "n_frames", 1) - beside
    if count + beside < 2 or image.format == "PSD":  # whose layers are merged into one picture
        return []
    several, number = PAGES.get(image.format or ""), image.tell() + 1 - beside
    kind = f"a file of {count} {several}" if several else f"an animation of {count} frame{'s' * (count > 1)}"
    used = "the first" if number == 1 else f"number {number}" if number else "the still picture beside it"
    return [f"{kind}: {used} is used"]


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

"""PIL images to the values of their channels, with the depth that their files have."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from iterinv.reading.errors import Refused

EIGHT_BITS = np.rint(np.arange(65536) / 257).astype(np.uint8)
"""The nearest 8-bit value to each of 16 bits."""

NO_RANGE = "which have no known range; save it as 8-bit PNG"
KINDS = {"L": "grey", "LA": "grey", "La": "grey", "1": "black and white", "P": "palette", "PA": "palette"}
OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
"""Pillow cuts 16-bit colour to its high byte; read in the other order of bytes, to its low one."""


@dataclass(frozen=True, eq=False)
class Layers:
    """Channels (h, w, c) uint8 or uint16 of a space (``L``, ``RGB``, ``CMYK`` or ``LAB``), alpha (h, w) of the same
    depth if there is any, and notes on conversions."""

    values: np.ndarray
    space: str
    alpha: np.ndarray | None
    notes: list[str]

    @property
    def transparent(self) -> bool:
        """Tell whether there is an alpha channel that hides anything."""
        return self.alpha is not None and bool(to_eight_bits(self.alpha.min()) < 255)


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Values of 8 or 16 bits as the nearest of 8."""
    return EIGHT_BITS[values] if values.dtype == np.uint16 else values


def split(image: Image.Image, again: Callable[[], Image.Image] | None = None) -> Layers:
    """Decode an image. ``again`` opens its file once more; without it, 16-bit colour is as Pillow has cut it.

    Raises :class:`Refused` for values without a known range.
    """
    raw, key, mode = _rawmode(image), image.info.get("transparency"), image.mode
    grey16 = mode == "I" or mode.startswith("I;16")
    bits = image.info.get("bits", 12 if raw == "I;12" else 16 if grey16 or ";16" in raw else 8)
    if mode == "F":
        raise Refused(f"holds floating-point values, {NO_RANGE}")
    if mode == "I" and image.format != "PPM":
        raise Refused(f"holds 32-bit values, {NO_RANGE}")
    values = _both_bytes(image, raw, again) if ";16" in raw and not grey16 and again is not None else None
    if values is not None and raw.startswith("RGBa"):
        whole = values[..., 3:].astype(np.uint32)
        values[..., :3] = ((values[..., :3] * np.uint32(65535) + whole // 2) // whole.clip(1)).clip(0, 65535)
    if values is None:
        image.load()
        if mode in ("P", "PA", "RGBa"):
            image, key = image.convert("RGBA" if image.has_transparency_data else "RGB"), None
        elif mode in ("1", "La"):
            image, key = image.convert("L" if mode == "1" else "LA"), 255 * bool(key) if key is not None else None
        elif mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB") and not grey16:
            image = image.convert("RGB")
        values = np.asarray(image).reshape(image.height, image.width, -1)
        if grey16:
            values = _whole_range(image, values, raw)
    space = image.mode if image.mode in ("CMYK", "LAB") else ("L", "LA", "RGB", "RGBA")[values.shape[2] - 1]
    alpha = None
    if space in ("LA", "RGBA"):
        values, alpha, space = values[..., :-1], values[..., -1], space[:-1]
    elif key is not None:
        alpha = (values != np.array(key)).any(-1) * values.dtype.type(np.iinfo(values.dtype).max)
    notes = [f"{bits} bits a channel: reduced to 8"] if bits > 8 else []
    if raw == "LA;16B":  # which Pillow takes for colour
        mode = "LA"
    if mode not in ("RGB", "RGBA", "RGBa"):
        notes.append(f"{'grey' if grey16 else KINDS.get(mode, mode)}: converted to RGB")
    layers = Layers(values, space, alpha, notes)
    if alpha is not None and not layers.transparent:
        notes.append("transparency that hides nothing: left out")
    return layers


def _whole_range(image: Image.Image, values: np.ndarray, raw: str) -> np.ndarray:
    """Grey values over all of 16 bits, and white the highest."""
    values = values.astype(np.uint16)
    if raw == "I;12":
        values = np.rint(values * (65535 / 4095)).astype(np.uint16)
    white_is_zero = getattr(image, "tag_v2", {}).get(262) == 0
    return 65535 - values if white_is_zero else values


def _both_bytes(image: Any, raw: str, again: Callable[[], Any]) -> np.ndarray | None:
    """16-bit colour (h, w, c) uint16, or ``None`` where Pillow does not give both bytes of a value."""
    if not {tile[0] for tile in image.tile} <= {"zip", "raw", "libtiff"}:
        return None
    other = again()
    if raw == "LA;16B":  # 32 bits a pixel, which RGBA takes as they are
        other.tile = [tile._replace(args="RGBA") for tile in other.tile]
        high, low = np.asarray(other)[..., ::2], np.asarray(other)[..., 1::2]
    else:
        plain = raw.replace("RGBa", "RGBA")  # which Pillow divides by alpha in 8 bits
        high, low = _taken_as(image, plain), _taken_as(other, plain[:-3] + OTHER_BYTE[plain[-3:]])
    return high * np.uint16(256) + low


def _taken_as(image: Any, raw: str) -> np.ndarray:
    """The values of an image that is not decoded yet, by another raw mode."""
    image.tile = [
        tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:])) for tile in image.tile
    ]
    return np.asarray(image)


def _rawmode(image: Image.Image) -> str:
    """The raw mode of a file that is not decoded, which says how many bits its values have."""
    args = next((tile[3] for tile in getattr(image, "tile", ())), "")
    return str(args[0] if isinstance(args, tuple) and args else args)

"""The way in which the values of a picture file mean colours, so that colours can be written in the same way."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from iterinv.reading import colour

Chunk = tuple[bytes, bytes]


@dataclass(frozen=True)
class Encoding:
    """The colours of a file: by an ICC profile of ``space``, by a ``curve`` (chromaticities and an exponent, ``None``
    for sRGB's), or sRGB.

    ``plain`` says that the values are sRGB's levels, whatever the file states. ``chunks`` are those of a PNG file that
    states the same.
    """

    space: str = "RGB"
    icc: bytes = b""
    curve: tuple[tuple[float, ...], float | None] | None = None
    plain: bool = True
    chunks: tuple[Chunk, ...] = ()

    @classmethod
    def of(cls, space: str, info: Mapping[Any, Any]) -> Encoding | None:
        """The encoding of channels of a space (``L`` or ``RGB``) by the facts that :func:`colour.to_srgb` takes.

        ``None`` where a profile does not say how its values are made of colours. A profile that is damaged or for other
        channels counts as none.
        """
        if (stated := colour.stated_curve(space, info)) is not None:
            light = colour.linear_light(space, *stated[:2])
            if light is None:
                return cls.srgb()
            plain = light[0] is None and light[1] is None
            return cls(curve=stated[:2], plain=plain, chunks=_stated(info, *stated[:2]))
        icc = info.get("icc_profile")
        if not icc:
            return cls.srgb()
        from PIL import ImageCms

        try:
            profile = ImageCms.ImageCmsProfile(BytesIO(icc))
            of = colour.space_of(profile)
            if (of, space) not in (("RGB", "RGB"), ("L", "L"), ("RGB", "L")):
                return cls.srgb()
            meant, plain = colour.lattice_in_srgb(profile, of)
        except (ImageCms.PyCMSError, OSError, ValueError):
            return cls.srgb()
        encoding = cls(of, icc, None, plain, (profile_chunk(icc),))
        try:
            encoding.values(meant)
        except (ImageCms.PyCMSError, OSError, ValueError):
            return None
        return encoding

    @classmethod
    def srgb(cls) -> Encoding:
        """The encoding of a picture that states none."""
        return cls(chunks=(profile_chunk(colour.srgb_profile()),))

    @property
    def profile(self) -> bytes:
        """The ICC profile of these colours; empty where a curve stands in its place."""
        return self.icc or (b"" if self.curve else colour.srgb_profile())

    def values(self, rgb: np.ndarray) -> np.ndarray:
        """Colours (h, w, 3) uint8 in sRGB as values in [0, 255], (h, w, 3), or (h, w, 1) by a profile of grey."""
        if self.plain:
            return rgb
        if self.curve is not None:
            return _by_curve(rgb, *self.curve)
        from PIL import ImageCms

        profile = ImageCms.ImageCmsProfile(BytesIO(self.icc))
        made = colour.transformed(Image.fromarray(np.ascontiguousarray(rgb)), profile, self.space, back=True)
        return made.reshape(*rgb.shape[:2], -1)


def _by_curve(rgb: np.ndarray, stated: tuple[float, ...], exponent: float | None) -> np.ndarray:
    """Colours in sRGB as levels (h, w, 3) float32 in [0, 255], by chromaticities and the exponent of the encoding."""
    light: np.ndarray = colour.decoded(np.arange(256) / 255).astype(np.float32)[rgb]
    matrix, _ = colour.linear_light("RGB", stated, exponent) or (None, None)
    if matrix is not None:
        light = light @ np.linalg.inv(matrix).T.astype(np.float32)
    light = light.clip(0, 1)
    return np.asarray(255 * (colour.encoded(light) if exponent is None else light**exponent), np.float32)


def _stated(info: Mapping[Any, Any], stated: tuple[float, ...], exponent: float | None) -> tuple[Chunk, ...]:
    """The chunks that state a curve as its file does; Adobe RGB by EXIF becomes chromaticities and an exponent."""
    if "cicp" in info:
        return ((b"cICP", bytes([*info["cicp"], 0, 1])),)
    chunks = [(b"cHRM", struct.pack(">8I", *(round(1e5 * each) for each in stated[:8])))]
    if exponent is not None:
        chunks.append((b"gAMA", struct.pack(">I", round(1e5 * exponent))))
    return tuple(chunks)


def profile_chunk(icc: bytes) -> Chunk:
    """The chunk of a PNG file that holds an ICC profile."""
    return b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)

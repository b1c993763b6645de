"""The chunks of PNG files (https://www.w3.org/TR/png-3/), checked and bounded where Pillow does neither."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from iterinv.reading.errors import Refused

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MEBI = 1 << 20
TEXT_MAX = 16 * MEBI
PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"gAMA", b"cHRM", b"sRGB"}
TEXT = {b"tEXt", b"zTXt", b"iTXt"}
ORIENTATION = b"Raw profile type exif", b"XML:com.adobe.xmp"
"""Keywords of texts that may hold the orientation; all other text is left out, since Pillow bounds its size."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
"""Adam7's passes: first column and row, and the steps between columns and rows."""


@dataclass(frozen=True)
class Checked:
    """A PNG as Pillow can take it, whose data are whole; its bits a value; and facts that Pillow does not read."""

    data: BytesIO
    bits: int
    info: dict[str, Any]


def checked(file: BinaryIO, pixels_max: float) -> Checked:
    """The chunks that make a PNG's picture.

    Raises ``ValueError`` for a damaged file, and :class:`Refused` for one of too many pixels or of another coding.
    """
    cleaned, bits, left, inflate, palette = BytesIO(), 0, 0, zlib.decompressobj(), False
    begun, animated, frames, beside, texts = False, False, 0, False, set[bytes]()
    info: dict[str, Any] = {}
    cleaned.write(file.read(len(SIGNATURE)))
    for kind, data in _chunks(file):
        if (kind == b"IHDR") == bool(bits):
            raise ValueError("it does not begin with its one IHDR chunk")
        if kind == b"IHDR":
            left, bits, palette = _inflated_size(data, pixels_max), data[8], data[9] != 3
        elif kind == b"PLTE":
            palette = True
        elif kind == b"IDAT":
            if not begun:
                begun, beside = True, not frames
            if left <= 0 or inflate.eof:
                continue
            waiting = data
            while waiting and left > 0 and not inflate.eof:
                left -= len(inflate.decompress(waiting, MEBI))
                waiting = inflate.unconsumed_tail
        elif kind == b"iCCP":
            info["icc_profile"] = _profile(data)
        elif kind == b"cICP" and len(data) == 4:
            if data[2] or not data[3]:
                raise Refused("holds values of video range (cICP), which are not read here; save it as an sRGB PNG")
            info["cicp"] = data[0], data[1]
        elif kind == b"acTL":
            animated = animated or not begun
        elif kind == b"fcTL":
            frames += 1
        elif kind in TEXT:
            keyword, _, rest = data.partition(b"\0")
            if keyword in ORIENTATION and keyword not in texts:
                texts.add(keyword)
                with suppress(ValueError):
                    write_chunk(cleaned, b"tEXt", keyword + b"\0" + _unpacked(kind, rest, TEXT_MAX))
        if kind in PICTURE:
            write_chunk(cleaned, kind, data)
    if animated and frames:
        info |= {"frames": frames, "default_image": beside}
    if not palette:
        raise ValueError("it holds no palette (PLTE) for its values")
    if left > 0:
        raise ValueError("its data end before the picture does")
    write_chunk(cleaned, b"IEND", b"")
    cleaned.seek(0)
    return Checked(cleaned, bits, info)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each chunk that is used, up to IEND or the file's end; image data in pieces of a mebibyte."""
    used = PICTURE | {b"iCCP", b"cICP", b"acTL", b"fcTL"} | TEXT
    while len(header := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", header)
        if kind == b"IEND" or not kind.isalpha():
            return
        if kind not in used or (size > TEXT_MAX and kind != b"IDAT"):
            file.seek(size + 4, 1)
            continue
        crc = zlib.crc32(kind)
        while True:
            data = file.read(min(size, MEBI) if kind == b"IDAT" else size)
            size, crc = size - len(data), zlib.crc32(data, crc)
            yield kind, data
            if not size or not data:
                break
        if file.read(4) != struct.pack(">I", crc) and kind not in TEXT:
            raise ValueError(f"the checksum of its {kind.decode()} chunk is wrong")


def write_chunk(output: BinaryIO, kind: bytes, data: bytes) -> None:
    """Write a chunk with its size and checksum."""
    output.write(struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data)))


def text_of(file: BinaryIO, keyword: bytes, most: int) -> str | None:
    """The first text under a keyword, in a tEXt, zTXt or iTXt chunk of a file behind its signature; ``None`` without
    one.

    Raises ``ValueError`` for a text of more than ``most`` bytes, packed or unpacked, and for a damaged one.
    """
    while len(header := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", header)
        if kind == b"IEND" or not kind.isalpha():
            return None
        start = file.read(min(size, len(keyword) + 1)) if kind in TEXT else b""
        if start != keyword + b"\0":
            file.seek(size - len(start) + 4, 1)
            continue
        if size > most + 1024:
            raise ValueError(f"the text has {size} bytes, and {most} at most are read")
        data = file.read(size - len(start))
        if file.read(4) != struct.pack(">I", zlib.crc32(kind + start + data)):
            raise ValueError(f"the checksum of its {kind.decode()} chunk is wrong")
        return _text(kind, data, most)
    return None


def _text(kind: bytes, data: bytes, most: int) -> str:
    """The text of a chunk, behind its keyword. Raises ``ValueError`` as :func:`text_of` does."""
    data = _unpacked(kind, data, most)
    try:
        return data.decode("utf-8" if kind == b"iTXt" else "latin-1")
    except UnicodeDecodeError:
        raise ValueError("the text is no UTF-8") from None


def _unpacked(kind: bytes, data: bytes, most: int) -> bytes:
    """The bytes of a chunk's text, behind its keyword. Raises ``ValueError`` as :func:`text_of` does."""
    packed = kind == b"zTXt"
    if packed:
        data = data[1:]
    elif kind == b"iTXt":
        packed = data[:1] == b"\1"
        data = data[2:].split(b"\0", 2)[-1]
    if packed:
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(data, most + 1)
        except zlib.error:
            raise ValueError("the packed text is damaged") from None
        if not inflate.eof and len(data) <= most:
            raise ValueError("the packed text ends early")
    if len(data) > most:
        raise ValueError(f"the text has more than {most} bytes")
    return data


def _inflated_size(header: bytes, pixels_max: float) -> int:
    """Bytes of all rows with their filter bytes, by the IHDR chunk."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if width * height > pixels_max:
        raise Refused(too_large(pixels_max))
    deep = CHANNELS[colour] * bits
    sizes = (
        (-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in (ADAM7 if interlaced else [(0, 0, 1, 1)])
    )
    return sum(h * (1 + (w * deep + 7) // 8) for w, h in sizes if w > 0 and h > 0)


def too_large(pixels_max: float) -> str:
    """The reason for refusing a picture of too many pixels."""
    return f"has more than {pixels_max / 1e6:.0f} million pixels; reduce it first"


def _profile(data: bytes) -> bytes:
    """The colour profile of an iCCP chunk, empty if it is damaged or larger than 16 MiB."""
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(data[data.index(b"\0") + 2 :], 16 * MEBI)
    except (ValueError, zlib.error):
        return b""
    return profile if inflate.eof else b""

"""PNG files (https://www.w3.org/TR/png-3/) of 8 and of 16 bits a channel, which Pillow writes for grey alone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iterinv.files import whole
from iterinv.reading.png import SIGNATURE, write_chunk

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""The colour type of grey, grey with alpha, RGB and RGBA, by the number of channels."""

AVERAGE, LEVEL, ROWS = 3, 2, 64
"""The filter of every row; the level of zlib, above which photographs take longer and stay as large; rows at a time."""


def write_png(path: Path, values: np.ndarray, chunks: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Write values (h, w, 1 to 4) uint8 or uint16 as a PNG file, whole or not at all; ``chunks`` (kind, data) stand
    before its data.

    Raises :class:`iterinv.files.CannotWrite`.
    """
    height, width, channels = values.shape
    bits = 8 * values.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, bits, COLOUR_TYPES[channels], 0, 0, 0)
    with whole(path) as file:
        file.write(SIGNATURE)
        for kind, data in ((b"IHDR", header), *chunks):
            write_chunk(file, kind, data)
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
        above = np.zeros((1, width * channels * values.dtype.itemsize), np.uint8)
        for top in range(0, height, ROWS):
            rows = _bytes(values[top : top + ROWS])
            filtered = _filtered(rows, np.concatenate([above, rows[:-1]]), channels * values.dtype.itemsize)
            if data := deflate.compress(filtered.tobytes()):
                write_chunk(file, b"IDAT", data)
            above = rows[-1:]
        write_chunk(file, b"IDAT", deflate.flush())
        write_chunk(file, b"IEND", b"")


def _bytes(values: np.ndarray) -> np.ndarray:
    """Rows of values as bytes (h, n), the high byte first."""
    rows = np.ascontiguousarray(values, values.dtype.newbyteorder(">"))
    return rows.view(np.uint8).reshape(len(rows), -1)


def _filtered(rows: np.ndarray, above: np.ndarray, pixel: int) -> np.ndarray:
    """Rows of bytes less the average of the bytes to the left, ``pixel`` bytes away, and above, after the filter's
    number."""
    out = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    out[:, 0] = AVERAGE
    mean = above.astype(np.uint16)
    mean[:, pixel:] += rows[:, :-pixel]
    out[:, 1:] = rows - (mean >> 1).astype(np.uint8)
    return out

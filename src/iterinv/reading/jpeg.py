"""A check for JPEG files whose data end before the picture does. The decoder fills the rest with grey, in silence."""

from __future__ import annotations

import re
from io import BytesIO

from PIL import Image, ImageChops
from PIL.JpegImagePlugin import JpegImageFile

MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker in entropy-coded data: stuffed zeros, restarts and fill bytes are none."""


def ends_early(data: bytes, decoded: Image.Image) -> bool:
    """Tell whether a JPEG file whose picture is ``decoded`` holds fewer data than the picture needs.

    The file is decoded again with bytes put before the end of its data: these only change a picture that was still to
    be decoded.
    """
    end = _end(data)
    if end is None:
        return False
    again = JpegImageFile(BytesIO(data[:end] + b"\x5a\xa6\x33" * 64 + data[end:]))
    return ImageChops.difference(again, decoded).getbbox() is not None


def _end(data: bytes) -> int | None:
    """The place of the first picture's end marker, ``None`` where there is none."""
    place = 2
    while match := MARKER.search(data, place):
        place = match.start()
        if data[place + 1] == 0xD9:
            return place
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None

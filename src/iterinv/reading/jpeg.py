"""A check for JPEG files whose data end before the picture does. The decoder fills the rest with grey, in silence."""

from __future__ import annotations

import re
from io import BytesIO

from PIL import Image, ImageChops
from PIL.JpegImagePlugin import JpegImageFile

MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker in entropy-coded data: stuffed zeros, restarts and fill bytes are none."""

JUNK = b"\x5a\xa6\x33" * 64
PROGRESSIVE = 0xC2


def ends_early(data: bytes, decoded: Image.Image) -> bool:
    """Tell whether a JPEG file whose picture is ``decoded`` holds fewer data than the picture needs.

    Its scans must give every bit of every coefficient. The file is decoded again with bytes put behind every scan:
    these only change a picture that was still to be decoded.
    """
    ends, whole = _scans(data)
    if not whole:
        return True
    parts = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    return ImageChops.difference(JpegImageFile(BytesIO(JUNK.join(parts))), decoded).getbbox() is not None


def _scans(data: bytes) -> tuple[list[int], bool]:
    """The ends of the first picture's scans, and whether they say that they hold the whole picture."""
    ends, missing, place, in_scan, progressive = list[int](), dict[int, list[int]](), 2, False, False
    while match := MARKER.search(data, place):
        place, kind = match.start(), data[match.start() + 1]
        if in_scan:
            ends.append(place)
            in_scan = False
        if kind == 0xD9:
            break
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + size]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            progressive = kind == PROGRESSIVE
            missing = {each: [1] * (64 if progressive else 1) for each in body[6::3][: body[5]]}
        elif kind == 0xDA:
            in_scan = True
            first, last, bits = body[-3:]
            for each in body[1:-3:2]:
                if progressive:
                    missing[each][first : last + 1] = [bits & 15] * (last + 1 - first)
                else:
                    missing[each] = [0]
        place += 2 + size
    else:  # without an end marker, as where a copy was interrupted: zeros may be no data
        ends.append(len(data.rstrip(b"\0")))
    return ends, not any(map(any, missing.values()))

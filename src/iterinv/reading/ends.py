"""Checks for files whose decoders fill the missing end of a picture in silence, for the formats that show it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from iterinv.reading import jpeg

QOI_END = bytes(7) + b"\1"
LEAST_ZEROS = 64
"""A coder of arithmetic ends its data in a bit that is set, so that so many zeros are none of its bytes."""

FAX = {"group3", "group4", "tiff_ccitt"}
DECODE = "import sys; from PIL import Image; Image.open(sys.argv[1]).load()"


def early(path: Path, image: Any) -> bool:
    """Tell whether the data of a file end before its picture, ``image``, does.

    Raises ``ValueError`` for data that are decoded with errors.
    """
    return image.format in CHECKS and CHECKS[image.format](path, image)


def _zeros(path: Path, image: Any) -> bool:
    """Decode with other bytes in the place of zeros at the end of the file, which an interrupted copy leaves."""
    data = path.read_bytes()
    zeros = len(data) - len(data.rstrip(b"\0"))
    if zeros < LEAST_ZEROS:
        return False
    again = type(image)(BytesIO(data[:-zeros] + (b"\x5a\xa6\x33" * zeros)[:zeros]))
    return bool(again.tobytes() != image.tobytes())


def _fax(path: Path, image: Any) -> bool:
    """Decode a fax in another process, since libtiff only prints its errors and Pillow does not learn of them."""
    if image.info.get("compression") not in FAX or not sys.executable or getattr(sys, "frozen", False):
        return False
    try:
        ran = subprocess.run(
            [sys.executable, "-c", DECODE, path], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    except OSError:  # no process may be started here
        return False
    errors = [line for line in ran.stderr.decode(errors="replace").splitlines() if line.startswith("Fax")]
    if errors:
        raise ValueError(errors[0])
    return False


CHECKS: dict[str, Callable[[Path, Any], bool]] = {
    "JPEG": lambda path, image: jpeg.ends_early(path.read_bytes(), image),
    "QOI": lambda path, image: QOI_END not in path.read_bytes(),
    "AVIF": _zeros,
    "HEIF": _zeros,
    "TIFF": _fax,
}
"""Checks of a file, by Pillow's name of its format."""

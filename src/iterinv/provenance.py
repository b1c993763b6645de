"""Settings that a PNG file carries: one JSON object in its text, which says how the picture was made.

The text is an iTXt chunk (https://www.w3.org/TR/png-3/#11iTXt) under the keyword :data:`KEY`. Pixels do not depend on
it. A file may come from anywhere, so its text is bounded before it is unpacked, and is data that nothing runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iterinv.files import printable
from iterinv.plain import to_json
from iterinv.reading.png import SIGNATURE, text_of

KEY = "iterinv"
"""The keyword of the text."""

LONGEST = 1 << 20
"""The most bytes that the text may have, unpacked."""

LONG, DEEPEST = 10_000, 20


class NoSettings(ValueError):
    """An error for a file without readable settings; the message names it and says why, in printable text."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(printable(f"{path} {why}"))


def chunks(settings: Mapping[str, Any] | None) -> tuple[tuple[bytes, bytes], ...]:
    """The chunk (kind, data) of a PNG file that holds settings, as :func:`iterinv.writing.write_png` takes it; none
    without settings.

    Of settings longer than :data:`LONGEST` the entries of more than :data:`LONG` bytes are left out, and named under
    ``left_out``.
    """
    if not settings:
        return ()
    if len(text := to_json(settings).encode()) > LONGEST:
        short = {name: value for name, value in settings.items() if len(to_json(value).encode()) <= LONG}
        text = to_json({**short, "left_out": [name for name in settings if name not in short]}).encode()
    return ((b"iTXt", KEY.encode() + b"\0\0\0\0\0" + text),)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a PNG file holds.

    Raises :class:`NoSettings` for a file without any, for text that is damaged, too long or no JSON object, and for
    a file that is no PNG; ``OSError`` for one that cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise NoSettings(path, "is no PNG file, and only PNG files hold settings")
        try:
            text = text_of(file, KEY.encode(), LONGEST)
        except ValueError as error:
            raise NoSettings(path, f"holds settings that cannot be read: {error}") from None
    if text is None:
        raise NoSettings(path, "holds no settings: iterinv did not write it, or another program took its text away")
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        raise NoSettings(path, "holds settings that are no JSON") from None
    if not isinstance(settings, dict) or not _shallow(settings, DEEPEST):
        raise NoSettings(path, f"holds settings that are no JSON object of at most {DEEPEST} levels")
    return settings


def _shallow(value: Any, levels: int) -> bool:
    """Tell whether a value of JSON has at most so many levels."""
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_shallow(each, levels - 1) for each in inner)

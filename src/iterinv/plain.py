"""Values as JSON can hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """A value as JSON can hold it: ``None`` for numbers that are not finite, Python's numbers for numpy's, lists for
    other sequences, and text for anything else."""
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if callable(item := getattr(value, "item", None)) and getattr(value, "ndim", 1) == 0:
        return plain(item())
    return str(value)


def to_json(value: Any, indent: int | None = None, ascii_only: bool = False) -> str:
    """A value in JSON. A text of bytes that are no text is written with escapes; ``ascii_only``, every character that
    ASCII lacks is."""
    text = json.dumps(plain(value), ensure_ascii=ascii_only, allow_nan=False, indent=indent)
    return text.encode("utf-8", "backslashreplace").decode()

"""A comparison of the words of two prompts."""

from __future__ import annotations

import re
from collections import Counter


def word_change(source: str, target: str) -> str:
    """Say how the words of two prompts differ: ``added``, ``removed`` or ``exchanged``. Words are counted, and their
    order counts for nothing."""
    old, new = (Counter(re.findall(r"[^\W_]+", prompt.lower())) for prompt in (source, target))
    if new < old:
        return "removed"
    return "added" if old < new else "exchanged"

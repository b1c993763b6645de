"""The tokens of a prompt: which columns of a text encoder's output are which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True)
class Tokens:
    """A prompt as its text encoder reads it: ``ids`` with the padding, a row of the encoded text each, and the
    ``spans`` (start, end) in ``text`` that they stand for, which are empty for special tokens."""

    text: str
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        """The number of tokens that stand for text."""
        return sum(end > start for start, end in self.spans)

    @property
    def words(self) -> list[str]:
        """The words that have a token."""
        matches = re.finditer(r"[^\W_]+", self.text)
        return list(dict.fromkeys(each[0] for each in matches if self._of(*each.span())))

    def of(self, word: str) -> list[int]:
        """The tokens of a word, in upper or lower case, or of several words in a row, wherever the prompt has them."""
        matches = re.finditer(rf"(?<!\w){re.escape(word.strip())}(?!\w)", self.text, re.IGNORECASE)
        return sorted({k for each in matches for k in self._of(*each.span())})

    def _of(self, start: int, end: int) -> list[int]:
        return [k for k, (first, last) in enumerate(self.spans) if max(first, start) < min(last, end)]

    def common(self, other: Tokens) -> list[tuple[int, int]]:
        """The tokens that two prompts share, in order, as pairs of places here and there."""
        blocks = SequenceMatcher(None, self.ids, other.ids, autojunk=False).get_matching_blocks()
        return [(block.a + k, block.b + k) for block in blocks for k in range(block.size)]


Tokenize = Callable[[str], Tokens]
"""The tokens of a prompt."""

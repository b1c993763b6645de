"""DiffEdit (Couairon, Verbeek, Schwenk, Cord, 2022), https://arxiv.org/abs/2210.11427

The picture may change where the two prompts predict different noise. Elsewhere every step is blended with the inverted
picture's own state of the level it arrives at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from iterinv.edits.prompt_swap import PromptSwap
from iterinv.edits.regions import FromPrompts
from iterinv.edits.site import Region


@dataclass(frozen=True)
class DiffEdit(PromptSwap):
    """Edit as PromptSwap does, within the region where the two prompts predict different noise."""

    strength: float = 1.0
    guidance: float = 1.5
    region: Region = field(default_factory=FromPrompts)

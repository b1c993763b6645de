"""Refinements change an inversion made without guidance so that a guided rerun keeps to it; one file each."""

from iterinv.refine.negative_prompt import NegativePrompt
from iterinv.refine.null_text import NullText
from iterinv.refine.offsets import Offsets
from iterinv.refine.proximal import Proximal

__all__ = ["NegativePrompt", "NullText", "Offsets", "Proximal"]

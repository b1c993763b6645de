"""Editors: where and how an inversion is run again with other words, one file an editor."""

from __future__ import annotations

from iterinv.edits.diffedit import DiffEdit
from iterinv.edits.flowedit import FlowEdit
from iterinv.edits.prompt_swap import PromptSwap

EDITORS = {"flowedit": FlowEdit, "diffedit": DiffEdit, "prompt-swap": PromptSwap}

__all__ = ["EDITORS", "DiffEdit", "FlowEdit", "PromptSwap"]

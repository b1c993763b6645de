"""Editors: one file an editor, called once for each stage of an inversion (:class:`iterinv.edits.site.Site`)."""

from __future__ import annotations

from collections.abc import Callable

from iterinv.edits.detail import Detail
from iterinv.edits.diffedit import DiffEdit
from iterinv.edits.flowedit import FlowEdit
from iterinv.edits.prompt_swap import PromptSwap
from iterinv.edits.regions import Everywhere, FromPrompts, Given, Intersection, Union
from iterinv.edits.site import Edit, Editor, Region, Site, StageEdit

EDITORS: dict[str, Callable[..., Editor]] = {"flowedit": FlowEdit, "diffedit": DiffEdit, "prompt-swap": PromptSwap}
"""Editors by name, as they are made with their own settings in place of the defaults."""

__all__ = [
    "EDITORS",
    "Detail",
    "DiffEdit",
    "Edit",
    "Editor",
    "Everywhere",
    "FlowEdit",
    "FromPrompts",
    "Given",
    "Intersection",
    "PromptSwap",
    "Region",
    "Site",
    "StageEdit",
    "Union",
]

"""iterinv: turn a real picture back into the noise, the path and the conditions that reproduce it; then edit it with words."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from iterinv.app import load
    from iterinv.cascade import Cascade
    from iterinv.edits import DiffEdit, Edit, FlowEdit, PromptSwap
    from iterinv.inversion import Inversion, Plan
    from iterinv.levels import Level, move
    from iterinv.methods import METHODS, plan
    from iterinv.steps import BDIA, DDIM

_HOME = {
    "BDIA": "steps", "DDIM": "steps", "Cascade": "cascade", "DiffEdit": "edits", "Edit": "edits", "FlowEdit": "edits",
    "Inversion": "inversion", "Level": "levels", "METHODS": "methods", "Plan": "inversion", "PromptSwap": "edits",
    "load": "app", "move": "levels", "plan": "methods",
}  # fmt: skip

__all__ = [
    "BDIA", "DDIM", "METHODS", "Cascade", "DiffEdit", "Edit", "FlowEdit", "Inversion", "Level", "Plan", "PromptSwap", "load",
    "move", "plan",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import iterinv` does not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'iterinv' has no attribute {name!r}")
    return getattr(importlib.import_module(f"iterinv.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

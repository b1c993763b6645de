"""iterinv: turn a real picture back into the noise, the path and the conditions that reproduce it; then edit it with
words."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from pathlib import Path

    from iterinv.cascade import Cascade, load
    from iterinv.diffusers_blocks import EditBlock, InvertBlock
    from iterinv.diffusers_schedulers import BDIAInverseScheduler, BDIAScheduler
    from iterinv.edits import (
        AdaptiveFlow,
        Automatic,
        Detail,
        DiffEdit,
        Edit,
        FlowEdit,
        FromPrompts,
        Given,
        MasaCtrl,
        Pix2PixZero,
        PlugAndPlay,
        PromptSwap,
        PromptToPrompt,
        Redraw,
        Site,
        StageEdit,
    )
    from iterinv.guidance import CFG
    from iterinv.inversion import Inversion
    from iterinv.levels import Level, Prediction
    from iterinv.methods import METHODS, plan
    from iterinv.observer import Observer
    from iterinv.plans import Plan
    from iterinv.steps import BDIA, DDIM

_HOMES = {
    "cascade": ["Cascade", "load"],
    "edits": [
        "AdaptiveFlow",
        "Automatic",
        "Detail",
        "DiffEdit",
        "Edit",
        "FlowEdit",
        "FromPrompts",
        "Given",
        "MasaCtrl",
        "Pix2PixZero",
        "PlugAndPlay",
        "PromptSwap",
        "PromptToPrompt",
        "Redraw",
        "Site",
        "StageEdit",
    ],
    "guidance": ["CFG"],
    "inversion": ["Inversion"],
    "levels": ["Level", "Prediction"],
    "methods": ["METHODS", "plan"],
    "observer": ["Observer"],
    "plans": ["Plan"],
    "diffusers_blocks": ["EditBlock", "InvertBlock"],
    "diffusers_schedulers": ["BDIAInverseScheduler", "BDIAScheduler"],
    "steps": ["BDIA", "DDIM"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022  (by use, not by letter)
    "load",
    "open",
    "Cascade",
    "Inversion",
    "Edit",
    "Plan",
    "plan",
    "METHODS",
    "Observer",
    "Automatic",
    "AdaptiveFlow",
    "Redraw",
    "FlowEdit",
    "DiffEdit",
    "PromptSwap",
    "PromptToPrompt",
    "PlugAndPlay",
    "MasaCtrl",
    "Pix2PixZero",
    "Detail",
    "FromPrompts",
    "Given",
    "Site",
    "StageEdit",
    "BDIA",
    "DDIM",
    "CFG",
    "Level",
    "Prediction",
    "BDIAScheduler",
    "BDIAInverseScheduler",
    "InvertBlock",
    "EditBlock",
]


def open(path: str | Path, cascade: Cascade) -> Inversion:
    """Reopen an inversion file for the cascade that made it.

    Raises :class:`iterinv.store.BadInversion` for a file that is no inversion, is damaged, or belongs to another
    cascade.
    """
    from iterinv.cascade import Cascade
    from iterinv.typed import checked

    return checked(cascade, Cascade, "cascade").open(path)


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import iterinv` does not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'iterinv' has no attribute {name!r}")
    return getattr(importlib.import_module(f"iterinv.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Editors: one file an editor, called once for each stage of an inversion (:class:`iterinv.edits.site.Site`)."""

from __future__ import annotations

from collections.abc import Callable

from iterinv.edits.adaptive_flow import AdaptiveFlow
from iterinv.edits.automatic import Automatic
from iterinv.edits.detail import Detail
from iterinv.edits.diffedit import DiffEdit
from iterinv.edits.flow_align import FlowAlign
from iterinv.edits.flow_redraw import FlowRedraw
from iterinv.edits.flowedit import FlowEdit
from iterinv.edits.from_flow import FromFlow
from iterinv.edits.h_edit_d import HEditD
from iterinv.edits.h_edit_r import HEditR
from iterinv.edits.interpolation import Interpolation
from iterinv.edits.ledits import Concept, LEdits
from iterinv.edits.masactrl import MasaCtrl
from iterinv.edits.pix2pix_zero import Pix2PixZero
from iterinv.edits.plug_and_play import PlugAndPlay
from iterinv.edits.prompt_swap import PromptSwap
from iterinv.edits.prompt_to_prompt import PromptToPrompt
from iterinv.edits.redraw import Redraw
from iterinv.edits.regions import Everywhere, FromPrompts, Given, Intersection, Union
from iterinv.edits.round_trip import RoundTrip
from iterinv.edits.sdedit import SDEdit
from iterinv.edits.site import Edit, Editor, Region, Site, StageEdit
from iterinv.edits.uni_edit import UniEdit

EDITORS: dict[str, Callable[..., Editor]] = {
    "automatic": Automatic,
    "adaptive-flow": AdaptiveFlow,
    "redraw": Redraw,
    "flow-redraw": FlowRedraw,
    "flowedit": FlowEdit,
    "diffedit": DiffEdit,
    "prompt-swap": PromptSwap,
    "sdedit": SDEdit,
    "round-trip": RoundTrip,
    "h-edit-d": HEditD,
    "h-edit-r": HEditR,
    "flow-align": FlowAlign,
    "interpolation": Interpolation,
    "uni-edit": UniEdit,
    "prompt-to-prompt": PromptToPrompt,
    "plug-and-play": PlugAndPlay,
    "masactrl": MasaCtrl,
    "pix2pix-zero": Pix2PixZero,
    "ledits": LEdits,
}
"""Editors by name, as they are made with their own settings in place of the defaults."""

__all__ = [
    "EDITORS",
    "AdaptiveFlow",
    "Automatic",
    "Concept",
    "Detail",
    "DiffEdit",
    "Edit",
    "Editor",
    "Everywhere",
    "FlowAlign",
    "FlowEdit",
    "FlowRedraw",
    "FromFlow",
    "FromPrompts",
    "Given",
    "HEditD",
    "HEditR",
    "Interpolation",
    "Intersection",
    "LEdits",
    "MasaCtrl",
    "Pix2PixZero",
    "PlugAndPlay",
    "PromptSwap",
    "PromptToPrompt",
    "Redraw",
    "Region",
    "RoundTrip",
    "SDEdit",
    "Site",
    "StageEdit",
    "UniEdit",
    "Union",
]

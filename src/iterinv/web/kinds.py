"""Kinds of edit that the page offers: an editor, and a first draft of the target prompt."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

COLOURS = "red orange yellow green cyan blue purple pink white black brown grey gray".split()  # noqa: SIM905
SHAPES = {"sphere": "cube", "cube": "sphere", "cylinder": "cone", "cone": "cylinder", "cat": "dog", "dog": "cat"}
ADDED = "a small {} sphere"


@dataclass(frozen=True)
class Kind:
    """A kind of edit: the editor that suits it, a function from the source prompt to a target prompt, and a hint."""

    name: str
    editor: str
    draft: Callable[[str], str]
    hint: str


def other_colour(prompt: str) -> str:
    """The prompt with another colour in place of the first that it names."""
    new = next((colour for colour in ("blue", "yellow") if colour not in prompt), "pink")
    return _swapped(rf"\b(?:{'|'.join(COLOURS)})\b", lambda _: new, prompt)


def other_shape(prompt: str) -> str:
    """The prompt with another thing in place of the first that it names."""
    return _swapped(rf"\b(?:{'|'.join(SHAPES)})\b", SHAPES.__getitem__, prompt)


def without_thing(prompt: str) -> str:
    """The prompt without the second of two things, or without the only one."""
    one = re.sub(r" (?:to the left of|beside|and|with) an? [\w ]+?(?= (?:on|in) |,|$)", "", prompt, count=1)
    return one if one != prompt else re.sub(r"^.*?\bon (?=an? )", "", prompt, count=1)


def with_thing(prompt: str) -> str:
    """The prompt with a small sphere beside the things that it names."""
    thing = ADDED.format(next((colour for colour in ("green", "purple") if colour not in prompt), "white"))
    return re.sub(r"(?= on |$)", f" to the left of {thing}", prompt, count=1)


def other_background(prompt: str) -> str:
    """The prompt with another word before its wall or background."""
    new = next((word for word in ("teal", "pink") if word not in prompt), "blue")
    return _swapped(r"\b\w+(?= (?:wall|background|sky)\b)", lambda _: new, prompt)


def _swapped(pattern: str, new: Callable[[str], str], prompt: str) -> str:
    """The prompt with a new word, which begins with a consonant, in place of the first that matches."""
    return re.sub(rf"(\ban )?({pattern})", lambda match: ("a " if match[1] else "") + new(match[2]), prompt, count=1)


RECONSTRUCT = "Just reconstruct"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("Recolour", "adaptive-flow", other_colour, "Name the new colour or material in the target prompt."),
        Kind("Change shape", "redraw", other_shape, "Name another thing in place of the one in the picture."),
        Kind("Remove", "redraw", without_thing, "Leave the thing out of the target prompt."),
        Kind("Add", "redraw", with_thing, "Name one more thing in the target prompt."),
        Kind("Background", "adaptive-flow", other_background, "Name another wall, floor or background."),
        Kind(RECONSTRUCT, "automatic", lambda prompt: "", "Press Invert: nothing is edited."),
    )
}
"""The kinds of edit by name, in the order of the page."""

"""Kinds of edit that the page offers: an editor, and a first draft of the target prompt."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

COLOURS = "red orange yellow green cyan blue purple pink white black brown grey gray".split()  # noqa: SIM905
PAIRS = "sphere cube, cylinder cone, cat dog, horse zebra, car truck, man woman, boy girl, apple pear, bird butterfly"
SHAPES = {one: other for pair in PAIRS.split(", ") for one, other in (pair.split(), pair.split()[::-1])}
BESIDE = "to the left of|to the right of|next to|beside|and|with|holding|wearing"
WHERE = "in front of|on|in|at|under|near|behind|against|inside"
LEAD = r"(?:an? )?(?:[\w-]+ )?(?:photograph|photo|picture|image|painting|drawing|portrait|close-up) of "
THING = rf"^((?:{LEAD})?(?:(?:an?|the|two|three) )?)([\w -]*?)([\w-]+)(?= (?:{WHERE}|{BESIDE}|\w+ing)\b|,|\.|$)"
"""The opening of a prompt, and the first thing that it names: the words before it, and itself."""


@dataclass(frozen=True)
class Kind:
    """A kind of edit: the editor that suits it, a function from the source prompt to a target prompt, and a hint."""

    name: str
    editor: str
    draft: Callable[[str], str]
    hint: str


def other_colour(prompt: str) -> str:
    """The prompt with another colour in place of the first that it names; a colour before its first thing where it
    names none."""
    new = next((colour for colour in ("blue", "yellow") if colour not in prompt), "pink")
    draft = _swapped(rf"\b(?:{'|'.join(COLOURS)})\b", lambda _: new, prompt)
    return draft if draft != prompt else re.sub(THING, lambda m: f"{_a(m[1])}{new} {m[2]}{m[3]}", prompt, count=1)


def other_shape(prompt: str) -> str:
    """The prompt with another thing in place of the first that it names."""
    draft = _swapped(rf"\b(?:{'|'.join(SHAPES)})\b", SHAPES.__getitem__, prompt)
    if draft != prompt:
        return draft
    return re.sub(THING, lambda m: f"{m[1] if m[2] else _a(m[1])}{m[2]}dog", prompt, count=1)


def without_thing(prompt: str) -> str:
    """The prompt without the second of two things, or without the only one."""
    one = re.sub(rf" (?:{BESIDE}) (?:an?|the|two|three) [\w -]+?(?= (?:{WHERE}) |,|\.|$)", "", prompt, count=1)
    return one if one != prompt else re.sub(rf"^.*?\b(?:{WHERE}) (?=(?:an?|the) )", "", prompt, count=1)


def with_thing(prompt: str) -> str:
    """The prompt with one more thing: a small sphere in a scene that the embedded cascade knows, else a balloon."""
    from iterinv.embedded.scenes import vocabulary
    from iterinv.embedded.scenes.caption import words_in

    if set(words_in(prompt)) <= set(vocabulary()):
        colour = next((colour for colour in ("green", "purple") if colour not in prompt), "white")
        return re.sub(r"(?= on |$)", f" to the left of a small {colour} sphere", prompt, count=1)
    return re.sub(rf"(?= (?:{WHERE}) |,|\.|$)", " and a red balloon", prompt, count=1)


def other_background(prompt: str) -> str:
    """The prompt with another word before its wall, background or sky; without these, with another place."""
    new = next((word for word in ("teal", "pink") if word not in prompt), "blue")
    draft = _swapped(r"\b\w+(?= (?:wall|background|sky)\b)", lambda _: new, prompt)
    if draft != prompt or not prompt:
        return draft
    place = "on a beach" if "beach" not in prompt else "in a forest"
    return re.sub(rf" (?:{WHERE}) (?:an?|the) (?!.* (?:{WHERE}) )[\w -]+\.?$|\.?$", f" {place}", prompt, count=1)


def _a(opening: str) -> str:
    """The opening of a prompt before a word that begins with a consonant."""
    return re.sub(r"\b(a)n $", r"\1 ", opening, flags=re.IGNORECASE)


def _swapped(pattern: str, new: Callable[[str], str], prompt: str) -> str:
    """The prompt with a new word, which begins with a consonant, in place of the first that matches."""
    return re.sub(rf"(\ban )?({pattern})", lambda match: ("a " if match[1] else "") + new(match[2]), prompt, count=1)


RECONSTRUCT = "Just reconstruct"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("Recolour", "adaptive-flow", other_colour, "Name the new colour or material in the target prompt."),
        Kind("Change shape", "flow-redraw", other_shape, "Name another thing in place of the one in the picture."),
        Kind("Remove", "redraw", without_thing, "Leave the thing out of the target prompt."),
        Kind("Add", "redraw", with_thing, "Name one more thing in the target prompt."),
        Kind("Background", "automatic", other_background, "Name another wall, floor or background."),
        Kind(RECONSTRUCT, "automatic", lambda prompt: "", "Press Invert: nothing is edited."),
    )
}
"""The kinds of edit by name, in the order of the page."""

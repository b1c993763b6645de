"""A scene in plain English: the words the embedded cascade is trained on."""

from __future__ import annotations

import re
import unicodedata

from iterinv.embedded.scenes.scene import COLORS, FLOORS, LIGHTS, MATERIALS, RADII, SHAPES, WALLS, Scene, Thing

FLOOR_WORDS = {"plain": "plain", "checkered": "checkered", "planks": "wooden", "tiles": "tiled"}
WEIGHT = r":\s*\d*\.?\d+(?=\s*[)\]])"
"""The weight of words in brackets, as in (red:1.3)."""

_LEFT_OUT = ("size", "material")


def _a(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _thing(thing: Thing, *leave_out: str) -> str:
    words = [getattr(thing, name) for name in ("size", "color", "material", "shape") if name not in leave_out]
    return _a(" ".join(words))


def side(thing: Thing) -> str:
    """Return the side of the floor that a thing stands on, "left" or "right"; empty near the middle."""
    return "" if abs(thing.x) < 0.35 else "left" if thing.x < 0 else "right"


def _things(scene: Scene, joint: str, *leave_out: str) -> str:
    return joint.join(_thing(thing, *leave_out) for thing in scene.things)


def _templates(scene: Scene) -> list[str]:
    floor, wall = _a(f"{FLOOR_WORDS[scene.floor]} floor"), _a(f"{scene.wall} wall")
    light = f"light from the {scene.light}"
    if not scene.things:
        full, floor_and_wall = f"{floor} in front of {wall}", f"{floor}, {wall}"
        return [full, f"{floor_and_wall}, {light}", f"a picture of {full}", floor, floor_and_wall, floor, full]
    sides = [side(thing) for thing in scene.things]
    at = f" on the {sides[0]} of " if len(sides) == 1 and sides[0] else " on "
    return [
        f"{_things(scene, ' to the left of ')} on {floor} in front of {wall}",
        f"{_things(scene, ' and ')} on {floor}, {wall}, {light}",
        f"a picture of {_things(scene, ' beside ', 'size')} on {floor} in front of {wall}",
        f"{_things(scene, ' and ', 'material')} on {floor}",
        f"{_things(scene, ' and ', *_LEFT_OUT)} on {floor}, {wall}",
        f"{_things(scene, ' to the left of ', *_LEFT_OUT)}",
        f"{_things(scene, ' to the left of ')}{at}{floor} in front of {wall}",
    ]


TEMPLATES = 7
SIDED = 6
"""The template that names the side of the floor that a single thing stands on."""


def caption(scene: Scene, template: int = 0) -> str:
    """The scene in words; ``template`` 0 names everything but the light, :data:`SIDED` also the side that a single
    thing stands on, the others say it in another way or say less."""
    return _templates(scene)[template]


def vocabulary() -> list[str]:
    """Return every word that a caption can hold, in a fixed order: the vocabulary of the embedded cascade."""
    glue = "a an and beside floor from front in light left of on picture right the to wall".split()  # noqa: SIM905
    named = [*COLORS, *SHAPES, *MATERIALS, *RADII, *WALLS, *LIGHTS, *(FLOOR_WORDS[name] for name in FLOORS)]
    return sorted({*glue, *named})


def words_in(prompt: str) -> list[str]:
    """The words of a prompt as the embedded encoder's tokenizer reads them: no marks, accents, case or weights."""
    text = "".join(" " if unicodedata.category(c)[0] == "S" else c for c in re.sub(WEIGHT, "", prompt))
    plain = unicodedata.normalize("NFKD", text).lower()
    return re.findall(r"[^\W_]+", "".join(c for c in plain if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cf")))


def things_in(prompt: str) -> list[str]:
    """The things that a prompt in these words names, in order: "large red sphere", no article."""
    things: list[str] = []
    words: list[str] = []
    for word in words_in(prompt):
        words = [*words, word] if word in (*COLORS, *MATERIALS, *RADII, *SHAPES) else []
        if word in SHAPES:
            things, words = [*things, " ".join(words)], []
    return things

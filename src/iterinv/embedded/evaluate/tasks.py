"""Edits with the true answer: a scene, the same scene with one thing changed, and the words for both."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from iterinv.embedded.scenes.caption import SIDED, caption
from iterinv.embedded.scenes.render import render
from iterinv.embedded.scenes.scene import COLORS, MATERIALS, OF_SCENE, RADII, SHAPES, Scene

KINDS = ("recolour", "reshape", "material", "floor", "wall", "remove", "add", "clear", "resize", "move")
THINGS = {"remove": 2, "add": 2, "clear": 1, "move": 1}
"""Things in the scenes of a kind of edit; one or two where it is not here."""

MOVED = 0.55, 0.95
"""A thing that is moved stands this far from the middle, before and after."""

VISIBLE = 4 / 255
"""Two renders differ at a pixel where a channel in [0, 1] does by more than this."""


class SceneEdit(NamedTuple):
    """One task: the source scene, the target scene, and the kind of change."""

    kind: str
    source: Scene
    target: Scene

    @property
    def prompt(self) -> str:
        """The caption of the source."""
        return self.words(self.source)

    @property
    def to(self) -> str:
        """The caption of the target."""
        return self.words(self.target)

    def words(self, scene: Scene) -> str:
        """The caption of a scene in this task; for ``move`` it names the side that the thing stands on."""
        return caption(scene, SIDED if self.kind == "move" else 0)

    def region(self, size: int) -> Tensor:
        """Return the region where the true answer differs from the source (1, size, size), 1 inside: the thing, its
        shadow and its reflections, grown by one pixel."""
        difference = (render(self.source, size) - render(self.target, size)).abs().amax(0, keepdim=True) / 2
        return F.max_pool2d((difference > VISIBLE).float(), 3, stride=1, padding=1)


def scene_edit(seed: int, kind: str) -> SceneEdit:
    """The edit of a kind on the scene of a seed; the same on every machine.

    ``remove`` takes a scene of two things and leaves one; ``add`` is the other way round, its target being the scene of
    two. ``clear`` removes the only thing, ``move`` brings it to the other side, where the captions do not say how far;
    ``resize`` and all others take the scene as it is. Raises ``ValueError`` for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of edit {kind!r}: the kinds are {', '.join(KINDS)}")
    r = random.Random(f"iterinv edit {kind} {seed}")
    source = Scene.random(seed, things=THINGS.get(kind))
    k = r.randrange(len(source.things))
    thing = source.things[k]

    def other(values: Iterable[str], now: str) -> str:
        return r.choice([each for each in values if each != now])

    if kind == "recolour":
        target = source.with_(k, color=other(COLORS, thing.color))
    elif kind == "reshape":
        target = source.with_(k, shape=other(SHAPES, thing.shape))
    elif kind == "material":
        target = source.with_(k, material=other(MATERIALS, thing.material))
    elif kind == "floor":
        target = replace(source, floor=other(OF_SCENE["floor"], source.floor))
    elif kind == "wall":
        target = replace(source, wall=other(OF_SCENE["wall"], source.wall))
    elif kind == "resize":
        target = source.with_(k, size=other(RADII, thing.size))
    elif kind == "move":
        x = r.choice((-1, 1)) * r.uniform(*MOVED)
        source, target = source.with_(x=x), source.with_(x=-x)
    elif kind == "clear":
        target = replace(source, things=())
    else:
        target = replace(source, things=(source.things[1 - k],))
    return SceneEdit(kind, target, source) if kind == "add" else SceneEdit(kind, source, target)

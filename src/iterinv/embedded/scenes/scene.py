"""A tabletop scene: at most two things on a floor before a wall, under one lamp.

A :class:`Scene` holds every number its picture depends on, the jitter of camera and lamp included,
so that :meth:`Scene.with_` gives *the same picture with one thing changed*: the true answer of an edit.

World coordinates: ``x`` to the right, ``y`` up from the floor, ``z`` towards the camera.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace

SHAPES = ("sphere", "cube", "cylinder", "cone")
MATERIALS = ("matte", "shiny")
RADII = {"small": 0.55, "large": 0.8}
COLORS = {  # sRGB in [0, 1]
    "red": (0.82, 0.08, 0.08),
    "orange": (0.96, 0.46, 0.03),
    "yellow": (0.94, 0.84, 0.08),
    "green": (0.10, 0.58, 0.16),
    "cyan": (0.12, 0.76, 0.80),
    "blue": (0.10, 0.22, 0.86),
    "purple": (0.50, 0.12, 0.66),
    "white": (0.93, 0.93, 0.93),
}
FLOORS = ("plain", "checkered", "planks", "tiles")
WALLS = {
    "grey": (0.60, 0.60, 0.61),
    "beige": (0.80, 0.72, 0.58),
    "brown": (0.42, 0.30, 0.22),
    "teal": (0.22, 0.45, 0.46),
    "pink": (0.86, 0.62, 0.66),
}
LIGHTS = {"left": (-3.2, 4.6, 2.2), "right": (3.2, 4.6, 2.2), "front": (0.4, 5.2, 3.6)}
OF_THING = {"shape": SHAPES, "color": tuple(COLORS), "material": MATERIALS, "size": tuple(RADII)}
OF_SCENE = {"floor": FLOORS, "wall": tuple(WALLS), "light": tuple(LIGHTS)}
"""The attributes that words can name, and their values."""


@dataclass(frozen=True)
class Thing:
    """One object: four attributes that words can name, and where it stands."""

    shape: str
    color: str
    material: str
    size: str
    x: float
    z: float
    yaw: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in (("shape", SHAPES), ("color", COLORS), ("material", MATERIALS), ("size", RADII)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Scene:
    """Everything a picture is drawn from. Equal scenes give equal pictures."""

    things: tuple[Thing, ...]
    floor: str
    wall: str
    light: str
    lamp: tuple[float, float, float] = (0.0, 0.0, 0.0)  # offset of the lamp from LIGHTS[light]
    camera: tuple[float, float] = (0.0, 0.0)  # offset of the eye, right and up
    grain: int = 0  # seed of the floor's texture

    def __post_init__(self) -> None:
        if len(self.things) > 2:
            raise ValueError(f"a scene holds at most two things, not {len(self.things)}")
        for name, allowed in (("floor", FLOORS), ("wall", WALLS), ("light", LIGHTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(allowed)}")

    @classmethod
    def random(cls, seed: int, things: int | None = None) -> Scene:
        """The scene of a seed: the same on every machine. It holds one or two things, or as many as ``things`` says: 0
        is an empty table."""
        r = random.Random(f"iterinv scene {seed}")
        count = things if things is not None else 1 if r.random() < 0.65 else 2
        places: tuple[tuple[float, float], ...] = ((), ((-0.97, 0.97),), ((-0.97, -0.82), (0.82, 0.97)))[count]
        return cls(
            things=tuple(
                Thing(
                    shape=r.choice(SHAPES),
                    color=r.choice(list(COLORS)),
                    material=r.choice(MATERIALS),
                    size=r.choice(list(RADII)),
                    x=x,
                    z=r.uniform(-0.5, 0.5),
                    yaw=r.uniform(0.2, 1.3),
                )
                for x in [r.uniform(*place) for place in places]
            ),
            floor=r.choice(FLOORS),
            wall=r.choice(list(WALLS)),
            light=r.choice(list(LIGHTS)),
            lamp=(r.uniform(-0.4, 0.4), r.uniform(-0.3, 0.3), r.uniform(-0.4, 0.4)),
            camera=(r.uniform(-0.15, 0.15), r.uniform(-0.12, 0.12)),
            grain=r.randrange(1 << 16),
        )

    def with_(self, thing: int = 0, **changes: object) -> Scene:
        """The same scene with something changed: ``scene.with_(color="blue")``, ``scene.with_(floor="tiles")``.

        Names of a :class:`Thing`'s fields change that ``thing`` (counted from 0, left to right); names of the scene's
        fields change the scene. Raises ``TypeError`` for a name that neither has, ``IndexError`` for a thing not there.
        """
        of_thing = {k: v for k, v in changes.items() if k in {f.name for f in fields(Thing)}}
        of_scene = {k: v for k, v in changes.items() if k not in of_thing}
        scene = replace(self, **of_scene)  # type: ignore[arg-type]
        if not of_thing:
            return scene
        things = list(scene.things)
        things[thing] = replace(things[thing], **of_thing)  # type: ignore[arg-type]
        return replace(scene, things=tuple(things))

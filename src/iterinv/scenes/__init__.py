"""The world the embedded cascade knows: tabletop scenes, drawn, described and edited with the true answer at hand."""

from iterinv.scenes.caption import TEMPLATES, caption, things_in, vocabulary
from iterinv.scenes.render import object_mask, render
from iterinv.scenes.scene import COLORS, FLOORS, LIGHTS, MATERIALS, OF_SCENE, OF_THING, RADII, SHAPES, WALLS, Scene, Thing

__all__ = [
    "COLORS",
    "FLOORS",
    "LIGHTS",
    "MATERIALS",
    "OF_SCENE",
    "OF_THING",
    "RADII",
    "SHAPES",
    "TEMPLATES",
    "WALLS",
    "Scene",
    "Thing",
    "caption",
    "object_mask",
    "render",
    "things_in",
    "vocabulary",
]

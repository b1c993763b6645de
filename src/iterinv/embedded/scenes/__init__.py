"""The world of the embedded cascade: tabletop scenes that are drawn, described and edited, with the true answer
known."""

from iterinv.embedded.scenes.caption import TEMPLATES, caption, things_in, vocabulary
from iterinv.embedded.scenes.examples import EXAMPLES
from iterinv.embedded.scenes.render import object_mask, render
from iterinv.embedded.scenes.scene import (
    COLORS,
    FLOORS,
    LIGHTS,
    MATERIALS,
    OF_SCENE,
    OF_THING,
    RADII,
    SHAPES,
    WALLS,
    Scene,
    Thing,
)

__all__ = [
    "COLORS",
    "EXAMPLES",
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

"""The scenes of the example pictures."""

from __future__ import annotations

from iterinv.embedded.scenes.scene import Scene, Thing

EXAMPLES = {
    "red-sphere": Scene((Thing("sphere", "red", "shiny", "large", 0.15, 0.1),), "planks", "beige", "left", grain=1),
    "yellow-cube": Scene(
        (Thing("cube", "yellow", "matte", "large", -0.2, 0.0, 0.6),), "tiles", "teal", "right", grain=2
    ),
    "cone-and-cylinder": Scene(
        (Thing("cone", "purple", "matte", "large", -0.9, 0.1), Thing("cylinder", "green", "shiny", "small", 0.9, 0.3)),
        "checkered",
        "grey",
        "front",
        grain=3,
    ),
}
"""Scenes by the names of their files under ``examples``."""

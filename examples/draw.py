"""Draw the pictures of this folder, and the words for each, from the scenes that the embedded cascade knows."""

import sys
from pathlib import Path

from PIL import Image

from iterinv.embedded.scenes import Scene, Thing, caption, render
from iterinv.images import to_uint8

PICTURES = {
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

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, scene in PICTURES.items():
        Image.fromarray(to_uint8(render(scene, 256)[None])).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption(scene) + "\n", encoding="utf-8")

"""Draw the pictures of this folder, and the words for each, from the scenes that the embedded cascade knows."""

import sys
from pathlib import Path

from PIL import Image

from iterinv.embedded.scenes import EXAMPLES, caption, render
from iterinv.images import to_uint8

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, scene in EXAMPLES.items():
        Image.fromarray(to_uint8(render(scene, 256)[None])).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption(scene) + "\n", encoding="utf-8")

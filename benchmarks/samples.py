"""Samples of the embedded cascade: a grid of eight colours by four shapes."""

from __future__ import annotations

import time

from common import OUT, publish
from iterinv.cascade import load
from iterinv.embedded.scenes import COLORS, FLOORS, MATERIALS, SHAPES, WALLS
from iterinv.embedded.scenes.caption import FLOOR_WORDS
from iterinv.images import contact_sheet, to_uint8

STEPS, GUIDANCE, SEED = 10, 2.0, 0


def main() -> None:
    began, cascade, drawn, words = time.time(), load(), [], []
    walls = list(WALLS)
    for i, shape in enumerate(SHAPES):
        for j, color in enumerate(COLORS):
            material, floor = MATERIALS[(i + j) % 2], FLOOR_WORDS[FLOORS[(i + j) % 4]]
            wall = walls[(2 * i + j) % len(walls)]
            words.append(f"a large {color} {material} {shape} on a {floor} floor in front of a {wall} wall")
            drawn.append(to_uint8(cascade.sample(words[-1], STEPS, GUIDANCE, seed=SEED + len(words))[-1]))
            print(words[-1], flush=True)
    sheet = contact_sheet(drawn, len(COLORS))
    sheet.resize((sheet.width // 2, sheet.height // 2)).save(OUT / "samples.png")
    listed = "\n".join(f"{k + 1}. {text}" for k, text in enumerate(words))
    body = f"""
One sample a caption, none chosen: columns are {", ".join(COLORS)}; rows are {", ".join(SHAPES)}. DDIM, {STEPS} steps a
stage, guidance {GUIDANCE:g} at the first; shown at half size.

![samples](samples.png)

{listed}
"""
    publish("samples", "Samples", body, began)


if __name__ == "__main__":
    main()

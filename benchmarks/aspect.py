"""Edits of pictures of 3:2 by the embedded cascade: at a rectangle near their aspect ratio, and at a padded square."""

from __future__ import annotations

import time

import numpy as np

from common import OUT, publish, recolourings, table
from iterinv.cascade import load
from iterinv.embedded.scenes import Scene, caption, render
from iterinv.images import labelled, save, sides, to_uint8
from iterinv.metrics import psnr

COUNT, SIDE, SHOWN = 12, 768, 3


def wide(scene: Scene) -> np.ndarray:
    """The middle two thirds of a scene's render, (512, 768, 3) uint8."""
    return np.ascontiguousarray(to_uint8(render(scene, SIDE)[None])[SIDE // 6 : -SIDE // 6])


def main() -> None:
    began, cascade, rows, strips = time.time(), load(), [], []
    pictures = {fit: list[np.ndarray]() for fit in ("pad", "aspect")}
    pairs = recolourings(COUNT)
    for fit, edited in pictures.items():
        known, exact, inside, outside, extent = 0, 0, 0.0, 0.0, (0, 0)
        for source, target in pairs:
            picture, truth = wide(source), wide(target)
            canvas, _ = cascade.canvas(picture, fit)
            extent = canvas.extent
            advice = cascade.defaults.picture_advice(cascade.at(*extent).stages, canvas.covered())
            inversion = cascade.invert(picture, caption(source), fit=fit)
            exact += int((canvas.place(inversion.picture) == canvas.image).all())
            (own,) = cascade.edit(inversion, caption(target)).at_own_size()
            thing = (picture != truth).any(-1)
            known += not advice
            inside += (psnr(own.values, truth, thing) or 99.0) / COUNT
            outside += (psnr(own.values, picture, ~thing) or 99.0) / COUNT
            edited.append(own.values)
        cells = [f"{exact} of {COUNT}", f"{known} of {COUNT}", f"{inside:.1f}", f"{outside:.1f}"]
        rows.append([f"`{fit}`", sides(extent), *cells])
        print(*rows[-1], sep=" | ", flush=True)
    for k in range(SHOWN):
        named = [("original", wide(pairs[k][0])), ("true answer", wide(pairs[k][1]))]
        named += [(fit, pictures[fit][k]) for fit in pictures]
        strips.append([(name, each[::3, ::3]) for name, each in named])
    save(labelled(strips), OUT / "aspect.png")
    body = f"""
{COUNT} held-out scenes of one thing, the middle {SIDE} x {SIDE * 2 // 3} px of their renders, edited by the default
editor to another colour at the picture's own size. *Exact*: every pixel of the inversion comes back. *Known*: the model
takes the picture for a scene; `iterinv edit` refuses the others. *Thing*: PSNR within the pixels that the true answer
changes, against it. *Background*: PSNR outside them, against the original.

{table(["fit", "worked at, px", "exact", "known", "thing, dB", "background, dB"], rows)}

The embedded networks were trained on squares alone.

![originals, true answers and edits](aspect.png)
"""
    publish("aspect", "Pictures that are not square", body, began)


if __name__ == "__main__":
    main()

"""Invert a picture, look at how well it comes back, and change it with words: python examples/edit.py [cascade
folder]"""

import sys
from pathlib import Path

import iterinv

cascade = iterinv.load(*sys.argv[1:])
inversion = cascade.invert(
    Path(__file__).with_name("red-sphere.png"), "a large red shiny sphere on a wooden floor in front of a beige wall"
)
exact = inversion.images[0].tobytes() == inversion.canvases[0].image.tobytes()
print("every pixel came back" if exact else "some pixels did not come back")

edit = cascade.edit(inversion, "a large blue shiny sphere on a wooden floor in front of a beige wall")
edit.images[0].save("edited.png")

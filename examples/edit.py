"""Invert a picture, look at how well it comes back, and change it with words: python examples/edit.py [cascade folder]"""

import sys
from pathlib import Path

from PIL import Image

import iterinv
from iterinv.images import Canvas, read

cascade = iterinv.load(*sys.argv[1:])
picture, _ = read(Path(__file__).with_name("red-sphere.png"))
frame, _ = Canvas.fit(picture, cascade.size)

inversion = cascade.invert(frame.square(), "a large red shiny sphere on a wooden floor in front of a beige wall")
exact = (frame.place(inversion.picture) == frame.whole).all()
print("every pixel came back" if exact else "some pixels did not come back")

edit = cascade.edit(inversion, "a large blue shiny sphere on a wooden floor in front of a beige wall", iterinv.FlowEdit())
Image.fromarray(frame.place(edit.pictures[-1])).save("edited.png")

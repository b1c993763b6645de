"""What each inversion method costs and keeps, stage by stage: python examples/compare_methods.py [cascade folder]"""

import sys
from pathlib import Path

import iterinv
from iterinv.cascade import resize
from iterinv.images import Canvas, read, to_uint8
from iterinv.metrics import fidelity

cascade = iterinv.load(*sys.argv[1:])
frame, _ = Canvas.fit(read(Path(__file__).with_name("red-sphere.png"))[0], cascade.size)
prompt = Path(__file__).with_name("red-sphere.txt").read_text(encoding="utf-8").strip()

for method in ("bdia", "ddim", "iterinv-anderson"):
    inversion = cascade.invert(frame.square(), prompt, iterinv.plan(method, steps=10))
    for stage, found in zip(cascade.stages, inversion.stages, strict=True):
        told = fidelity(to_uint8(resize(frame.square(), stage.size)), to_uint8(found.picture))
        psnr = "exact" if told["psnr"] is None else f"{told['psnr']:.1f} dB"
        print(f"{method:16} stage {stage.name:3} {stage.size:4} px  {psnr:>9}  {found.report.forward} network calls")

"""The cost and the fidelity of three methods, stage by stage: python examples/compare_methods.py [cascade folder]"""

import sys
from pathlib import Path

import iterinv
from iterinv.reports import inversion_report

cascade = iterinv.load(*sys.argv[1:])
picture = Path(__file__).with_name("red-sphere.png")
prompt = picture.with_suffix(".txt").read_text(encoding="utf-8").strip()

for method in ("bdia", "ddim", "iterinv-anderson"):
    inversion = cascade.invert(picture, prompt, method, num_inference_steps=10)
    for stage in inversion_report(cascade, inversion, seconds=0.0, notes=[])["stages"]:
        psnr, calls = stage["reconstruction"]["psnr"], stage["network_calls"]["forward"]
        shown = "exact" if psnr is None else f"{psnr:.1f} dB"
        print(f"{method:16} stage {stage['stage']:3} {stage['size']:4} px  {shown:>9}  {calls} network calls")

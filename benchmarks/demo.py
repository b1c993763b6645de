"""Time and memory of the demo's command in a process of its own, and of `iterinv --help`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from common import ROOT, publish, table

SCRIPT = Path(sys.executable).with_name("iterinv")
BEFORE = "7d5f126"
"""A commit at which an edit inverted every level of every stage, and ran all of them again."""

EDIT = """
import sys, time
import numpy as np, torch
from PIL import Image
import iterinv
from iterinv.edits import {editor}
torch.set_num_threads(1)
x = torch.from_numpy(np.array(Image.open("examples/red-sphere.png").convert("RGB"))).permute(2, 0, 1)[None] / 127.5 - 1
words = open("examples/red-sphere.txt").read().strip()
cascade = iterinv.load()
began = time.process_time()
inversion = cascade.invert(x, words, iterinv.plan("bdia", 20){settings})
cascade.edit(inversion, words.replace("red", "blue"), {editor}())
print(time.process_time() - began)
"""
"""The demo's edit in Python, which prints its CPU seconds."""


def cpu_seconds(source: Path, editor: str, settings: str = "") -> float:
    """The CPU seconds of the demo's edit by the package in a folder, in a process of one thread."""
    words = [sys.executable, "-c", EDIT.format(editor=editor, settings=settings)]
    variables = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, check=True, cwd=ROOT, env=variables, capture_output=True, text=True)
    return float(done.stdout)


def against_before() -> tuple[float, float]:
    """The median CPU seconds of the demo's edit now and at ``BEFORE``, three of each in turns."""
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", f"{folder}/before", BEFORE], check=True, capture_output=True)
        try:
            pairs = [
                (
                    cpu_seconds(ROOT / "src", "Automatic", ", as_needed=True"),
                    cpu_seconds(Path(folder) / "before" / "src", "FlowEdit"),
                )
                for _ in range(3)
            ]
        finally:
            subprocess.run([*git, "remove", "--force", f"{folder}/before"], check=True, capture_output=True)
    now, before = zip(*pairs, strict=True)
    return median(now), median(before)


def main() -> None:
    began = time.time()
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    words = recipe.split("$(BIN)/iterinv ")[1].split("\n\n")[0].replace("\\\n", " ")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = f"{SCRIPT} {words}".replace("--out out/", f"--out {folder}")
        subprocess.run(command, shell=True, check=True, cwd=ROOT, capture_output=True)
        seconds = time.perf_counter() - start
        report = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
    waits = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([SCRIPT, "--help"], check=True, capture_output=True)
        waits.append(time.perf_counter() - start)
    now, before = against_before()
    rows = [
        ["`make demo`, once installed", f"{seconds:.0f} s", "90 s"],
        ["its peak memory", f"{report['peak_memory_mb']:.0f} MB", "2000 MB"],
        [f"CPU seconds of its edit, {now:.1f} against {before:.1f} at {BEFORE}", f"{now / before:.0%}", "60%"],
        ["`iterinv --help`, best of five", f"{min(waits):.2f} s", "0.6 s"],
    ]
    publish("demo", "What a newcomer waits for", table(["what", "measured", "at most"], rows), began)


if __name__ == "__main__":
    main()

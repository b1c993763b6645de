"""Time and memory of the demo's command in a process of its own, and of `iterinv --help`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, publish, table

SCRIPT = Path(sys.executable).with_name("iterinv")


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
    rows = [
        ["`make demo`, once installed", f"{seconds:.0f} s", "90 s"],
        ["its peak memory", f"{report['peak_memory_mb']:.0f} MB", "2000 MB"],
        ["`iterinv --help`, best of five", f"{min(waits):.2f} s", "0.6 s"],
    ]
    publish("demo", "What a newcomer waits for", table(["what", "measured", "at most"], rows), began)


if __name__ == "__main__":
    main()

"""An evaluation that is stopped: its time, its memory, and the bytes of a run that is killed again and again.

`python benchmarks/evaluate.py 200 20` evaluates 200 scenes by six methods in two processes, once in peace and once
with 20 kills.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common import STAGES, publish, table

METHODS = ("bdia", "belm", "edict", "aligned", "ddim", "direct")
STEPS, SIZE, PROCESSES, PATIENCE = 5, 64, 2, 60.0
"""Steps of a method, px, processes, and the seconds that workers have to end once their parent is gone."""

WINDOW = 50
"""Pictures at the start and at the end whose memory is compared; a quarter of all where there are fewer than 200."""


class Sample(NamedTuple):
    """The rows that are done and the resident memory of the largest worker, in MB, at a moment."""

    rows: int
    memory: float


def command(count: int, out: Path) -> list[str]:
    options = {"--data": "scenes", "--methods": ",".join(METHODS), "--metrics": "psnr,ssim,mse", "--out": str(out)}
    numbers = {"--steps": STEPS, "--size": SIZE, "--processes": PROCESSES, "--count": count, "--pictures": 4}
    words = [word for pair in (options | numbers).items() for word in map(str, pair)]
    return [sys.executable, "-m", "iterinv", "evaluate", *words]


def start(count: int, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(count, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rows(out: Path) -> int:
    file = out / "results.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def workers(pid: int) -> list[int]:
    """The processes that a process started, by their ids; all but multiprocessing's tracker of resources."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return [int(each) for each in children if b"resource_tracker" not in Path(f"/proc/{each}/cmdline").read_bytes()]
    except OSError:
        return []


def memory(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0]) / 1000
    except (OSError, IndexError):
        return 0.0


def in_peace(count: int, out: Path) -> tuple[float, float, list[Sample]]:
    """Run to the end: seconds to the first row, seconds in all, and samples of memory."""
    began, first, samples = time.monotonic(), 0.0, list[Sample]()
    process = start(count, out)
    while process.poll() is None:
        time.sleep(0.25)
        done = rows(out)
        first = first or (time.monotonic() - began if done else 0.0)
        samples.append(Sample(done, max(map(memory, workers(process.pid)), default=0.0)))
    if process.returncode:
        raise SystemExit(f"the command failed with exit code {process.returncode}: {' '.join(command(count, out))}")
    return first, time.monotonic() - began, samples


def killed(count: int, out: Path, kills: int, startup: float, work: float) -> Iterator[tuple[int, float]]:
    """Kill the command ``kills`` times: each fifth as it starts, the others once it has done a row. Yield the rows that
    were there, and the seconds until its workers had ended."""
    draw = random.Random(0)
    for k in range(kills):
        process, before = start(count, out), rows(out)
        if k % 5:
            while process.poll() is None and rows(out) == before:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, work / (kills + 1)))
        else:
            time.sleep(draw.uniform(0, startup))
        orphans = workers(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        while any(Path(f"/proc/{each}").exists() for each in orphans):
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"workers are left after {PATIENCE:.0f} s: {orphans}")
            time.sleep(0.02)
        yield rows(out), time.monotonic() - began


def main(count: int = 200, kills: int = 20) -> None:
    began, folder = time.time(), Path(tempfile.mkdtemp())
    try:
        first, seconds, samples = in_peace(count, folder / "peace")
        total, window = len(METHODS) * count, min(WINDOW, max(1, count // 4))
        ends = [[s.memory for s in samples if 0 < s.rows <= len(METHODS) * window]]
        ends.append([s.memory for s in samples if total - len(METHODS) * window <= s.rows < total])
        deaths = list(killed(count, folder / "killed", kills, first, seconds - first))
        subprocess.run(
            command(count, folder / "killed"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        names = [folder / name / "results.jsonl" for name in ("peace", "killed")]
        same, midway = names[0].read_bytes() == names[1].read_bytes(), sum(0 < n < total for n, _ in deaths)
        size = names[0].stat().st_size
    finally:
        shutil.rmtree(folder)
    memories = [[f"{sum(each) / len(each):.0f}", f"{max(each):.0f}"] if each else ["", ""] for each in ends]
    times = [["until the first row", f"{first:.0f}"], ["in all", f"{seconds:.0f}"]]
    times.append(["per row after the first", f"{(seconds - first) / max(1, total - 1):.2f}"])
    body = f"""
`iterinv evaluate` inverts and reconstructs {count} scenes of {SIZE} px by {", ".join(METHODS)}, {STEPS} steps, in
{PROCESSES} processes: {total} rows, {size / 1000:.0f} kB.

{table(["", "seconds"], times)}

Resident memory of the largest worker, MB, sampled four times per second:

{table(["pictures", "mean", "most"], [[f"the first {window}", *memories[0]], [f"the last {window}", *memories[1]]])}

The same command was killed (SIGKILL) {kills} times at random moments, {midway} of them with some rows done and others
not, and then run to its end. Its `results.jsonl` holds {"**the same bytes**" if same else "**OTHER BYTES**"} as that of
the run in peace. After a kill the workers ended by themselves within {max((s for _, s in deaths), default=0):.1f} s.
"""
    publish("evaluate", "An evaluation that is stopped", body, began, STAGES[:2])
    if not same:
        raise SystemExit("a killed run gave other bytes")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""The speed of an evaluation in one process and in two, on both engines, and the bytes of their rows. Needs the extra
`ray`."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from common import publish, table
from iterinv.cascade import load
from iterinv.evaluate.run import evaluate
from iterinv.evaluate.worker import Evaluation

COUNT, STEPS, SIZE = 40, 20, 64
RUNS = (("local", 1), ("local", 2), ("ray", 1), ("ray", 2))
"""Engines, and their numbers of workers of one thread each."""


def rows_per_second(engine: str, workers: int, folder: Path) -> float:
    """Evaluate scenes, and return the rows a second once every worker is at work: from the first row after as many as
    there are workers to the last."""
    request = Evaluation("scenes", load, ("bdia",), (), ("psnr",), STEPS, size=SIZE, count=COUNT, threads=1)
    moments = []
    for progress in evaluate(request, folder, workers, pictures=0, engine=engine):
        if progress.row is not None:
            moments.append(time.perf_counter())
    moments = moments[workers:]
    return (len(moments) - 1) / (moments[-1] - moments[0])


def main() -> None:
    began, rows, speeds, results = time.time(), [], {}, set()
    with tempfile.TemporaryDirectory() as name:
        for engine, workers in RUNS:
            folder = Path(name) / f"{engine}-{workers}"
            speeds[engine, workers] = speed = rows_per_second(engine, workers, folder)
            results.add((folder / "results.jsonl").read_bytes())
            rows.append([engine, workers, f"{speed:.2f}", f"{speed / speeds[engine, 1]:.2f}"])
            print(*rows[-1], flush=True)
    alike = "The rows of all runs are the same bytes." if len(results) == 1 else "THE ROWS DIFFER."
    body = f"""
{COUNT} scenes of {SIZE} px by `bdia` in {STEPS} steps. Speed counts from the moment when all workers are at work; each
has one thread. {alike} The machine has {os.cpu_count()} processors for the operating system; where two of them are
threads of one core, as in many virtual machines, two workers share its arithmetic.

{table(["engine", "workers", "rows a second", "against one worker"], rows)}
"""
    publish("engines", "Engines of an evaluation", body, began)


if __name__ == "__main__":
    main()

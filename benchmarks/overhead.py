"""Overhead of BDIA in time and memory at 256 px, against the bare network called as often."""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch
from torch import Tensor

from common import publish, shipped, square, table
from iterinv.cascade import load
from iterinv.conditions import Condition
from iterinv.images import resize
from iterinv.manifest import peak_memory
from iterinv.methods import plan
from iterinv.models import Stage
from iterinv.stage_inversion import invert_stage

STEPS, ROUNDS = 20, 9


def call(stage: Stage, condition: Condition, x: Tensor) -> None:
    """The network alone, as often as inverting and reconstructing call it."""
    grid = stage.schedule.grid(STEPS)
    for i in (*range(STEPS), *range(STEPS - 1)):
        stage.denoiser(x.double(), grid[i], condition)


def main() -> None:
    began, cascade = time.time(), load()
    picture, words = next(iter(shipped().values()))
    x = square(picture, cascade.size).covered()
    rows = []
    with torch.no_grad():
        for k, stage in enumerate(cascade.stages):
            low = resize(x, cascade.stages[k - 1].extent) if k else None
            condition = stage.condition(words, low)
            here = resize(x, stage.extent)
            bare = partial(call, stage, condition, here)
            whole = partial(invert_stage, stage, plan("bdia", STEPS), condition, here)
            seconds: dict[str, list[float]] = {"bare": [], "bdia": []}
            memory = {}
            for name, run in (("bare", bare), ("bdia", whole)):
                run()
                with peak_memory() as peak:
                    run()
                memory[name] = peak()
            for turn in range(ROUNDS):  # the one that comes first changes, since the machine may slow down
                for name, run in (("bare", bare), ("bdia", whole))[:: 1 if turn % 2 else -1]:
                    start = time.perf_counter()
                    run()
                    seconds[name].append(time.perf_counter() - start)
            ratio = statistics.median(b / a for a, b in zip(seconds["bare"], seconds["bdia"], strict=True))
            rows.append(
                [
                    stage.name,
                    stage.size,
                    f"{min(seconds['bare']):.2f}",
                    f"{min(seconds['bdia']):.2f}",
                    f"{ratio:.3f}",
                    f"{memory['bare']:.0f}",
                    f"{memory['bdia']:.0f}",
                    f"{memory['bdia'] / memory['bare']:.2f}",
                ]
            )
            print(*rows[-1], flush=True)
    body = f"""
{2 * STEPS - 1} calls of the bare network, and `bdia` inverting and reconstructing in as many, in turns, {ROUNDS} times.
Seconds are the least, ratios the median over the turns; memory is the process's peak.

{table(["stage", "px", "bare, s", "bdia, s", "ratio", "bare, MB", "bdia, MB", "ratio"], rows)}
"""
    publish("overhead", "What BDIA adds to its network", body, began)


if __name__ == "__main__":
    main()

"""Orders of convergence, and what BDIA adds to sampling with other rules, where the truth is known."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from common import publish, table
from iterinv.levels import Field, Grid, Level, Prediction
from iterinv.models.toy import arc, gaussian, gaussian_flow, mixture
from iterinv.roots import rms
from iterinv.schedules import Karras
from iterinv.steps import BDIA, BDIADPMPP, DDIM, DPMPP2M, DPMPP2S, RULES, BDIAHeun, Heun, Step
from iterinv.steps.run import run

COUNTS, REFERENCE = (9, 18, 40, 80), 20_000
DATA = mixture(0.6, 0.3)
SAMPLING: dict[str, Step] = {
    "DDIM": DDIM(),
    "BDIA, gamma 0.5": BDIA(0.5),
    "BDIA, gamma 0.9": BDIA(0.9),
    "BDIA, gamma 1": BDIA(1.0),
    "Heun": Heun(),
    "BDIA on Heun, undone (3 calls), gamma 1": BDIA(1.0, Heun()),
    "BDIA on Heun, kept slope, gamma 0.5": BDIAHeun(0.5),
    "BDIA on Heun, kept slope, gamma 1": BDIAHeun(1.0),
    "DPM-Solver++ 2S": DPMPP2S(),
    "DPM-Solver++ 2M": DPMPP2M(),
    "BDIA on 2M, gamma 0.3": BDIADPMPP(0.3),
    "BDIA on 2M, gamma 0.5": BDIADPMPP(0.5),
}


def end(rule: Step, field: Field, x: Tensor, grid: Grid) -> tuple[Tensor, int]:
    """The clean end of a run, and how often it called the field."""
    calls = 0

    def counted(x: Tensor, a: Level) -> Prediction:
        nonlocal calls
        calls += 1
        return field(x, a)

    *_, state = run(rule, counted, rule.init(x), grid)
    return state[0], calls


def main() -> None:
    began, counts = time.time(), (64, 128, 256)
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    orders = []
    for name, rule in RULES.items():
        truth = gaussian_flow(x, arc(1)[0], arc(1)[-1])
        errors = [float((end(rule, gaussian(), x, arc(n))[0] - truth).abs().max()) for n in counts]
        slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
        orders.append([name, rule.order, f"{slope:.2f}", *(f"{e:.1e}" for e in errors)])
    fine, _ = end(Heun(), DATA, 80 * x, Karras().grid(REFERENCE))
    steps, calls = [], []
    for name, rule in SAMPLING.items():
        ends = {n: end(rule, DATA, 80 * x, Karras().grid(n)) for n in range(2, COUNTS[-1] + 1)}
        error = {n: f"{float(rms((each - fine)[None])):.1e}" for n, (each, _) in ends.items()}
        steps.append([name, *(f"{error[n]} ({ends[n][1]})" for n in COUNTS)])
        fits = [max(n for n, (_, spent) in ends.items() if spent <= count) for count in COUNTS]
        calls.append([name, *(f"{error[n]} ({n})" for n in fits)])
    body = f"""
Orders on a linear field whose flow is known, 64 to 256 steps: declared, measured, largest error. Names are samplers':
`bdia-heun` keeps the last slope and cannot be undone; the inversion method of that name is *BDIA on Heun, undone*,
below.

{table(["rule", "declared", "measured", *(f"{n} steps" for n in counts)], orders)}

Sampling a two-sided mixture in EDM's variables: rms against Heun at {REFERENCE} steps. At equal steps; in brackets the
calls.

{table(["rule", *(f"{n} steps" for n in COUNTS)], steps)}

At equal calls; in brackets the steps.

{table(["rule", *(f"{n} calls" for n in COUNTS)], calls)}
"""
    publish("rules", "Rules, where the truth is known", body, began, ())


if __name__ == "__main__":
    main()

"""Orders of convergence, and what BDIA adds to sampling with other rules, where the truth is known."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from common import publish, table
from iterinv.levels import Field, Grid, Level, Prediction
from iterinv.methods import METHODS
from iterinv.models.toy import arc, gaussian, gaussian_flow, mixture
from iterinv.roots import rms
from iterinv.schedules import Karras
from iterinv.stage_inversion import finish
from iterinv.steps import BDIA, BDIADPMPP, DDIM, DPMPP2M, DPMPP2S, RULES, BDIAHeun, Heun, Step
from iterinv.steps.run import run

COUNTS, REFERENCE, TRIP_STEPS = (9, 18, 40, 80), 20_000, (10, 20, 40)
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

OTHER = mixture(0.9, 0.2)
"""The data that a round trip ends in, where it begins in :data:`DATA`."""
ROUND_TRIPS = ("ddim", "bdia", "bdia-heun", "bdia-2s", "belm", "edict", "rex", "aligned", "iterinv-anderson")


def end(rule: Step, field: Field, x: Tensor, grid: Grid) -> tuple[Tensor, int]:
    """The clean end of a run, and how often it called the field."""
    calls = 0

    def counted(x: Tensor, a: Level) -> Prediction:
        nonlocal calls
        calls += 1
        return field(x, a)

    *_, state = run(rule, counted, rule.init(x), grid)
    return state[0], calls


def noised(x: Tensor) -> Tensor:
    """The true noise of data: in one dimension the flow keeps quantiles."""
    return quantile(share(x, 0.6, 0.3, 0), 0.6, 0.3, 80)


def transported(x: Tensor) -> Tensor:
    """The true end of a round trip: from the data to noise under the one distribution, and from that noise to data
    under the other."""
    return quantile(share(noised(x), 0.9, 0.2, 80), 0.9, 0.2, 0)


def share(x: Tensor, centre: float, std: float, sigma: float) -> Tensor:
    """The share of a two-sided mixture under noise that lies below ``x``."""
    return sum(torch.special.ndtr((x - side) / (std**2 + sigma**2) ** 0.5) for side in (-centre, centre)) / 2


def quantile(below: Tensor, centre: float, std: float, sigma: float) -> Tensor:
    """The value that a share of the mixture lies below, by bisection to the last bit."""
    high = torch.full_like(below, 12 * (centre + std + sigma))
    low = -high
    for _ in range(100):
        middle = (low + high) / 2
        less = share(middle, centre, std, sigma) < below
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    return (low + high) / 2


def round_trip(name: str, steps: int, x: Tensor) -> list[str]:
    """The errors of inverting data by a method and running it again: under the same distribution, with the calls of
    both in brackets; of the noise in between; and under another distribution, both against the truth."""
    how, calls = METHODS[name], 0
    grid = Karras().grid(steps)

    def counted(field: Field) -> Field:
        def call(x: Tensor, a: Level) -> Prediction:
            nonlocal calls
            calls += 1
            return field(x, a)

        return call

    inverted = finish(how.inverter(how.rule, counted(DATA), x[None], grid))
    rule = how.inverter.rerun_rule(how.rule, inverted.path) if how.inverter.reads_path else how.rule
    *_, same = run(rule, counted(DATA), inverted.state, grid, how.inverter.first(how.rule))
    spent = calls
    *_, other = run(rule, counted(OTHER), inverted.state, grid, how.inverter.first(how.rule))
    back = "exact" if (error := float(rms(same[0] - x))) < 1e-9 else f"{error:.1e}"
    noise = inverted.path[0] if inverted.path else inverted.state[-1]
    return [
        f"{back} ({spent})",
        *(f"{float(rms(a - b)):.1e}" for a, b in ((noise, noised(x)), (other[0], transported(x)))),
    ]


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
    data = torch.where(torch.arange(len(x)) % 2 == 0, 0.6, -0.6) + 0.3 * x
    trips = [[name, *(cell for n in TRIP_STEPS for cell in round_trip(name, n, data))] for name in ROUND_TRIPS]
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

Round trips, in EDM's variables: data of the mixture is inverted by a method, and run back under the same distribution
(*back*; in brackets the calls of both ways; *exact*: below 1e-9) and under another, whose two sides are further apart
and narrower (*edited*, against the true flow from the one to the other). *Noise*: the rms error of the noise in
between, whose spread is 80.

{table(["method", *(f"{n} steps, {what}" for n in TRIP_STEPS for what in ("back", "noise", "edited"))], trips)}
"""
    publish("rules", "Rules, where the truth is known", body, began, ())


if __name__ == "__main__":
    main()

"""Comparison of methods on one picture, at equal steps: cost and fidelity of each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from iterinv.cascade import Cascade
from iterinv.images import Picture, save
from iterinv.manifest import peak_memory
from iterinv.methods import plan
from iterinv.observer import Observer
from iterinv.reports import inversion_report

KEYS = ("psnr", "exact_pixels")


def compare(
    cascade: Cascade,
    picture: Picture,
    prompt: str,
    methods: Sequence[str],
    num_inference_steps: int = 20,
    guidance_scale: float = 1.0,
    seed: int = 0,
    fit: str = "pad",
    observer: Observer | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one row per method when it is done: ``method, psnr, exact_pixels, network_calls, seconds, peak_memory_mb,
    terminal_noise, stages, why``.

    ``peak_memory_mb`` is the process's while the method runs, weights included. PSNR is of the part of the picture
    that the cascade worked on, ``None`` where all pixels are equal. ``terminal_noise`` is the first stage's. A method
    that fails has ``why`` and the cost, no ``stages``, and ``None`` for the rest. Raises ``ValueError``
    for an unknown method, before any work.
    """
    plans = [plan(method, num_inference_steps, guidance_scale) for method in methods]
    for each in plans:
        for stage in cascade.stages:
            each.check(stage)
    for each in plans:
        inversion, why = None, ""
        with peak_memory() as peak:
            began = time.perf_counter()
            try:
                inversion = cascade.invert(picture, prompt, each, seed=seed, fit=fit, observer=observer)
            except ArithmeticError as error:
                why = str(error)
            seconds = time.perf_counter() - began
        row: dict[str, Any] = {
            "method": each.method,
            **dict.fromkeys((*KEYS, "network_calls", "terminal_noise")),
            "stages": [],
        }
        row |= {"seconds": round(seconds, 3), "peak_memory_mb": peak(), "why": why}
        if inversion is not None:
            report = inversion_report(cascade, inversion, seconds, [])
            calls = [stage["network_calls"] for stage in report["stages"]]
            row |= {key: report["reconstruction"][key] for key in KEYS}
            row["network_calls"] = {way: sum(each[way] for each in calls) for way in ("forward", "backward")}
            row |= {
                "terminal_noise": report["stages"][0]["terminal_noise"],
                "stages": report["stages"],
                "why": report["why"],
            }
        yield row


def work(row: dict[str, Any]) -> int:
    """Return the network work in forward evaluations: a backward one counts as two."""
    calls = row["network_calls"]
    return int(calls["forward"] + 2 * calls["backward"])


def front(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The methods that no other beats in both PSNR and network work, cheapest first; without those that failed."""
    rows = [row for row in rows if row["network_calls"] is not None]
    points = [(work(row), _decibels(row)) for row in rows]
    efficient = [
        (cost, str(row["method"]))
        for row, (cost, decibels) in zip(rows, points, strict=True)
        if not any(c <= cost and d >= decibels and (c, d) != (cost, decibels) for c, d in points)
    ]
    return [name for _, name in sorted(efficient, key=lambda each: each[0])]


def plot(rows: Sequence[dict[str, Any]], path: Path, title: str, settings: Mapping[str, Any] | None = None) -> None:
    """Plot PSNR and the noise's spread against network work, with a point per method that finished; ``settings`` are
    those of the file (:mod:`iterinv.provenance`)."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["network_calls"] is not None]
    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    finite = [_decibels(row) for row in rows if row["psnr"] is not None]
    top = max([60.0, *finite]) + 8
    best = front(rows)
    for axes, height in (
        (left, lambda row: top if row["psnr"] is None else _decibels(row)),
        (right, lambda row: row["terminal_noise"]["std"]),
    ):
        # Methods that lie on each other share a label, at the first of them.
        named: dict[tuple[float, float], tuple[tuple[int, float], list[str]]] = {}
        for row in rows:
            axes.plot(work(row), height(row), "o", color="tab:red" if row["method"] in best else "tab:blue")
            near = round(math.log10(work(row)), 1), round(height(row), 2)
            named.setdefault(near, ((work(row), height(row)), []))[1].append(row["method"])
        for (x, y), names in named.values():
            below = axes is left and abs(y - top) < 0.1
            axes.annotate(
                "\n".join(names),
                (x, y),
                xytext=(4, -4 if below else 3),
                textcoords="offset points",
                fontsize=7,
                verticalalignment="top" if below else "bottom",
                annotation_clip=False,
            )
    if not rows:
        left.set_title("no method came to an end")
    left.axhline(top, color="grey", linewidth=0.5, linestyle=":")
    left.set_ylabel(f"reconstruction, dB (at {top:.0f}: every pixel equal)")
    right.axhline(1, color="grey", linewidth=0.5, linestyle=":")
    right.set_ylabel("spread of the terminal noise, stage I (1: a sampler's)")
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("network work: forward + 2 backward evaluations")
    shown = title.encode(errors="backslashreplace").decode()
    figure.suptitle(f"{shown}; red: none is both cheaper and better", parse_math=False)
    canvas.draw()
    save(np.asarray(canvas.buffer_rgba())[..., :3], path, settings)


def _decibels(row: dict[str, Any]) -> float:
    return float("inf") if row["psnr"] is None else float(row["psnr"])

"""IterInv's Table I on the embedded cascade, and why DDIM inversion loses a picture at a super-resolution stage.

Two processes, one thread each. Rows lie under runs/table1, where the benchmark goes on after a stop. The study inverts
one stage at a time under the real picture below it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from common import OUT, RESUMED, ROOT, measure, measured, publish, short, table
from iterinv.cascade import Cascade, load
from iterinv.evaluate import table1
from iterinv.evaluate.datasets import open_dataset
from iterinv.evaluate.recipes import UpperStages
from iterinv.evaluate.report import write
from iterinv.evaluate.run import evaluate
from iterinv.evaluate.worker import Evaluation
from iterinv.images import to_uint8
from iterinv.methods import plan
from iterinv.metrics import psnr

STEPS, COUNT = 20, 3
"""Steps of every row of the table, and scenes and photographs each."""

PHOTOGRAPHS = ("astronaut.png", "coffee.png", "motorcycle_left.png")
"""Photographs that scikit-image carries, unlike anything that the cascade was trained on."""

STUDY_STEPS, STUDY_COUNT, MATCHED = (10, 20, 50, 100), 2, "the same noise"
NUMERALS = {1: "I", 2: "II", 3: "III"}
VARIANTS: dict[str, tuple[int | None, dict[str, Any]]] = {
    MATCHED: (None, {}),
    "no noise": (0, {}),
    "other noise": (None, {"noise": "fresh"}),
    "velocity read as noise": (None, {"velocity_as_noise": True}),
    "both mistakes": (None, {"noise": "fresh", "velocity_as_noise": True}),
}
"""By name, the noise level on the picture below (``None``: the cascade's own) and the settings of the recipe."""


class Job(NamedTuple):
    """The ``k``-th picture of a dataset, DDIM at one stage in a number of steps."""

    stage: int
    variant: str
    steps: int
    data: str
    k: int


def photographs(folder: Path) -> Path:
    """Write a prompt file for the photographs, without words, and return its folder."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in PHOTOGRAPHS:
        source = Path(spec.origin).parent / "data" / name
        (folder / name).write_bytes(source.read_bytes())
        rows.append({"file": name, "prompt": ""})
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def main() -> None:
    began, cascade = time.time(), load()
    runs = ROOT / "runs" / "table1" / short(cascade)
    pictures = photographs(runs / "photographs")
    study = list(studied(runs / "study.jsonl", pictures))
    scenes = evaluated("scenes", runs / "scenes", table1.SCALES)
    photos = evaluated(str(pictures), runs / "photos", table1.SCALES[:1])
    plotted(study)
    rows = [
        [NUMERALS[stage], variant, *(f"{mean(study, stage, variant, n):.1f}" for n in STUDY_STEPS)]
        for stage, variant in lines()
    ]
    body = f"""
Rows of Table I of IterInv at {STEPS} steps on the embedded cascade, {COUNT} rendered scenes and {COUNT} photographs
(centre crops, no words) of 256 px, made by `iterinv table1`. {table1.LEGEND} The embedded networks predict noise; the
rows read their prediction in the form of a velocity wrongly, which is what the public code does to an upscaler that
predicts velocities. Seconds of rows that ran beside other work are longer. {RESUMED}
[What this says about the paper](../table1.md).

## Scenes

{scenes}

## Photographs

They have no words, so guidance has nothing to guide by.

{photos}

## DDIM inversion of one stage

PSNR in dB, mean of {2 * STUDY_COUNT} pictures, of DDIM inversion and DDIM of one stage under the real picture below.
*The same noise* is on the picture below in both directions, at the cascade's noise level (30); *no noise* is level 0;
*other noise* is drawn again for the way back. Stage I has no picture below.

{table(["stage", "variant", *(f"{n} steps" for n in STUDY_STEPS)], rows)}

![PSNR over the number of steps](table1.png)
"""
    publish("table1", "IterInv's Table I, and DDIM at super-resolution stages", body, began)


def evaluated(data: str, out: Path, scales: Sequence[float]) -> str:
    """Evaluate the rows on a dataset, IterInv's at these guidance scales, and return their table."""
    recipes = table1.recipes(3, STEPS, scales)
    names, metrics = tuple(name for name, _ in recipes), table1.published_metrics()[0]
    request = Evaluation(data, load, names, (), metrics, STEPS, fit="crop", count=COUNT, threads=1, recipes=recipes)
    for progress in evaluate(request, out, processes=2):
        print(out.name, f"{progress.done} of {progress.total} rows", flush=True)
    write(out)
    return table(*table1.columns(out))


def studied(file: Path, pictures: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the study; those of earlier runs first."""
    known = [row for row in measured(file) if row["k"] < STUDY_COUNT]
    yield from known
    there = {(row["stage"], row["variant"], row["steps"], row["data"], row["k"]) for row in known}
    jobs = [
        Job(stage, variant, steps, data, k)
        for steps in STUDY_STEPS
        for data in ("scenes", str(pictures))
        for k in range(STUDY_COUNT)
        for stage, variant in lines()
        if (stage, variant, steps, Path(data).name, k) not in there
    ]
    for row in measure(file, one, jobs):
        print(*row.values(), flush=True)
        yield row


@cache
def cascade_of(level: int | None) -> Cascade:
    return load() if level is None else load(noise_level=level)


def one(job: Job) -> list[dict[str, Any]]:
    """One row of the study."""
    stage, variant, steps, data, k = job
    level, settings = VARIANTS[variant]
    cascade = Cascade(cascade_of(level).stages[:stage])
    recipe = UpperStages(stage, plan("ddim", steps), **settings)
    recipe.check(cascade)
    made = recipe(cascade, open_dataset(data, COUNT).make(k, cascade.size), 0, "crop")
    value = psnr(to_uint8(made.canvas.covered()), to_uint8(made.picture))
    return [{"stage": stage, "variant": variant, "steps": steps, "data": Path(data).name, "k": k, "psnr": value}]


def mean(study: Sequence[dict[str, Any]], stage: int, variant: str, steps: int) -> float:
    return float(
        np.mean(
            [row["psnr"] for row in study if (row["stage"], row["variant"], row["steps"]) == (stage, variant, steps)]
        )
    )


def lines() -> list[tuple[int, str]]:
    """The stages and variants of the study; the first stage has no picture below, so nothing to vary."""
    return [(stage, variant) for stage in (1, 2, 3) for variant in VARIANTS if stage > 1 or variant == MATCHED]


def plotted(study: Sequence[dict[str, Any]]) -> None:
    """Plot the study: a panel for each super-resolution stage, with the first stage for comparison."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for stage, axes in zip((2, 3), figure.subplots(1, 2, sharey=True), strict=True):
        for at, variant in lines():
            if at in (1, stage):
                values = [mean(study, at, variant, n) for n in STUDY_STEPS]
                name, line = ("stage I", "k:") if at == 1 else (variant, "o-")
                axes.plot(STUDY_STEPS, values, line, label=name)
        axes.set_title(f"stage {NUMERALS[stage]}")
        axes.set_xlabel("steps")
        axes.set_xscale("log")
        axes.set_xticks(STUDY_STEPS, labels=[str(n) for n in STUDY_STEPS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("PSNR of the reconstruction, dB")
    figure.axes[1].legend(fontsize=8)
    figure.savefig(OUT / "table1.png", dpi=110)


if __name__ == "__main__":
    main()

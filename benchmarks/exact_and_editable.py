"""Exact inversions against their edits: the same pictures inverted and run back by each exact method and by DDIM, under
their own caption and under another, at guidance 1, 2 and 4 in 20 and 50 steps.

One process a core, each of one thread. Resumable: each task is a line of docs/benchmarks/exact_and_editable.jsonl, and
is not done twice with the same weights. With a number of minutes it starts nothing new after as many:
`python benchmarks/exact_and_editable.py 30`.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from common import OUT, RESUMED, STAGES, measure, measured, publish, table
from iterinv.cascade import Cascade, load
from iterinv.edits import PromptSwap, RoundTrip
from iterinv.edits.site import Editor
from iterinv.embedded.evaluate.tasks import SceneEdit, scene_edit
from iterinv.embedded.scenes import COLORS, SHAPES, Scene, render
from iterinv.embedded.seeds import SCENE_EDIT
from iterinv.images import from_uint8, to_uint8
from iterinv.inverters import Align, Solve
from iterinv.metrics import psnr
from iterinv.plans import Plan
from iterinv.roots import FixedPoint
from iterinv.steps import BDIA, BELM, DDIM, EDICT, Rex

FILE = OUT / "exact_and_editable.jsonl"
KINDS = {"recolour": ("color", tuple(COLORS)), "reshape": ("shape", SHAPES)}
"""The kinds of edit, each with the attribute that it changes and the values that there are."""
COUNT, BATCH = 25, 5
"""Tasks of each kind, and how many are run at once."""
GUIDANCE, STRENGTHS = (1.0, 2.0, 4.0), {20: (0.7, 1.0), 50: (1.0,)}
"""By the number of steps, the shares of the levels that are run back under the target prompt."""

WAYS: dict[str, Plan] = {
    "DDIM": Plan(DDIM(), Solve(FixedPoint(1))),
    "aligned": Plan(DDIM(), Align()),
    "BDIA, gamma = 1": Plan(BDIA()),
    "BDIA, gamma = 0.9": Plan(BDIA(gamma=0.9)),
    "EDICT, p = 0.93": Plan(EDICT()),
    "O-BELM": Plan(BELM()),
    "Rex, zeta = 0.999": Plan(Rex()),
    "Rex, zeta = 0.9": Plan(Rex(zeta=0.9)),
}
OTHER_RULE = "BDIA, run back by DDIM"
"""The remedy: the path of BDIA (gamma = 1), from one state of which DDIM runs back."""
MOST = 60.0
"""PSNR counts as no more, so that means exist where pixels are equal."""
SHOWN = {1.0: "o", 2.0: "s", 4.0: "^"}
"""The mark of each guidance in the plot."""

Job = tuple[str, float, int, str, int]
"""Way, guidance, steps, kind, and the first of the batch's tasks."""


@cache
def stage() -> Cascade:
    return Cascade(load().stages[:1])


def jobs() -> list[Job]:
    """The batches of all ways, one number of steps after the other, so that what is done can be compared."""
    return [
        (way, guidance, steps, kind, first)
        for steps in STRENGTHS
        for first in range(0, COUNT, BATCH)
        for guidance in GUIDANCE
        for kind in KINDS
        for way in (*WAYS, OTHER_RULE)
    ]


def one(job: Job, end: float) -> list[dict[str, Any]]:
    """The rows of a batch, in a process of the pool; none past the end."""
    if time.time() > end:
        return []
    warnings.simplefilter("ignore")
    way, guidance, steps, kind, first = job
    cascade, tasks = stage(), [scene_edit(SCENE_EDIT + k, kind) for k in range(first, first + BATCH)]
    x = torch.cat([_drawn(task.source) for task in tasks])
    prompts, targets = [task.prompt for task in tasks], [task.to for task in tasks]
    by_rule = way == OTHER_RULE
    plan = Plan(BDIA(), steps=steps) if by_rule else replace(WAYS[way], steps=steps, guidance=guidance)
    inversion = cascade.invert(x, prompts, plan)
    back = cascade.edit(inversion, prompts, RoundTrip()).pictures[0] if first == 0 else None
    rows = [
        {"way": way, "guidance": guidance, "steps": steps, "kind": kind, "seed": SCENE_EDIT + first + k}
        for k in range(BATCH)
    ]
    for row, true, same in zip(rows, x, back if back is not None else (), strict=False):
        row["error"] = float((same.double() - true.double()).abs().max())
    for strength in STRENGTHS[steps]:
        editor: Editor = PromptSwap(strength, guidance) if by_rule else RoundTrip(strength)
        edited = cascade.edit(inversion, targets, editor).pictures[0].float()
        for row, task, picture in zip(rows, tasks, edited, strict=True):
            row |= {f"{key} {strength:g}": value for key, value in _score(task, picture[None]).items()}
    return [{k: round(v, 2) if isinstance(v, float) and k != "error" else v for k, v in row.items()} for row in rows]


def _score(task: SceneEdit, edited: torch.Tensor) -> dict[str, Any]:
    """Score an edit: ``changed`` where of all values of the attribute the new one is nearest to the picture; ``truth``,
    the PSNR inside the true region to the true answer; ``outside``, that elsewhere to the source."""
    name, values = KINDS[task.kind]
    size = edited.shape[-1]
    inside = task.region(size)[0].numpy() > 0
    (k,) = (k for k, pair in enumerate(zip(task.source.things, task.target.things, strict=True)) if pair[0] != pair[1])
    now = to_uint8(edited.nan_to_num())
    answers = {value: _psnr(_drawn(task.source.with_(k, **{name: value})), now, inside) for value in values}
    wanted = getattr(task.target.things[k], name)
    return {
        "changed": max(answers, key=lambda value: answers[value]) == wanted,
        "truth": answers[wanted],
        "outside": _psnr(_drawn(task.source), now, ~inside),
    }


def _psnr(true: torch.Tensor, now: np.ndarray, where: np.ndarray) -> float:
    """PSNR within a region, at most ``MOST``."""
    value = psnr(to_uint8(true), now, where)
    return MOST if value is None else min(value, MOST)


def _drawn(scene: Scene) -> torch.Tensor:
    return from_uint8(to_uint8(render(scene, stage().size)[None]))


def run(minutes: float) -> None:
    end = time.time() + 60 * minutes
    known = {(row["way"], row["guidance"], row["steps"], row["kind"], row["seed"]) for row in measured(FILE, 1)}
    left = [job for job in jobs() if (*job[:4], SCENE_EDIT + job[4]) not in known]
    for row in measure(FILE, partial(one, end=end), left):
        print(*(row[k] for k in ("way", "guidance", "steps", "kind", "seed")), flush=True)


def cell(values: list[float], how: str = ".1f") -> str:
    """A mean with its standard error."""
    return f"{np.mean(values):{how}} ± {_error(values):{how}}"


def _error(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


Setting = tuple[int, float, float, str]
"""Steps, the share of the levels that is run back under the target prompt, guidance, way."""


def by_setting(rows: list[dict[str, Any]]) -> dict[Setting, list[dict[str, Any]]]:
    """The rows of each setting that has two or more of each kind, in the order of the table."""
    groups: dict[Setting, list[dict[str, Any]]] = {
        (steps, share, guidance, way): []
        for steps, shares in STRENGTHS.items()
        for share in shares
        for guidance in GUIDANCE
        for way in (*WAYS, OTHER_RULE)
    }
    for row in rows:
        for share in STRENGTHS[row["steps"]]:
            groups[row["steps"], share, row["guidance"], row["way"]].append(row)
    return {
        setting: group
        for setting, group in groups.items()
        if all(sum(row["kind"] == kind for row in group) > 1 for kind in KINDS)
    }


def lines(groups: dict[Setting, list[dict[str, Any]]]) -> list[list[str]]:
    made = []
    for (steps, share, guidance, way), group in groups.items():
        errors = [row["error"] for row in group if "error" in row]
        worst = "" if way == OTHER_RULE or not errors else f"{max(errors):.0e}"
        changed = [[100.0 * row[f"changed {share:g}"] for row in group if row["kind"] == kind] for kind in KINDS]
        figures = [[row[f"{key} {share:g}"] for row in group] for key in ("truth", "outside")]
        cells = [cell(values, ".0f") for values in changed] + [cell(values) for values in figures]
        made.append([str(steps), f"{share:.0%}", f"{guidance:g}", way, str(len(group)), worst, *cells])
    return made


def plot(groups: dict[Setting, list[dict[str, Any]]]) -> None:
    """Plot the share of edits that took against the PSNR outside, a panel for each number of steps and share."""
    figure = Figure(figsize=(14, 5), layout="constrained")
    kinds = [(steps, share) for steps, shares in STRENGTHS.items() for share in shares]
    panels = figure.subplots(1, len(kinds), sharex=True, sharey=True)
    for axes, (steps, share) in zip(panels, kinds, strict=True):
        for k, way in enumerate((*WAYS, OTHER_RULE)):
            points = []
            for guidance in GUIDANCE:
                group = groups.get((steps, share, guidance, way), [])
                if group:
                    x = [row[f"outside {share:g}"] for row in group]
                    y = [100.0 * row[f"changed {share:g}"] for row in group]
                    points.append((np.mean(x), np.mean(y)))
                    axes.errorbar(*points[-1], _error(y), _error(x), SHOWN[guidance], color=f"C{k}", capsize=2, ms=6)
            axes.plot(*(zip(*points, strict=True) if points else ((), ())), color=f"C{k}", lw=0.8, label=way)
        axes.set_title(f"{steps} steps, the last {share:.0%} run back")
        axes.grid(alpha=0.3)
        axes.set_xlabel("outside, dB to the source")
    panels[0].set_ylabel("edits that took, %")
    panels[-1].legend(fontsize=8)
    figure.suptitle("Guidance 1 (circle), 2 (square), 4 (triangle); bars are standard errors")
    figure.savefig(OUT / "exact_and_editable.png", dpi=80)


def main(minutes: float = math.inf) -> None:
    began = time.time()
    run(minutes)
    groups = by_setting(measured(FILE, 1))
    plot(groups)
    columns = ["steps", "run back", "guidance", "method", "tasks", "largest error"]
    columns += ["recoloured, %", "reshaped, %", "truth, dB", "outside, dB"]
    body = f"""
Stage I, held-out scenes, half of them with a new colour, half with a new shape, inverted with the caption of the
source. *Largest error*: of a channel in [-1, 1] after a run back under the same caption, the worst of {2 * BATCH}
pictures. *Run back*: the share of the levels that are run back under the caption of the target, by the method's own
rule. *Recoloured*, *reshaped*: of all values of the attribute the new one is nearest to the render. *Truth*: PSNR
inside the true region; *outside*: PSNR to the source elsewhere, both at most {MOST:g} dB. Guidance is the same both
ways. *{OTHER_RULE}*: inverted at guidance 1, then `prompt-swap`, which guides from the source prompt. Means with
standard errors.

{table(columns, lines(groups))}

![What stays against the edits that took](exact_and_editable.png)

Every task: [exact_and_editable.jsonl](exact_and_editable.jsonl). {RESUMED}
"""
    publish("exact_and_editable", "Exact and editable", body, began, STAGES[:1])


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else math.inf)

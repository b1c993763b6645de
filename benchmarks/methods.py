"""Every method at equal steps on the same pictures: what comes back, at what cost, and from what noise.

One process a core, each of one thread, which on small pictures does most. Resumable: each (steps, guidance, picture,
method) is a line of docs/benchmarks/methods.jsonl, and is not done twice with the same weights. With a number of
minutes it starts nothing new after as many and reports what there is: `python benchmarks/methods.py 30`.
"""

from __future__ import annotations

import sys
import time
import warnings
from functools import cache, partial
from typing import Any

import numpy as np

from common import OUT, RESUMED, measure, measured, photographs, publish, table
from iterinv.cascade import Cascade, load
from iterinv.embedded.scenes import Scene, caption, render
from iterinv.embedded.seeds import HELD_OUT
from iterinv.evaluate.compare import compare, front, plot, work
from iterinv.images import to_uint8
from iterinv.methods import METHODS

STEPS, SCENES, PHOTOGRAPHS, GUIDANCE = (20,), 3, 2, (1.0, 5.0)
FILE = OUT / "methods.jsonl"
FIRST = ("bdia", "bdia-fixed", "iterinv-anderson")
"""The methods with figures to reach: on all pictures before the others are begun."""
SLOW = ("iterinv", "dpmpp-2m")
"""Methods of hundreds of calls a level: on the first of the scenes and of the photographs only."""


@cache
def pictures() -> dict[str, tuple[np.ndarray, str]]:
    """Held-out scenes with their captions, and photographs with words that say little, the first of both first."""
    scenes = {}
    for k in range(SCENES):
        scene = Scene.random(HELD_OUT + 500 + k)
        scenes[f"scene-{k}"] = to_uint8(render(scene, 256)[None]), caption(scene)
    photos = {
        name: (photo, "a picture") for name, (photo, _) in list(photographs().items())[:PHOTOGRAPHS]
    }  # not "": guidance needs words
    first = next(iter(scenes)), next(iter(photos))
    both = {**scenes, **photos}
    return {**{name: both[name] for name in first}, **both}


Job = tuple[int, float, str, str]
"""Steps, guidance, picture, method."""


def jobs() -> list[Job]:
    """The exact methods on all pictures, every other method on the first picture, the exact methods under guidance, and
    then the rest."""
    names, others = list(pictures()), [m for m in METHODS if m not in FIRST + SLOW]
    todo = [(n, 1.0, name, m) for n in STEPS for name in names for m in FIRST[:2]]
    for n in STEPS:
        todo += [(n, 1.0, names[0], m) for m in (FIRST[2], *others)]
        todo += [(n, w, name, m) for w in GUIDANCE[1:] for name in names for m in FIRST[:2]]
        todo += [(n, 1.0, name, FIRST[2]) for name in names]
        todo += [(n, 1.0, names[1], m) for m in others]
        todo += [(n, 1.0, names[0], m) for m in SLOW]
    todo += [(n, 1.0, names[1], m) for n in STEPS for m in SLOW]
    todo += [(n, 1.0, name, m) for n in STEPS for name in names for m in others]
    return list(dict.fromkeys(todo))


def known() -> dict[Job, dict[str, Any]]:
    return {(row["steps"], row["guidance"], row["picture"], row["method"]): row for row in measured(FILE)}


@cache
def cascade() -> Cascade:
    return load()


def one(job: Job, end: float) -> list[dict[str, Any]]:
    """The row of a job, in a process of the pool; none past the end."""
    if time.time() > end:
        return []
    warnings.simplefilter("ignore")
    steps, guidance, name, method = job
    picture, words = pictures()[name]
    (row,) = compare(cascade(), picture, words, [method], steps, guidance, fit="crop")
    entry = {"steps": steps, "guidance": guidance, "picture": name, **{k: v for k, v in row.items() if k != "stages"}}
    keys = ("stage", "network_calls", "seconds", "residual_max", "reconstruction", "terminal_noise")
    entry["stages"] = [{k: stage[k] for k in keys} for stage in row["stages"]]
    return [entry]


def run(minutes: float) -> None:
    end, done = time.time() + 60 * minutes, known()
    for row in measure(FILE, partial(one, end=end), [job for job in jobs() if job not in done]):
        print(*(row[k] for k in ("steps", "guidance", "picture", "method", "psnr", "seconds")), flush=True)


def of(rows: dict[Job, dict[str, Any]], steps: int, method: str, guidance: float = 1.0) -> dict[str, dict[str, Any]]:
    """The rows of a method by picture, those that failed left out."""
    return {
        job[2]: row
        for job, row in rows.items()
        if (job[0], job[1], job[3]) == (steps, guidance, method) and row["stages"]
    }


def ratios(rows: dict[Job, dict[str, Any]]) -> str:
    """Compare the work of the exact and the best solved method with the published one, at stages II and III."""
    lines = []
    for ours, method, theirs in ((20, "bdia", 20), (20, "iterinv-anderson", 20)):
        mine, published = of(rows, ours, method), of(rows, theirs, "iterinv")
        both = [name for name in mine if name in published]
        if not both:
            continue
        network, clock = (
            np.mean([spent(published[name]) for name in both]) / np.mean([spent(mine[name]) for name in both])
            for spent in (
                lambda row: sum(work(stage) for stage in row["stages"][1:]),
                lambda row: sum(stage["seconds"] for stage in row["stages"][1:]),
            )
        )
        lines.append(
            [f"`{method}`, {ours} steps", f"`iterinv`, {theirs} steps", len(both), f"{network:.1f}", f"{clock:.1f}"]
            + [
                " / ".join("exact" if p is None else f"{p:.0f}" for p in lowest(each, both))
                for each in (mine, published)
            ]
        )
    columns = ["", "against", "pictures", "less work", "less time", "lowest dB at II / III", "its own"]
    return table(columns, lines) if lines else ""


def lowest(rows: dict[str, dict[str, Any]], names: list[str]) -> list[float | None]:
    """The least PSNR at stages II and III."""
    each = [[rows[name]["stages"][k]["reconstruction"]["psnr"] for name in names] for k in (1, 2)]
    return [min((p for p in psnrs if p is not None), default=None) for psnrs in each]


def solved(rows: dict[Job, dict[str, Any]]) -> str:
    """Fidelity of the best solved method at stages II and III, and its calls a level, without those of the rerun."""
    lines = []
    for steps in STEPS:
        measured = of(rows, steps, FIRST[2])
        if measured:
            stages = [stage for row in measured.values() for stage in row["stages"][1:]]
            calls = [stage["network_calls"]["forward"] / steps - 1 for stage in stages]
            backward = sum(stage["network_calls"]["backward"] for stage in stages)
            least = " / ".join("exact" if p is None else f"{p:.1f}" for p in lowest(measured, list(measured)))
            lines.append(
                [FIRST[2], steps, len(measured), least, f"{np.mean(calls):.1f}", f"{max(calls):.1f}", backward]
            )
    columns = ["", "steps", "pictures", "lowest dB at II / III", "forward calls a level, mean", "most", "backward"]
    return table(columns, lines) if lines else ""


def guided(rows: dict[Job, dict[str, Any]]) -> str:
    """Exact pixels under guidance, and whether any bit of a state changed."""
    lines = []
    for steps in STEPS:
        for method in ("bdia", "bdia-fixed"):
            for w in GUIDANCE:
                these = list(of(rows, steps, method, w).values())
                if not these:
                    continue
                exact = sum(all(s["reconstruction"]["exact_pixels"] == 1.0 for s in row["stages"]) for row in these)
                bits = sum(all(s["residual_max"] == 0 for s in row["stages"]) for row in these)
                spread = " / ".join(
                    f"{np.mean([r['stages'][k]['terminal_noise']['std'] for r in these]):.2f}" for k in range(3)
                )
                lines.append([method, steps, f"{w:g}", f"{exact} of {len(these)}", f"{bits} of {len(these)}", spread])
    return table(
        ["method", "steps", "guidance", "all pixels, all stages", "all bits of all states", "noise std I / II / III"],
        lines,
    )


def mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row for a method's rows over pictures: the least PSNR, ``None`` where all are exact, and the mean cost."""
    lossy = [row["psnr"] for row in rows if row["psnr"] is not None]
    calls = {way: round(np.mean([row["network_calls"][way] for row in rows])) for way in ("forward", "backward")}
    stages = [[row["stages"][k]["reconstruction"]["psnr"] for row in rows] for k in range(3)]
    return {
        "method": rows[0]["method"],
        "pictures": len(rows),
        "exact": len(rows) - len(lossy),
        "psnr": min(lossy, default=None),
        "mean": float(np.mean(lossy)) if lossy else None,
        "lowest": [min((p for p in each if p is not None), default=None) for each in stages],
        "network_calls": calls,
        "seconds": float(np.mean([row["seconds"] for row in rows])),
        "peak_memory_mb": float(np.max([row["peak_memory_mb"] for row in rows])),
        "terminal_noise": {"std": float(np.mean([row["terminal_noise"]["std"] for row in rows]))},
        "noise": [float(np.mean([row["stages"][k]["terminal_noise"]["std"] for row in rows])) for k in range(3)],
    }


def main() -> None:
    began = time.time()
    run(float(sys.argv[1]) if len(sys.argv) > 1 else 1e9)
    rows, body = known(), ""
    for steps in STEPS:
        by_method = {m: each for m in METHODS if (each := of(rows, steps, m))}
        if not by_method:
            continue
        means = [mean(list(each.values())) for each in by_method.values()]
        shared = set.intersection(*(set(each) for each in by_method.values()))
        points = (
            [mean([row for name, row in each.items() if name in shared]) for each in by_method.values()]
            if shared
            else []
        )
        plot(points, OUT / f"methods-{steps}.png", f"{steps} steps, no guidance, the worst of {len(shared)} picture(s)")
        best = front(points)
        listed = [
            [
                f"**{m['method']}**" if m["method"] in best else m["method"],
                f"{m['exact']} of {m['pictures']}",
                "" if m["mean"] is None else f"{m['mean']:.1f}",
                " / ".join("exact" if p is None else f"{p:.0f}" for p in m["lowest"]),
                m["network_calls"]["forward"],
                m["network_calls"]["backward"],
                work(m),
                f"{m['seconds']:.0f}",
                f"{m['peak_memory_mb']:.0f}",
                " / ".join(f"{std:.2f}" for std in m["noise"]),
            ]
            for m in means
        ]
        columns = [
            "method",
            "exact",
            "else dB",
            "lowest dB at I / II / III",
            "forward",
            "backward",
            "work",
            "seconds",
            "MB",
            "noise std I / II / III",
        ]
        body += f"\n## {steps} steps\n\n{table(columns, listed)}\n\n![{steps} steps](methods-{steps}.png)\n"
    body = f"""
{SCENES} held-out scenes and {PHOTOGRAPHS} photographs, all stages, no guidance; {", ".join(SLOW)} on the first scene
and the first photograph. The tables say how many pictures are measured yet. *Exact*: pictures of which every 8-bit
pixel of 256 px is equal; *else*: mean PSNR of the others. *Work*: network evaluations, inverting and reconstructing
together, a backward one counted as two. *Seconds*: of one thread, beside another such process. *MB*: the most that the
process held while the method ran, weights and libraries included. The plots, and what is bold in the tables (no other
method is both cheaper and better), are of the pictures that all methods were run on, by the worst of them. Rows hold
the commit that they were made at; all are of one set of weights. {RESUMED}
{body}
## Against IterInv as published

{ratios(rows)}

{solved(rows)}

## Guidance

{guided(rows)}
"""
    publish("methods", "Every method, at equal steps", body, began)


if __name__ == "__main__":
    main()

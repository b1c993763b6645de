"""The pictures of the first pages: one picture on its way through the embedded cascade, and the papers' ideas as plots
of what this package computes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from common import ROOT, publish, shipped, table
from iterinv import images
from iterinv.cascade import Cascade, load
from iterinv.guidance import CFG
from iterinv.inverters.solve import residual_scale
from iterinv.levels import Level, move
from iterinv.methods import plan
from iterinv.metrics import psnr
from iterinv.models import Stage
from iterinv.models.toy import mixture
from iterinv.roots import Anderson, Damped, FixedPoint, GradientDescent, LevelInfo, RootFinder, rms
from iterinv.stage_inversion import finish
from iterinv.steps import DDIM
from iterinv.steps.run import run

IMAGES = ROOT / "docs" / "images"
TARGET = "a large blue shiny sphere on a wooden floor in front of a beige wall"
MOST = 300_000
"""Bytes that the pictures of one page may take."""

METHODS = {"ddim": "DDIM inversion", "iterinv-anderson": "IterInv's equation, by Anderson", "bdia": "BDIA"}
STEPS = (5, 10, 20, 50)
FINDERS: dict[str, Callable[[int], RootFinder]] = {
    "fixed point": lambda n: FixedPoint(n),
    "gradient descent (IterInv)": lambda n: GradientDescent(n),
    "damped": lambda n: Damped(n + 1, 1e-12),  # the last call of these two only measures
    "Anderson": lambda n: Anderson(n + 1, 1e-12),
}
ITERATIONS = (0, 1, 2, 3, 5, 8, 12, 16, 21)


def saved(picture: np.ndarray, name: str, quality: int = 82) -> None:
    Image.fromarray(picture).save(IMAGES / f"{name}.webp", quality=quality, method=6)


def one_picture(cascade: Cascade, picture: np.ndarray, prompt: str) -> list[list[str]]:
    """Invert, reconstruct and edit a picture, and save what is on the way; rows of what each stage gave."""
    inversion = cascade.invert(picture, prompt)
    saved(picture, "one-original")
    rows = []
    for stage, inverted in zip(cascade.stages, inversion.stages, strict=True):
        noise = Image.fromarray(images.to_uint8(inverted.noise / 3))
        saved(np.asarray(noise.resize((256, 256), Image.Resampling.NEAREST)), f"one-noise-{stage.size}", 60)
        expected = images.to_uint8(images.resize(inversion.canvases[0].covered(), stage.extent))
        value = psnr(expected, images.to_uint8(inverted.picture))
        spread = f"{float(inverted.noise.mean()):.2f} ± {float(inverted.noise.std()):.2f}"
        rows.append([f"{stage.name}, {stage.size} px", spread, "every pixel" if value is None else f"{value:.1f} dB"])
    saved(np.asarray(inversion.images[0]), "one-reconstruction")
    edit = cascade.edit(inversion, TARGET)
    (canvas,), after = edit.canvases, np.asarray(edit.images[0])
    saved(edit.region(0), "one-region")
    saved(after, "one-edited")
    saved(images.difference(canvas.image, after), "one-difference")
    return rows


def figure(width: float = 7.2, height: float = 3.2, columns: int = 1) -> tuple[Figure, list[Axes]]:
    made, axes = plt.subplots(1, columns, figsize=(width, height), squeeze=False, constrained_layout=True)
    for each in axes[0]:
        each.spines[["top", "right"]].set_visible(False)
    return made, list(axes[0])


def written(made: Figure, name: str) -> None:
    made.savefig(IMAGES / f"{name}.webp", dpi=140, pil_kwargs={"lossless": True, "method": 6})
    plt.close(made)


def stencil() -> None:
    """BDIA's step on a field whose truth is known: both moves from the middle state, and the next one."""
    field, angles = mixture(), (1.25, 0.95, 0.55)
    p, a, b = (Level(angle, math.cos(angle), math.sin(angle)) for angle in angles)
    fine = [Level(x, math.cos(x), math.sin(x)) for x in np.linspace(1.4, 0.4, 2001)]
    x, flow = torch.tensor([[0.62]], dtype=torch.float64), []
    for here, there in pairwise(fine):
        flow.append((here.t, float(x)))
        x = DDIM().step_to(field, x, here, there)[0]
    truth = dict(flow)
    nearest = {angle: truth[min(truth, key=lambda t: abs(t - angle))] for angle in angles}
    x_p, x_a = (torch.tensor([[nearest[angle]]], dtype=torch.float64) for angle in angles[:2])
    ahead, back = (float(each) for each in DDIM().step_to(field, x_a, a, b, p))
    x_b = ahead + float(x_p) - back
    made, (axes,) = figure(height=3.6)
    axes.plot(*zip(*flow, strict=True), color="0.6", label="the exact path")
    axes.plot([p.t, a.t], [float(x_p), float(x_a)], "o", color="black")
    for to, where, words, shift in ((b, ahead, "$D(x_a, a, b)$", 8), (p, back, "$D(x_a, a, p)$", -36)):
        axes.annotate(
            "", (to.t, where), (a.t, float(x_a)), arrowprops={"arrowstyle": "->", "color": "tab:blue", "lw": 1.5}
        )
        axes.plot(to.t, where, "s", color="tab:blue")
        axes.annotate(words, (to.t, where), xytext=(shift, -14), textcoords="offset points", color="tab:blue")
    axes.annotate("", (b.t, x_b), (b.t, ahead), arrowprops={"arrowstyle": "->", "color": "tab:red", "lw": 1.5})
    axes.annotate("", (p.t, float(x_p)), (p.t, back), arrowprops={"arrowstyle": "->", "color": "tab:red", "lw": 1.5})
    axes.plot(b.t, x_b, "o", color="tab:red")
    for level, height, words in ((p, float(x_p), "$x_p$"), (a, float(x_a), "$x_a$"), (b, x_b, "$x_b$")):
        axes.annotate(words, (level.t, height), xytext=(6, 8), textcoords="offset points")
    axes.set(xlabel="noise level, as an angle (noisy on the left)", ylabel="state", xlim=(1.42, 0.38))
    axes.margins(y=0.12)
    axes.legend(frameon=False, loc="lower left")
    written(made, "idea-stencil")


def states(stage: Stage, method: str, steps: int, picture: Tensor, prompt: str) -> list[float]:
    """The distance, an rms, of the rerun from the inverted path at every level, noisy to clean: the last is that of the
    pictures."""
    how, condition = plan(method, steps), stage.condition(prompt)
    field, grid = CFG(1.0)(stage.denoiser, condition, stage.with_prompt(condition, None)), stage.schedule.grid(steps)
    with torch.no_grad():
        inverted = finish(how.inverter(how.rule, field, picture.double(), grid))
        start = how.inverter.first(how.rule)
        again = [state[0] for state in run(how.rule, field, inverted.state, grid, start)]
    return [float(rms(x - y)) for x, y in zip(inverted.path[-len(again) :], again, strict=True)]


def drift(stage: Stage, picture: Tensor, prompt: str) -> list[list[str]]:
    """DDIM inversion leaves its path on the way back: over the levels of a run, and over the number of steps."""
    made, (left, right) = figure(height=3.4, columns=2)
    rows = []
    for method, words in METHODS.items():
        apart, errors = [], []
        for steps in STEPS:
            apart = states(stage, method, steps, picture, prompt)
            errors.append(apart[-1])
            if steps == 20:
                levels, shown = range(steps + 1 - len(apart), steps + 1), [each or math.nan for each in apart]
                left.semilogy(levels, shown, marker=".", label=words)
        right.loglog(STEPS, errors, marker="o", label=words)
        rows.append([f"`{method}`", *(f"{error:.0e}" for error in errors)])
    left.set(xlabel="steps of the rerun, of 20", ylabel="distance from the inverted path, rms")
    right.axhline(1 / 255, color="0.7", lw=1)
    right.annotate(
        "half an 8-bit step", (STEPS[-1], 1 / 255), xytext=(0, -10), textcoords="offset points", ha="right", color="0.5"
    )
    right.set(xlabel="number of steps", ylabel="error of the reconstruction, rms")
    right.set_xticks(STEPS, [str(n) for n in STEPS])
    right.minorticks_off()
    left.legend(frameon=False, fontsize="small")
    written(made, "idea-drift")
    return rows


def residuals(stage: Stage, picture: Tensor, prompt: str) -> list[list[str]]:
    """The residual of IterInv's equation at one level, over the iterations of each root finder."""
    made, both = figure(height=3.4, columns=2)
    condition, rows = stage.condition(prompt), []
    for axes, scale in zip(both, (1.0, 4.0), strict=True):
        field = CFG(scale)(stage.denoiser, condition, stage.with_prompt(condition, None))
        grid = stage.schedule.grid(20)
        i = 10
        a, b = grid[i], grid[i + 1]
        with torch.no_grad():
            x = picture.double()
            for k in reversed(range(i + 1, len(grid) - 1)):  # DDIM inversion, up to the level in question
                x = move(x, field(x, grid[k]).eps, grid[k + 1], grid[k])
        factor = residual_scale(a, b)
        where = LevelInfo((len(grid) - 2 - i) / (len(grid) - 2), factor, a.t)

        def residual(u: Tensor, x: Tensor = x, a: Level = a, b: Level = b, factor: float = factor) -> Tensor:
            return factor * (DDIM().step_to(field, u, a, b)[0] - x)  # noqa: B023

        for name, finder in FINDERS.items():
            errors = []
            for n in ITERATIONS:
                with torch.no_grad():
                    root = x if n == 0 else finder(n)(residual, x, where).value
                    errors.append(float(rms(residual(root))))
            axes.semilogy(ITERATIONS, errors, marker=".", label=name)
            rows.append([name, f"{scale:g}", *(f"{errors[ITERATIONS.index(n)]:.0e}" for n in (1, 5, 21))])
        axes.set(xlabel="iterations", ylabel="residual, rms", title=f"guidance {scale:g}")
    both[0].legend(frameon=False, fontsize="small")
    written(made, "idea-residual")
    return rows


def main() -> None:
    began = time.time()
    torch.manual_seed(0)
    mpl.rcParams.update({"font.size": 9, "axes.linewidth": 0.8})
    IMAGES.mkdir(parents=True, exist_ok=True)
    cascade = load()
    picture, prompt = shipped()["red-sphere"]
    stages = one_picture(cascade, picture, prompt)
    first = cascade.stages[0]
    small = images.resize(images.from_uint8(picture), first.extent)
    stencil()
    errors, shrinking = drift(first, small, prompt), residuals(first, small, prompt)
    for prefix in ("one", "idea"):
        sizes = [file.stat().st_size for file in IMAGES.glob(f"{prefix}-*.webp")]
        if sum(sizes) > MOST:
            raise SystemExit(f"the pictures {prefix}-*.webp take {sum(sizes)} bytes, and {MOST} are allowed")
    body = f"""
`examples/red-sphere.png` on the embedded cascade, 20 steps, no guidance. The pages [iterinv](../index.md) and [How it
works](../how-it-works.md) show these as pictures.

## One picture

The noise that `bdia` inverts the picture to at each stage, as mean ± standard deviation, and the part of the stage's
picture that comes back.

{table(["stage", "noise", "comes back"], stages)}

## The error of a reconstruction over the number of steps

Stage {first.name}. The rms of the reconstruction's error in [-1, 1]; half an 8-bit step is {1 / 255:.0e}.

{table(["method", *(f"{n} steps" for n in STEPS)], errors)}

![the distance from the inverted path, and the error over the number of steps](../images/idea-drift.webp)

## The residual of one step

Stage {first.name}, the step from level 10 of 20. The rms of the residual that each root finder leaves.

{table(["root finder", "guidance", "1 iteration", "5", "21"], shrinking)}

![the residual over iterations](../images/idea-residual.webp)
"""
    publish("pictures", "The papers' ideas, measured", body, began)


if __name__ == "__main__":
    main()

"""PSNR of super-resolution from true low-resolution pictures, by each stage of the embedded cascade and by a spline.

Edits and samples get their low-resolution picture from the stage below, and can hardly be better.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch.nn import functional as F

from common import OUT, publish, table
from iterinv.cascade import load
from iterinv.edits.regions import grown
from iterinv.edits.site import start_index
from iterinv.embedded.scenes import Scene, caption, render
from iterinv.embedded.seeds import HELD_OUT
from iterinv.guidance import CFG
from iterinv.images import contact_sheet, resize, to_uint8
from iterinv.metrics import psnr
from iterinv.models import Stage
from iterinv.steps import DDIM
from iterinv.steps.run import run
from iterinv.streams import draw_noise

COUNT, STEPS, SHARE = 20, 10, 0.8
EDGE = 0.05
"""The least error of the spline, in [-1, 1], at a pixel that counts as an edge."""


@torch.no_grad()
def drawn(stage: Stage, low: torch.Tensor, prompt: str, seed: int) -> torch.Tensor:
    """Draw a picture (1, 3, h, w) in [-1, 1] by a stage, from the enlarged ``low`` under fresh noise, as samples and
    edits begin there."""
    noise = [draw_noise(stage.shape, [seed], name).double() for name in ("sample", "low noise")]
    condition = stage.condition(prompt, low, noise[1].float())
    field = CFG(1.0)(stage.denoiser, condition, stage.with_prompt(condition, None))
    grid = stage.schedule.grid(STEPS)
    start = start_index(grid, SHARE)
    x = grid[start].alpha * stage.enlarged(condition["low_image"]) + grid[start].sigma * noise[0]
    *_, (x, *_) = run(DDIM(), field, DDIM().init(x), grid, start)
    return x.float().clamp(-1, 1)


def main() -> None:
    began, cascade, rows = time.time(), load(), []
    for below, stage in zip(cascade.stages, cascade.stages[1:], strict=False):
        figures, shown = [], []
        for k in range(COUNT):
            scene = Scene.random(HELD_OUT + k)
            large = render(scene, cascade.size)[None]
            low, truth = resize(large, below.extent), resize(large, stage.extent)
            cubic = F.interpolate(low, stage.extent, mode="bicubic").clamp(-1, 1)
            made = drawn(stage, low, caption(scene), k)
            off = ((truth - cubic).abs().amax(1, keepdim=True) >= EDGE).float()
            edges = grown(off, 2)[0, 0].numpy() > 0
            everywhere = np.ones_like(edges)
            true8, *others = (to_uint8(x) for x in (truth, cubic, made))
            figures.append([psnr(true8, x, where) or np.nan for where in (edges, everywhere) for x in others])
            shown += [to_uint8(x) for x in (cubic, made, truth)]
            print(stage.name, k, [round(each, 1) for each in figures[-1]], flush=True)
        means = [f"{each:.1f}" for each in np.nanmean(figures, 0)]
        rows.append([stage.name, f"{below.size} → {stage.size} px", *means])
    contact_sheet(shown[:24], 6).save(OUT / "enlarging.png")
    columns = ["stage", "size", "edges: cubic", "edges: drawn", "all: cubic", "all: drawn"]
    body = f"""
Each stage draws {COUNT} held-out scenes from the true picture below: DDIM in {STEPS} steps, from the enlarged picture
under fresh noise of {SHARE:g} of the levels, as samples and edits begin. PSNR to the true picture in dB, means, beside
enlarging by a cubic spline: at *edges*, which are where the spline is off by {EDGE * 127.5:.0f} 8-bit steps or more and
2 px around, and over *all*.

{table(columns, rows)}

Stage {cascade.stages[-1].name}: spline, drawn, truth; two scenes a row.

![drawn](enlarging.png)
"""
    publish("enlarging", "Drawn from a true picture below", body, began)


if __name__ == "__main__":
    main()

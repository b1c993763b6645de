"""A network that another project trained: samples, exactness, terminal noise, and what it knows of each noise level.

It needs the extra `foreign`, which `make bench` does without.
"""

from __future__ import annotations

import io
import math
import time

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from terrain_diffusion import TerrainGenerator
from torch import Tensor

from common import OUT, photographs, publish, square, table
from iterinv.cascade import Cascade, load
from iterinv.images import to_uint8
from iterinv.inversion import Inversion
from iterinv.levels import Level
from iterinv.methods import plan
from iterinv.metrics import terminal_noise

SIGMAS = (0.002, 0.02, 0.1, 0.5, 2.0, 10.0, 80.0)
STEPS = (2, 3, 10, 20)
DIFFICULTIES = (1, 25, 50, 75, 100)
PROMPTS = [f"difficulty={(k - 1) / 99}" for k in DIFFICULTIES]


def agreement(cascade: Cascade) -> float:
    """The largest difference, relative to the tallest height, from what its own package draws of the same noise."""
    own, (stage,) = TerrainGenerator(device="cpu"), cascade.stages
    share, level, worst = math.asinh(own.height_range / own.asinh_scale), stage.schedule.grid(2)[0], 0.0
    for seed, (difficulty, prompt) in enumerate(zip(DIFFICULTIES, PROMPTS, strict=True)):
        noise = np.random.default_rng(seed).standard_normal((1, 1, 128, 128), dtype=np.float32)
        heights = own.generate(1, shape=128, difficulty=difficulty, seed=seed, zero_floor=False)
        x0 = stage.denoiser(torch.from_numpy(np.float32(80) * noise), level, stage.condition(prompt)).x0[0].numpy()
        made = own.asinh_scale * np.sinh(np.clip((x0 + 1) / 2, 0, 1) * share)
        worst = max(worst, float(np.abs(made - heights).max() / heights.max()))
    return worst


def inverted(
    cascade: Cascade, picture: np.ndarray, prompt: str, method: str, steps: int
) -> tuple[list[str], Inversion]:
    """A row of the table of inversions."""
    start = time.process_time()
    found = cascade.invert(picture, prompt, plan(method, steps))
    seconds = time.process_time() - start
    again = (cascade.rerun(found).images[0], found.images[0])
    exact = all((np.asarray(each) == picture).all() for each in again)
    noise = terminal_noise(found.noise / found.noise_level.noise_scale)
    told = [f"{noise[name]:.2f}" for name in ("mean", "std", "kurtosis", "autocorrelation")]
    calls = found.stages[0].report.forward
    return [method, str(steps), "yes" if exact else "no", str(calls), f"{seconds:.1f}", *told], found


def denoised(cascade: Cascade, drawn: Tensor) -> list[list[str]]:
    """Measure the rms error of the clean data that the network predicts from data under noise, at every level."""
    (stage,), rows = cascade.stages, []
    x = stage.encode(drawn)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    for sigma in SIGMAS:
        found = stage.denoiser(x + sigma * noise, Level(sigma, 1.0, sigma), stage.condition(PROMPTS)).x0
        rows.append([f"{sigma:g}", f"{float((found - x).square().mean().sqrt()):.4f}"])
    return rows


def draw(drawn: Tensor, more: Tensor, height_map: np.ndarray, found: Inversion) -> None:
    """The picture: samples of each difficulty, the same in more steps, and an inverted height map."""
    figure = Figure(figsize=(8.2, 5.4), layout="constrained")
    cells = figure.subplots(3, 5)
    grey = height_map[..., 0] / 127.5 - 1
    back = np.asarray(found.images[0])[..., 0] / 127.5 - 1
    noise = (found.noise / found.noise_level.noise_scale)[0, 0].numpy()
    heights, signed = ("gist_earth", -1.0, 0.6), ("RdBu", -3.0, 3.0)
    shown = [(f"difficulty {k}", x[0].numpy(), heights) for k, x in zip(DIFFICULTIES, drawn, strict=True)]
    shown += [("in 10 steps", x[0].numpy(), heights) for x in more]
    shown += [("height map", grey, heights), (f"its noise in {STEPS[-1]} steps", noise, signed)]
    shown += [("reconstruction", back, heights), ("difference", back - grey, signed)]
    for axes in cells.flat:
        axes.axis("off")
    for axes, (name, values, (colours, low, high)) in zip(cells.flat, shown, strict=False):
        axes.imshow(values, cmap=colours, vmin=low, vmax=high)
        axes.set_title(name, fontsize=8)
    figure.savefig(stream := io.BytesIO(), dpi=80)
    Image.open(stream).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(OUT / "foreign.png", optimize=True)


@torch.no_grad()
def main() -> None:
    began, cascade = time.time(), load("terrain")
    (drawn,) = cascade.sample(PROMPTS)
    (more,) = cascade.sample(PROMPTS, 10)
    worst = agreement(cascade)
    pictures = {
        "a height map that it drew, difficulty 75": to_uint8(drawn[3:4]),
        "a photograph in colour, difficulty 75": to_uint8(square(photographs()["astronaut"][0], 128).covered()),
    }
    tables: list[str] = []
    for title, picture in pictures.items():
        rows = []
        for method in ("ddim", "bdia", "bdia-heun", "bdia-fixed"):
            for steps in STEPS:
                row, found = inverted(cascade, picture, PROMPTS[3], method, steps)
                rows.append(row)
                print(*row, flush=True)
        if not tables:
            draw(drawn, more, picture, found)
        columns = ("method", "steps", "every pixel", "calls", "seconds", "mean", "std", "kurtosis", "autocorrelation")
        tables.append(f"## Inverted: {title}\n\n{table(columns, rows)}")
    spread = float(drawn[:, :1].std((1, 2, 3)).mean())
    body = f"""
`--model terrain` is the network of the package
[adaptive-terrain-diffusion](https://github.com/youwyu/Adaptive-Diffusion-Terrain) 0.4.2 (MIT licence), which nobody
here trained: height maps of 128 px in one channel, conditioned on a difficulty from 1 to 100, in an ONNX file of
EDM's contract. Of the same noise and difficulty its clean data differs from the heights that the package itself makes
by {worst:.0e} of the tallest at most ({len(DIFFICULTIES)} height maps).

![samples, samples in more steps, an inverted height map](foreign.png)

*First row*: samples of every difficulty from one noise each. *Second*: the same noise in 10 steps of DDIM. *Third*: a
height map in 8 bits, the noise that `bdia-fixed` inverts it to in 20 steps (blue is up, white is 0, the ends are 3 of
its unit), its reconstruction and the difference of the two.

The network was distilled to draw in one step, and it is good for that step alone: in more steps noise stays in the
picture. The last table says why. What EDM's sampler asks of a network is the mean of all clean data that a sample may
come of. At a noise of 0.5 that is nearer to a height map than the average of its own heights, which the sample shows
to within 0.004. This network is further from it, and leaves much of the noise in; at 80 it answers with a picture of
its own. For the same reason the noise that an inversion ends in is not a sampler's (mean 0, std 1, kurtosis 3,
autocorrelation 0), and edits between difficulties come to nothing. That every pixel comes back depends on none of
this: BDIA undoes its steps whatever the network predicts, as long as it predicts the same twice.

{(chr(10) * 2).join(tables)}

*Every pixel*: the 8-bit picture is that of the inversion, and of a rerun of it. *Calls* of the network invert and
reconstruct once, in *seconds* of the processor. Noise is in units of that from which sampling starts. The network
sees the grey of the photograph; its colour is kept beside the states.

## Clean data of height maps under noise

{table(("noise", "distance to clean data"), denoised(cascade, drawn))}

Distances are rms; that of a height map from its own average is {spread:.3f}.
"""
    publish("foreign", "A network trained by others", body, began, ())


if __name__ == "__main__":
    main()

"""Networks of the published sizes, with random weights: seconds a call, memory, precisions, compiling; and inverting by
them.

`python benchmarks/full_size.py [cuda|cpu] [NAME …]`. Without a GPU it takes minutes a call at the larger stages.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from common import publish, table
from iterinv import schedules
from iterinv.conditions import Condition
from iterinv.families import PUBLISHED
from iterinv.manifest import peak_memory
from iterinv.methods import plan
from iterinv.models import Stage
from iterinv.models.unet import UNetDenoiser, labelled
from iterinv.plans import Plan
from iterinv.stage_inversion import invert_stage
from iterinv.streams import draw_noise

X4 = "stabilityai/stable-diffusion-x4-upscaler"
NAMES = ("DeepFloyd/IF-I-M-v1.0", "DeepFloyd/IF-II-M-v1.0", X4)
STEPS, LEVELS, CALLS = 50, 2, 5
"""Steps of the inversions; levels at the noisy end that the published loop is timed on; calls that a median is of."""


class Latents:
    """Stands for an autoencoder, which is not what is timed: its latents are the picture's pixels, one in four of each
    way."""

    channels, factor = 4, 4

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        small = picture[..., :: self.factor, :: self.factor]
        return torch.cat([small, small[:, :1]], 1)

    def decode(self, state: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(state[:, :3], scale_factor=self.factor)


def stage(name: str, dtype: torch.dtype, device: str, compiled: bool = False) -> Stage:
    """A published network as a stage of the size that it works at in DeepFloyd's cascade."""
    made = PUBLISHED[name]
    network = made.network().to(device, dtype, memory_format=torch.channels_last)
    config = network.config
    width = config.encoder_hid_dim or config.cross_attention_dim
    noise = schedules.from_config(made.schedule)

    def embed(prompts: Sequence[str | None]) -> Condition:
        return Condition(
            {"text": draw_noise((77, width), [len(prompt or "") for prompt in prompts], "text").to(device)}
        )

    low = noise.level(20) if labelled(config) else None
    denoiser = UNetDenoiser(Called(network, torch.compile(network)) if compiled else network, low_level=low)
    size, codec = (1024, Latents()) if name == X4 else (config.sample_size, None)
    return Stage("", size, denoiser, noise, embed, "", low, device, codec)


class Called:
    """A compiled network with the attributes of the bare one."""

    def __init__(self, network: Any, compiled: Any) -> None:
        self.dtype, self._compiled = network.dtype, compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)


def seconds(run: Callable[[], Any], times: int = CALLS) -> float:
    """The median of several runs after one that is not counted."""
    run()
    durations = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - began)
    return statistics.median(durations)


def one_call(where: Stage) -> tuple[float, float]:
    """Seconds and MB of a call."""
    x = draw_noise(where.shape, [0], "state").to(where.device)
    below = torch.zeros(1, 3, where.size // 4, where.size // 4)
    condition, level = where.condition("words", below), where.schedule.grid(2)[0]
    with torch.no_grad(), peak_memory() as peak:
        took = seconds(lambda: where.denoiser(x, level, condition))
    return took, peak()


def inverted(where: Stage, how: Plan) -> tuple[float, float]:
    """Seconds and MB of inverting and reconstructing a picture."""
    below = torch.zeros(1, 3, where.size // 4, where.size // 4)
    picture = draw_noise((3, where.size, where.size), [1], "picture").clamp(-1, 1)
    with torch.no_grad(), peak_memory() as peak:
        began = time.perf_counter()
        invert_stage(where, how, where.condition("words", below), picture)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took = time.perf_counter() - began
    return took, peak()


def main(device: str, names: tuple[str, ...]) -> None:
    began, calls, loops = time.time(), [], []
    for name in names:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for compiled in (False, True) if device == "cuda" else (False,):
                where = stage(name, dtype, device, compiled)
                took, memory = one_call(where)
                calls.append([name.split("/")[1], where.size, str(dtype)[6:], compiled, f"{took:.3f}", f"{memory:.0f}"])
                print(*calls[-1], flush=True)
        where = stage(name, torch.float32 if device == "cpu" else torch.float16, device)
        bdia, memory = inverted(where, plan("bdia", STEPS))
        few = replace(plan("iterinv", STEPS), steps=LEVELS)
        loop, loop_memory = inverted(where, few)
        whole = loop / LEVELS * STEPS
        sizes = f"{memory:.0f}", f"{whole:.0f}", f"{loop_memory:.0f}"
        loops.append([name.split("/")[1], where.size, f"{bdia:.1f}", *sizes, f"{whole / bdia:.0f}"])
        print(*loops[-1], flush=True)
    place = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    body = f"""
Networks of the published configurations with random weights, on {place}. A call of one picture, the median of {CALLS}:

{table(["network", "px", "precision", "compiled", "s", "MB"], calls)}

Inverting and reconstructing a picture in {STEPS} steps without guidance: by `bdia`, and by the published recipe's loop
(`iterinv`), which was timed on {LEVELS} levels and multiplied by {STEPS // LEVELS}.

{table(["network", "px", "bdia, s", "MB", "iterinv, s", "MB", "times"], loops)}
"""
    publish("full-size", "Networks of the published sizes", body, began, ())


if __name__ == "__main__":
    chosen = sys.argv[1] if sys.argv[1:] else "cuda"
    if chosen == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that torch sees: nothing was measured. `python benchmarks/full_size.py cpu` runs here, slowly")
    main(chosen, tuple(sys.argv[2:]) or NAMES)

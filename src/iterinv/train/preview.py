"""Pictures of what a stage can do so far, from scenes it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from iterinv.models import Condition, Low, draw, guide
from iterinv.models.unet import UNetDenoiser
from iterinv.scenes import Scene, caption, render
from iterinv.schedule import Schedule
from iterinv.steps import DDIM
from iterinv.steps.run import run
from iterinv.train.data import HELD_OUT, to_uint8


class Preview:
    """``preview(network)`` is a contact sheet. Stage I: samples of 16 captions. Above it: low, sample and truth of 4 scenes."""

    def __init__(
        self, recipe: Mapping[str, Any], stage: Mapping[str, Any], schedule: Schedule, embed: Callable[[list[str]], Tensor]
    ) -> None:
        self.size, self.low, self.schedule = stage["size"], stage.get("low"), schedule
        self.scenes = [Scene.random(HELD_OUT + k) for k in range(4 if self.low else 16)]
        words = [caption(scene) for scene in self.scenes]
        text, null = embed(words), embed([""])
        self.guidance, self.noise_level = (1.0 if self.low else 3.0), recipe["noise_level"]
        low = None
        if self.low:
            self.truth = torch.stack([render(scene, 256) for scene in self.scenes])
            self.truth = F.interpolate(self.truth, (self.size, self.size), mode="area")
            small = F.interpolate(self.truth, (self.low, self.low), mode="area")
            low = Low(small, draw(self.truth.shape, 1), schedule.level(self.noise_level))
        self.condition = Condition(text, null, low)

    @torch.no_grad()
    def __call__(self, network: Any) -> Image.Image:
        device = next(network.parameters()).device
        text, null, low = self.condition.text.to(device), self.condition.null.to(device), self.condition.low
        if low is not None:
            low = Low(low.image.to(device), low.noise.to(device), low.level)
        eps = guide(UNetDenoiser(network), Condition(text, null, low), self.guidance)
        grid = self.schedule.grid(25)
        shape = (len(self.scenes), 3, self.size, self.size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        *_, (x,) = run(DDIM(), eps, (noise,), grid)
        x = x.cpu()
        if low is None:
            return _sheet(list(x), 8, 3)
        small = F.interpolate(low.image.cpu(), (self.size, self.size), mode="nearest")
        return _sheet([*small, *x, *self.truth], len(self.scenes), 256 // self.size)


def _sheet(pictures: list[Tensor], columns: int, zoom: int) -> Image.Image:
    size = pictures[0].shape[-1] * zoom
    sheet = Image.new("RGB", (columns * size, -(-len(pictures) // columns) * size))
    for k, x in enumerate(pictures):
        picture = Image.fromarray(to_uint8(x)).resize((size, size), Image.Resampling.NEAREST)
        sheet.paste(picture, (k % columns * size, k // columns * size))
    return sheet

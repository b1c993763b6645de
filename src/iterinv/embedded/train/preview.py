"""Previews of a stage during training, from scenes outside the training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from iterinv.conditions import Condition
from iterinv.embedded.scenes import Scene, caption, render
from iterinv.embedded.seeds import HELD_OUT
from iterinv.embedded.train.data import to_uint8
from iterinv.guidance import CFG
from iterinv.images import contact_sheet
from iterinv.models import Embed
from iterinv.models.unet import UNetDenoiser
from iterinv.schedules import Schedule
from iterinv.steps import DDIM
from iterinv.steps.run import run
from iterinv.streams import draw_noise


class Preview:
    """``preview(network)`` is a contact sheet. Stage I: samples of 16 captions. Above it: low, sample and truth of 4
    scenes."""

    def __init__(self, recipe: Mapping[str, Any], stage: Mapping[str, Any], schedule: Schedule, embed: Embed) -> None:
        self.size, self.low, self.schedule = stage["size"], stage.get("low"), schedule
        self.prediction = stage["prediction"]
        self.scenes = [Scene.random(HELD_OUT + k) for k in range(4 if self.low else 16)]
        words = [caption(scene) for scene in self.scenes]
        low: dict[str, Tensor] = {}
        self.guidance = CFG(1.0 if self.low else 3.0)
        self.low_level = schedule.level(recipe["noise_level"]) if self.low else None
        if self.low:
            self.truth = torch.stack([render(scene, 256) for scene in self.scenes])
            self.truth = F.interpolate(self.truth, (self.size, self.size), mode="area")
            small = F.interpolate(self.truth, (self.low, self.low), mode="area")
            low = {"low_image": small, "low_noise": draw_noise(self.truth.shape[1:], [1] * len(self.truth), "preview")}
        self.conditions = [Condition({**embed(prompts), **low}) for prompts in (words, [""])]

    @torch.no_grad()
    def __call__(self, network: Any) -> Image.Image:
        device = next(network.parameters()).device
        positive, negative = (Condition({name: x.to(device) for name, x in each.items()}) for each in self.conditions)
        field = self.guidance(UNetDenoiser(network, self.prediction, self.low_level), positive, negative)
        grid = self.schedule.grid(25)
        shape = (len(self.scenes), 3, self.size, self.size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        *_, (x,) = run(DDIM(), field, (noise,), grid)
        x = x.cpu()
        if self.low_level is None:
            return contact_sheet([to_uint8(each) for each in x], 8, 3 * self.size)
        small = F.interpolate(positive["low_image"].cpu(), (self.size, self.size), mode="nearest")
        return contact_sheet([to_uint8(each) for each in (*small, *x, *self.truth)], len(self.scenes), 256)

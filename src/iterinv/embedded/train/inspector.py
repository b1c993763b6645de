"""Training of the inspector: pictures from pairs of renders of one scene before and after a change, some left clean,
some broken as edits break them, with the cells where they are."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.embedded.inspector import CELLS, SIZE, Inspector
from iterinv.embedded.inspector import load as read_weights
from iterinv.embedded.scenes import FLOORS, OF_THING, WALLS, Scene, render
from iterinv.embedded.train import data
from iterinv.embedded.train.progress import Clock
from iterinv.embedded.train.stage import blurred
from iterinv.evaluate.folder import read_array

FAULTS = ("mixed", "ghost", "torn", "blurred")
CLEAN = 0.4
"""Share of the pictures that are left clean."""

AROUND = 0.8
"""Share of the crops of broken pictures that hold a broken cell by choice."""

CELL = SIZE // CELLS
"""Pixels a side of a cell."""

DIFFERS = 0.12
"""Two pictures in [-1, 1] differ at a pixel whose channels differ by more than this in the mean."""


def changed(scene: Scene, seed: int) -> Scene:
    """A scene with one thing changed: an attribute of a thing or of the room, or a thing gone."""
    r = random.Random(f"iterinv changed {seed}")
    room: dict[str, Any] = {"floor": r.choice(FLOORS), "wall": r.choice(list(WALLS))}
    if not scene.things or r.random() < 0.25:
        name = r.choice(("floor", "floor", "wall"))
        return replace(scene, **{name: room[name]})
    k = r.randrange(len(scene.things))
    if r.random() < 0.35:
        return replace(scene, things=scene.things[:k] + scene.things[k + 1 :])
    name = r.choice(("shape", "shape", "size", "color", "material"))  # new shapes break most edits
    return scene.with_(k, **{name: r.choice(OF_THING[name])})


def _draw(seed: int) -> np.ndarray:
    return data.to_uint8(render(changed(data.scene(seed), seed), SIZE))


def variants(folder: Path, count: int) -> np.ndarray:
    """Return renders (count, 256, 256, 3) uint8 of the scenes of ``count`` seeds, each with one thing changed."""
    path = folder / f"changed-{SIZE}-{count}.npy"
    if read_array(path, count, (SIZE, SIZE, 3)) is None:
        data.rendered(path, _draw, range(count), SIZE, f"rendering {count} changed scenes")
    return np.load(path, mmap_mode="r")


def smooth_noise(wave: int, rng: np.random.Generator) -> Tensor:
    """A smooth random field (1, 256, 256) with a standard deviation of about 1, from values ``wave`` pixels apart."""
    n = SIZE // wave + 1
    coarse = torch.from_numpy(rng.standard_normal((1, 1, n, n), np.float32))
    return F.interpolate(coarse, (SIZE, SIZE), mode="bicubic", align_corners=True)[0]


def bent(x: Tensor, amount: float, rng: np.random.Generator, wave: int) -> Tensor:
    """Pictures (batch, 3, n, n) under a smooth random displacement with a standard deviation of ``amount``
    pixels, of values ``wave`` pixels apart."""
    b, _, n, _ = x.shape
    coarse = torch.from_numpy(rng.standard_normal((b, 2, n // wave, n // wave), np.float32)) * (2 * amount / n)
    shift = F.interpolate(coarse, (n, n), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    grid = F.affine_grid(torch.eye(2, 3).expand(b, 2, 3), [b, 3, n, n], align_corners=False)
    return F.grid_sample(x, grid + shift, mode="bicubic", padding_mode="border", align_corners=False).clamp(-1, 1)


def _cells(differs: Tensor) -> Tensor:
    """The cells (32, 32) with at least four pixels that differ, of (256, 256)."""
    return F.avg_pool2d(differs.float()[None], CELL)[0] * CELL**2 >= 4


def _near(cells: Tensor) -> Tensor:
    return F.max_pool2d(cells.float()[None], 3, 1, 1)[0] > 0


def _differs(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().mean(0) > DIFFERS


def broken(a: Tensor, b: Tensor, fault: str, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Break a picture (3, 256, 256); ``b`` is the same scene with one thing changed. Returns the picture, and its
    broken cells (32, 32) bool.

    ``mixed``: pieces of ``b`` with a ragged outline. ``ghost``: the two drawn over each other. ``torn``: outlines that
    wobble. ``blurred``: a smear. The last two spare a random part of the picture.
    """
    part = smooth_noise(64, rng) > rng.uniform(-1, 0.7)
    if fault == "mixed":
        edge = rng.uniform(2, 30)
        share = (edge * (smooth_noise(int(rng.choice([8, 16, 32, 64])), rng) + rng.uniform(-1, 1))).sigmoid()
        x = share * a + (1 - share) * b
        return x, _near(_cells(_differs(x, a))) & _near(_cells(_differs(x, b)))
    if fault == "ghost":
        x = torch.lerp(a, b, float(rng.uniform(0.25, 0.75)))
        if rng.random() < 0.5:  # only what is finer than a few pixels, as an inverted state keeps it
            sigma = float(rng.uniform(2, 6))
            x = a + (b - a - blurred(b - a, sigma)) * float(rng.uniform(0.4, 1.0))
        structure = (a - b - (a - b).mean((1, 2), keepdim=True)).abs().mean(0) > DIFFERS
        return x, _cells(_differs(x, a) & _differs(x, b) & structure)
    if fault == "torn":
        torn = bent(a[None], float(rng.uniform(1, 4)), rng, wave=int(rng.choice([8, 16, 32])))[0]
        x = torch.where(part, torn, a)
        return x, _cells(_differs(x, a)) & _near(_cells(_differs(x, a)))
    x = torch.where(part, blurred(a, float(rng.uniform(2, 6))), a)
    return x, _cells(_differs(x, a))


def drawn_as_by_networks(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures (batch, 3, 256, 256) with what a network's good picture has: outlines off by a fraction of a pixel,
    grain, a little softness, another tone."""
    b = len(x)
    x = bent(x, 0.5, rng, wave=16) if rng.random() < 0.5 else x
    soft = F.interpolate(F.avg_pool2d(x, 2), (SIZE, SIZE), mode="bilinear", align_corners=False)
    share = torch.from_numpy(rng.random((b, 1, 1, 1), np.float32)) * 0.7
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32) * 0.02 * rng.random((b, 1, 1, 1), np.float32))
    gain = 1 + 0.03 * torch.from_numpy(rng.standard_normal((b, 1, 1, 1), np.float32))
    return ((torch.lerp(x, soft, share) + noise + 1) * gain - 1).clamp(-1, 1)


class Examples:
    """Draws pictures to inspect, with their broken cells."""

    def __init__(self, cache: Path, count: int, large: int, seed: int) -> None:
        self.before, self.after = data.scenes(cache, SIZE, large)[:count], variants(cache, count)
        self.rng = np.random.default_rng(seed)

    def draw(self, batch: int, crop: int = SIZE) -> tuple[Tensor, Tensor]:
        """``batch`` pictures (batch, 3, crop, crop), and their broken cells (batch, crop / 8, crop / 8) as 0 or 1. A
        crop lies anywhere, or around a broken cell."""
        pictures, cells = [], []
        for _ in range(batch):
            k = int(self.rng.integers(len(self.after)))
            pair = [
                torch.from_numpy(x[k].copy()).permute(2, 0, 1).float() / 127.5 - 1 for x in (self.before, self.after)
            ]
            a, b = pair if self.rng.random() < 0.5 else pair[::-1]
            if self.rng.random() < CLEAN:
                x, here = a, torch.zeros(CELLS, CELLS, dtype=torch.bool)
            else:
                x, here = broken(a, b, str(self.rng.choice(FAULTS)), self.rng)
            if self.rng.random() < 0.5:
                x, here = x.flip(-1), here.flip(-1)
            pictures.append(x)
            cells.append(here)
        x, here, n = drawn_as_by_networks(torch.stack(pictures), self.rng), torch.stack(cells).float(), crop // CELL
        cuts = [self._cut(each, n) for each in here]
        return (
            torch.stack([y[:, i * CELL :, j * CELL :][:, :crop, :crop] for y, (i, j) in zip(x, cuts, strict=True)]),
            torch.stack([y[i : i + n, j : j + n] for y, (i, j) in zip(here, cuts, strict=True)]),
        )

    def _cut(self, cells: Tensor, n: int) -> tuple[int, int]:
        """The first row and column of ``n`` by ``n`` of the cells (32, 32)."""
        i, j = self.rng.integers(CELLS - n + 1, size=2)
        if bool(cells.any()) and self.rng.random() < AROUND:
            places = cells.nonzero()
            i, j = (places[self.rng.integers(len(places))].numpy() - self.rng.integers(n, size=2)).clip(0, CELLS - n)
        return int(i), int(j)


def train_inspector(recipe: Mapping[str, Any], cache: Path, clock: Clock, weights: Path | None = None) -> Inspector:
    """An inspector trained until the clock stops, from the file ``weights`` if it is given; its weights are averaged
    over the steps."""
    from diffusers.training_utils import EMAModel

    settings = recipe["inspector"]
    torch.manual_seed(recipe["seed"])
    examples = Examples(cache, settings["count"], recipe["data"]["large"]["count"], recipe["seed"])
    network = Inspector() if weights is None else read_weights(weights).requires_grad_(True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    average = EMAModel(network.parameters(), decay=recipe["ema"], use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    right = hit = 0.0
    for step in clock:
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(recipe["warmup"])
        x, cells = examples.draw(settings["batch"], settings["crop"])
        scores = network(x.contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(scores, cells, pos_weight=torch.tensor(2.0))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe["clip_grad"])
        optimizer.step()
        average.step(network.parameters())
        of_broken = (scores[cells == 1] > 0).float().mean().nan_to_num(1.0).item()
        of_clean = (scores[cells == 0] < 0).float().mean().item()
        right, hit = 0.95 * right + 0.05 * of_clean, 0.95 * hit + 0.05 * of_broken
        clock.say(step, loss=loss.item(), clean=right, broken=hit)
    average.copy_to(network.parameters())
    return network.eval()

"""Training of the reader: cross entropy on rendered scenes, with the faults that a generated picture may have.

Pictures are mirrored (left and right change places in the answers), and some are blurred, noised or a little brighter
or darker, so that a sample that is not quite the renderer's is still read by what it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.embedded.reader import QUESTIONS, SIZE, Reader, answers
from iterinv.embedded.reader import load as read_weights
from iterinv.embedded.train import data
from iterinv.embedded.train.progress import Clock


def mirrored(right: Tensor) -> Tensor:
    """The answers (batch, questions) about the mirrored pictures: two things change places, and left and
    right."""
    names, things = list(QUESTIONS), {"0": "1", "1": "0"}
    two = right[:, :1] == 2
    swapped = right[:, [names.index(things.get(name[0], name[0]) + name[1:]) for name in names]]
    changed = torch.where(two, swapped, right)
    for name in ("light", "side"):
        k, answer = names.index(name), QUESTIONS[name]
        there = torch.tensor(
            [*(answer.index({"left": "right", "right": "left"}.get(each, each)) for each in answer), -1]
        )
        changed[:, k] = there[changed[:, k]]
    return changed


def spoiled(x: Tensor, rng: torch.Generator) -> Tensor:
    """Pictures (batch, 3, n, n) as a network might draw them: some blurred, some noised, all a little brighter or
    darker."""
    blurred = F.interpolate(F.avg_pool2d(x, 2), x.shape[-1], mode="bilinear", align_corners=False)
    share = torch.rand((len(x), 1, 1, 1), generator=rng) * (torch.rand((len(x), 1, 1, 1), generator=rng) < 0.4)
    noise = 0.08 * torch.rand((len(x), 1, 1, 1), generator=rng) * torch.randn(x.shape, generator=rng)
    gain = 1 + 0.04 * torch.randn((len(x), 1, 1, 1), generator=rng)
    return (((1 - share) * x + share * blurred + noise + 1) * gain - 1).clamp(-1, 1)


def train_reader(recipe: Mapping[str, Any], cache: Path, clock: Clock, weights: Path | None = None) -> Reader:
    """A reader trained until the clock stops, from the file ``weights`` if it is given; its weights are averaged over
    the steps."""
    from diffusers.training_utils import EMAModel

    settings = recipe["reader"]
    torch.manual_seed(recipe["seed"])
    rng, draw = torch.Generator().manual_seed(recipe["seed"]), np.random.default_rng(recipe["seed"])
    pictures = data.scenes(cache, SIZE, settings["count"])
    right = torch.tensor([answers(data.scene(seed)) for seed in range(len(pictures))])
    network = Reader() if weights is None else read_weights(weights).requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    average = EMAModel(network.parameters(), decay=recipe["ema"], use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    for step in clock:
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(recipe["warmup"])
        chosen = draw.integers(len(pictures), size=settings["batch"])
        x = torch.from_numpy(pictures[np.sort(chosen)]).permute(0, 3, 1, 2).float() / 127.5 - 1
        true = right[np.sort(chosen)]
        flip = torch.rand(len(x), generator=rng) < 0.5
        x = torch.where(flip[:, None, None, None], x.flip(-1), x)
        true = torch.where(flip[:, None], mirrored(true), true)
        scores = network(spoiled(x, rng))
        losses = [
            F.cross_entropy(each, true[:, k], ignore_index=-1, label_smoothing=0.02) for k, each in enumerate(scores)
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe["clip_grad"])
        optimizer.step()
        average.step(network.parameters())
        hit = torch.stack(
            [(each.argmax(1) == true[:, k])[true[:, k] >= 0].float().mean() for k, each in enumerate(scores)]
        )
        clock.say(step, loss=loss.item(), right=hit.nanmean().item(), worst=hit.nan_to_num(1.0).min().item())
    average.copy_to(network.parameters())
    return network.eval()

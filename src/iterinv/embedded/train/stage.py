"""Training one stage: noise or velocity prediction with a learned variance, as improved DDPM (Nichol & Dhariwal 2021)
and IF do."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.filters import gaussian
from torch import Tensor
from torch.nn import functional as F

from iterinv import images
from iterinv.embedded.scenes import TEMPLATES, caption
from iterinv.embedded.train import data
from iterinv.embedded.train.progress import Clock
from iterinv.schedules import Schedule

Example = tuple[Tensor, "Tensor | None", list[str]]  # clean target, enlarged low-resolution picture, captions


class Batches:
    """Draws training examples of a stage: whole scenes at stage I, aligned crops of scenes and photographs above it."""

    def __init__(self, recipe: Mapping[str, Any], stage: Mapping[str, Any], cache: Path, seed: int) -> None:
        self.recipe, self.stage, self.rng = recipe, stage, np.random.default_rng(seed)
        part = recipe["data"]["large" if stage.get("low") else "small"]
        self.scenes = data.scenes(cache, part["size"], part["count"])
        self.photographs = data.photographs(part["size"]) if stage.get("low") else []
        self.cubes = [k for k in range(len(self.scenes)) if "cube" in {thing.shape for thing in data.scene(k).things}]

    def _scene(self, cubes: int) -> int:
        """A scene's seed; one that holds a cube is ``cubes`` times as likely as another."""
        k = int(self.rng.integers(len(self.scenes) + (cubes - 1) * len(self.cubes)))
        return k if k < len(self.scenes) else self.cubes[k % len(self.cubes)]

    def _picture(self, cubes: int, photographs: float) -> tuple[Tensor, str]:
        if self.photographs and self.rng.random() < photographs:
            photo = self.photographs[self.rng.integers(len(self.photographs))]
            n = self.recipe["data"]["large"]["size"]
            top, left = (int(self.rng.integers(side - n + 1)) for side in photo.shape[1:])
            x = photo[:, top : top + n, left : left + n]
            return (x.flip(-1) if self.rng.random() < 0.5 else x), ""
        seed = self._scene(cubes)
        words = (
            ""
            if self.rng.random() < self.recipe["drop_caption"]
            else caption(data.scene(seed), int(self.rng.integers(TEMPLATES)))
        )
        return torch.from_numpy(self.scenes[seed].copy()).permute(2, 0, 1).float() / 127.5 - 1, words

    def draw(
        self,
        batch: int,
        crop: int,
        tries: int = 1,
        blur: float = 0.0,
        cubes: int = 1,
        photographs: float | None = None,
        **_: float,
    ) -> Example:
        """``batch`` examples, cut to ``crop`` pixels where that is less than the stage's size: of ``tries`` places, at
        the one where most is to be learned, the target being furthest from the enlarged picture.

        Of the low-resolution pictures, half are blurred by a Gaussian of up to ``blur`` of their pixels, so that the
        stage learns to sharpen what the one below leaves soft (Ho et al. 2022, cascaded diffusion models, section 4.2).
        Scenes with a cube are drawn ``cubes`` times as often as others: which way one is turned no caption says, so it
        is the most to learn. Of the examples, ``photographs`` are cut from photographs: the recipe's share if ``None``.
        """
        share = self.recipe["data"]["photographs"] if photographs is None else photographs
        drawn = [self._picture(cubes, share) for _ in range(batch)]
        x, words = torch.stack([picture for picture, _ in drawn]), [w for _, w in drawn]
        size, low = self.stage["size"], self.stage.get("low")
        if x.shape[-1] != size:
            x = F.interpolate(x, (size, size), mode="area")
        if low is None:
            return x, None, words
        small = F.interpolate(x, (low, low), mode="area")
        if blur:
            sigma = blur * self.rng.random(batch) * (self.rng.random(batch) < 0.5)
            small = torch.stack([blurred(y, s) for y, s in zip(small, sigma, strict=True)])
        large = F.interpolate(small, (size, size), mode="bilinear", align_corners=True)
        if crop < size:
            places = [slice(k, k + crop) for k in range(size - crop + 1)]
            cuts = []
            for missing in (x - large).abs().mean(1):
                drawn = [tuple(places[k] for k in self.rng.integers(len(places), size=2)) for _ in range(tries)]
                cuts.append(max(drawn, key=lambda cut: float(missing[cut].mean())))
            x, large = (
                torch.stack([y[(slice(None), *cut)] for y, cut in zip(whole, cuts, strict=True)])
                for whole in (x, large)
            )
        return x, large, words


def blurred(x: Tensor, sigma: float) -> Tensor:
    """A picture (3, h, w) under a Gaussian of ``sigma`` pixels."""
    return torch.from_numpy(gaussian(x.numpy(), sigma, channel_axis=0, preserve_range=True))


def variance_loss(eps: Tensor, v: Tensor, x0: Tensor, x: Tensor, t: Tensor, table: Tensor) -> Tensor:
    """The variational bound's term of each sample (batch,), in bits a dimension, as a function of the variance alone.

    ``v`` in [-1, 1] interpolates between ``log beta`` and its posterior (Nichol & Dhariwal 2021, eq. 15). The mean is
    detached, so that this term does not disturb the noise prediction. Label 0 has no posterior variance and gives 0.
    """
    now, before = table[t], torch.where(t > 0, table[(t - 1).clamp_min(0)], 1.0)
    beta = 1 - now / before
    true = (beta * (1 - before) / (1 - now)).clamp_min(1e-20).log()
    shape = (-1, 1, 1, 1)
    now, before, beta, true = (y.reshape(shape) for y in (now, before, beta, true))
    predicted = (x - (1 - now).sqrt() * eps.detach()) / now.sqrt()
    weight = before.sqrt() * beta / (1 - now)
    frac = (v + 1) / 2
    log_var = frac * beta.log() + (1 - frac) * true
    difference = (weight * (predicted.clamp(-1, 1) - x0)) ** 2
    kl = 0.5 * (log_var - true - 1 + (true - log_var).exp() + difference * (-log_var).exp())
    return torch.where(t > 0, kl.flatten(1).mean(1) / math.log(2), 0.0)


def prediction_loss(network: Any, encode: Any, example: Example, recipe: Mapping[str, Any], table: Tensor) -> Tensor:
    """The training loss of one batch: the weighted error of the prediction, plus a thousandth of the variance's bound.

    Noise prediction has min-SNR weights (Hang et al. 2023). Velocity prediction (Salimans and Ho 2022) is weighted by
    sigma, between sigma squared, which makes it the error of the picture, and 1. At high noise, an error of the picture
    is an error of the noise alpha / sigma as large, so a stage that predicts noise learns little there of the picture
    below, which says what to draw; the velocity is the picture itself there.
    """
    x0, large, words = example
    t = torch.randint(0, len(table), (len(x0),))
    noise = torch.randn_like(x0)
    signal = table[t].reshape(-1, 1, 1, 1)
    alpha, sigma = signal.sqrt(), (1 - signal).sqrt()
    x = alpha * x0 + sigma * noise
    sample, labels = x, None
    if large is not None:
        labels = torch.randint(0, recipe["noise_level_max"] + 1, (len(x0),))
        low = table[labels].reshape(-1, 1, 1, 1)
        sample = torch.cat([x, low.sqrt() * large + (1 - low).sqrt() * torch.randn_like(large)], 1)
    out = network(sample, t, encoder_hidden_states=encode(words)["text"], class_labels=labels).sample
    predicted, v = out.chunk(2, 1)
    if recipe["prediction"] == "v_prediction":
        eps, truth, weight = alpha * predicted + sigma * x, alpha * noise - sigma * x0, sigma.flatten()
    else:
        snr = table[t] / (1 - table[t])
        eps, truth, weight = predicted, noise, (recipe["snr_cap"] / snr).clamp_max(recipe["weight_max"])
    error = (predicted - truth).square().flatten(1).mean(1)
    return (weight * error).mean() + 1e-3 * variance_loss(eps, v, x0, x, t, table).mean()


def train_stage(
    recipe: Mapping[str, Any],
    stage: Mapping[str, Any],
    network: Any,
    encode: Any,
    schedule: Schedule,
    folder: Path,
    cache: Path,
    clock: Clock,
    preview: Any,
    precision: str = "no",
) -> Any:
    """Train ``network`` until ``clock`` stops (earlier runs counted) and give it back with its averaged weights.

    Every ten minutes a checkpoint and a grid of samples, ``preview(network) -> PIL image``, are written to ``folder``;
    a run begins from the checkpoint it finds there. ``precision`` is accelerate's mixed precision.
    """
    from accelerate import Accelerator
    from diffusers.training_utils import EMAModel

    torch.manual_seed(recipe["seed"])
    accelerator = Accelerator(mixed_precision=precision)
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    average = EMAModel(network.parameters(), decay=recipe["ema"], use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    average.to(accelerator.device)
    network = network.to(memory_format=torch.channels_last)
    network, optimizer = accelerator.prepare(network, optimizer)
    accelerator.register_for_checkpointing(average, clock)
    checkpoint, before = folder / "checkpoint", folder / "checkpoint.before"
    if before.exists() and not checkpoint.exists():  # killed between the two moves below
        before.rename(checkpoint)
    if checkpoint.exists():
        accelerator.load_state(str(checkpoint))
        average.to(accelerator.device)
    batches = Batches(recipe, stage, cache, seed=recipe["seed"] + clock.step)
    table = torch.tensor(schedule.alphas_cumprod, dtype=torch.float32, device=accelerator.device)
    mean, saved = float("nan"), clock.seconds

    def save() -> None:
        partial = folder / "checkpoint.partial"
        accelerator.save_state(str(partial))
        if checkpoint.exists():
            shutil.rmtree(before, ignore_errors=True)
            checkpoint.rename(before)
        partial.rename(checkpoint)
        shutil.rmtree(before, ignore_errors=True)
        average.store(network.parameters())
        average.copy_to(network.parameters())
        images.save(preview(accelerator.unwrap_model(network)), folder / f"samples-{clock.step:06d}.png")
        average.restore(network.parameters())

    for step in clock:
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(recipe["warmup"])
        phase, _ = clock.phase()
        x0, large, words = batches.draw(**phase)
        example = (x0.to(accelerator.device), None if large is None else large.to(accelerator.device), words)
        settings = {**recipe, "prediction": stage["prediction"], **phase}
        loss = prediction_loss(network, encode, example, settings, table)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), recipe["clip_grad"])
        optimizer.step()
        average.step(network.parameters())
        mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
        clock.say(step, loss=mean)
        if clock.seconds - saved > 600:
            saved = clock.seconds
            save()
    save()
    average.copy_to(network.parameters())
    return accelerator.unwrap_model(network)

"""Recipes: the ways in which an evaluation makes a reconstruction of a picture, one row of its table each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iterinv import images
from iterinv.cascade import Cascade
from iterinv.conditions import Condition
from iterinv.costs import within
from iterinv.evaluate.datasets import Task
from iterinv.guidance import CFG, Denoiser
from iterinv.images import Canvas, resize
from iterinv.inversion import Inversion
from iterinv.levels import Level, Prediction, prediction_from
from iterinv.models import Stage
from iterinv.models.codec import Autoencoder
from iterinv.observer import Silent
from iterinv.plans import Plan
from iterinv.stage_inversion import annotate_errors, finish
from iterinv.steps.run import run
from iterinv.streams import draw_noise


class Reconstructed(NamedTuple):
    """A reconstruction: ``picture`` (1, 3, h, w) in [-1, 1] on ``canvas``, and the ``inversion`` that editors edit,
    ``None`` for a recipe that makes none."""

    canvas: Canvas
    picture: Tensor
    inversion: Inversion | None = None


class Recipe(ABC):
    """A way to reconstruct a picture by a cascade. A subclass is a frozen dataclass: its ``repr`` is among the settings
    that rows depend on."""

    @abstractmethod
    def check(self, cascade: Cascade) -> None:
        """Raise ``ValueError`` where it cannot run on a cascade."""

    def within(self, cascade: Cascade, budget: int) -> Recipe:
        """The recipe in as many steps as fit into a budget of network calls at each stage. Raises ``ValueError`` where
        none do, and for a recipe without steps."""
        raise ValueError("it has no number of steps that a budget could set: leave it out")

    def steps(self, cascade: Cascade) -> list[int]:
        """The number of steps at each stage that it inverts."""
        return []

    @abstractmethod
    def __call__(self, cascade: Cascade, task: Task, seed: int, fit: str) -> Reconstructed:
        """Reconstruct the picture of a task."""


@dataclass(frozen=True)
class Inverting(Recipe):
    """The inversion of every stage by a method: a plan for all stages, or one for each."""

    plans: Plan | tuple[Plan, ...]

    def check(self, cascade: Cascade) -> None:
        """Raise ``ValueError`` for plans that are not as many as the stages, and that a stage refuses."""
        for plan, stage in zip(self._plans(cascade), cascade.stages, strict=True):
            plan.check(stage)

    def __call__(self, cascade: Cascade, task: Task, seed: int, fit: str) -> Reconstructed:
        """Invert the picture and run the inversion again."""
        how = self._plans(cascade)
        inversion = cascade.invert(task.picture, task.prompt, how, seed=seed, fit=fit, observer=Silent())
        return Reconstructed(inversion.canvases[0], inversion.picture, inversion)

    def within(self, cascade: Cascade, budget: int) -> Inverting:
        """The same methods in as many steps as fit into a budget at each stage."""
        pairs = zip(self._plans(cascade), cascade.stages, strict=True)
        return Inverting(tuple(within(plan, stage.schedule, budget) for plan, stage in pairs))

    def steps(self, cascade: Cascade) -> list[int]:
        """The number of steps at each stage."""
        return [plan.steps for plan in self._plans(cascade)]

    def _plans(self, cascade: Cascade) -> list[Plan]:
        count = len(cascade.stages)
        each = [self.plans] * count if isinstance(self.plans, Plan) else list(self.plans)
        if len(each) != count:
            raise ValueError(f"{len(each)} methods or guidance scales for {count} stages: give one for each")
        return each


NOISES = "matched", "fresh"
"""The noise on the low-resolution condition when a path is run again: that of its inversion, or another draw."""


@dataclass(frozen=True)
class UpperStages(Recipe):
    """A solved method at the stages from ``first`` on, 1 being the smallest, without guidance; the one below them gives
    its real picture.

    These are the rows of IterInv's Table I for DDIM (Tang, Wang, van de Weijer, 2023). Its public code runs a path
    again under another draw of the ``noise`` on the low-resolution condition than its inversion had (``fresh``), and
    its inverse scheduler reads the network's output as the noise, where the upscaler predicts the velocity:
    ``velocity_as_noise`` does so at the super-resolution stages, of a network's prediction in the form of a velocity.
    A latent stage's autoencoder is part of the result, as it is there.
    """

    first: int
    plan: Plan
    noise: str = "matched"
    velocity_as_noise: bool = False

    def check(self, cascade: Cascade) -> None:
        """Raise ``ValueError`` for a stage that the cascade does not have, another ``noise``, and a plan that is not
        solved level by level or that a stage refuses."""
        if self.noise not in NOISES:
            raise ValueError(f"the noise is {self.noise!r}; it is {' or '.join(NOISES)}")
        if not 1 <= self.first <= len(cascade.stages):
            raise ValueError(f"there is no stage {self.first}: the cascade has {len(cascade.stages)}")
        if self.plan.refine is not None or self.plan.inverter.exact or self.plan.guidance != 1:
            raise ValueError(f"{self.plan.method} is no method that solves its path without guidance, such as ddim")
        for stage in cascade.stages[self.first - 1 :]:
            self.plan.check(stage)

    @torch.no_grad()
    def __call__(self, cascade: Cascade, task: Task, seed: int, fit: str) -> Reconstructed:
        """Invert the picture at these stages, and run each again."""
        canvas, _ = cascade.canvas(images.to_array(task.picture)[0], fit)
        x, stages = canvas.covered(), cascade.at(*canvas.extent).stages
        below = None if self.first == 1 else resize(x, stages[self.first - 2].extent)
        for stage in stages[self.first - 1 :]:
            with annotate_errors(stage, self.plan):
                below = self._reconstructed(stage, resize(x, stage.extent), task.prompt, below, seed)
        assert below is not None
        return Reconstructed(canvas, below)

    def _reconstructed(self, stage: Stage, picture: Tensor, prompt: str, below: Tensor | None, seed: int) -> Tensor:
        condition = stage.condition(prompt, below, seeds=(seed,))
        grid, rule = self.plan.check(stage), self.plan.rule
        wrong = self.velocity_as_noise and stage.low_level is not None
        read: Denoiser = VelocityAsNoise(stage.denoiser) if wrong else stage.denoiser
        x = stage.encode(picture.to(stage.device, getattr(torch, self.plan.dtype)))
        walk = self.plan.inverter(rule, _field(stage, read, condition), x, grid, (seed,))
        state = finish(walk).state
        if self.noise == "fresh" and stage.low_level is not None:
            noise = draw_noise((3, *stage.shape[1:]), (seed,), "low noise of a rerun", stage.name)
            condition = stage.condition(prompt, below, noise=noise)
        *_, clean = run(rule, _field(stage, stage.denoiser, condition), state, grid, self.plan.first)
        return stage.decode(clean[0])


def _field(stage: Stage, denoiser: Denoiser, condition: Condition) -> Any:
    return CFG()(denoiser, condition, stage.with_prompt(condition, None))


@dataclass(frozen=True, eq=False)
class VelocityAsNoise:
    """A denoiser whose velocity ``alpha eps - sigma x0`` is read as the noise (:class:`UpperStages`)."""

    denoiser: Denoiser

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        x0, eps = self.denoiser(x, level, condition)
        return prediction_from(level.alpha * eps - level.sigma * x0, x, level, "epsilon")


@dataclass(frozen=True)
class Ceiling(Recipe):
    """An autoencoder alone, no inversion: the fidelity that nothing which works in its latents exceeds.

    ``autoencoder`` is a folder or a name on the hub of an ``AutoencoderKL`` or of a pipeline that has one; ``own`` is
    that of the cascade's last stage.
    """

    autoencoder: str

    def check(self, cascade: Cascade) -> None:
        """Raise ``ValueError`` where the last stage has no autoencoder and its own is wanted, or where the pictures'
        sides are no multiples of its factor."""
        codec = self._codec(cascade)
        if any(side % codec.factor for side in cascade.extent):
            raise ValueError(f"the autoencoder {self.autoencoder} takes sides that are multiples of {codec.factor} px")

    @torch.no_grad()
    def __call__(self, cascade: Cascade, task: Task, seed: int, fit: str) -> Reconstructed:
        """Encode the picture by the mode of the posterior, and decode it."""
        canvas, _ = cascade.canvas(images.to_array(task.picture)[0], fit)
        codec = self._codec(cascade)
        return Reconstructed(canvas, codec.decode(codec.encode(canvas.covered())).float().cpu())

    def _codec(self, cascade: Cascade) -> Any:
        if self.autoencoder != "own":
            return _autoencoder(self.autoencoder, cascade.stages[-1].device)
        if (codec := cascade.stages[-1].codec) is None:
            raise ValueError("the last stage works on pixels, so it has no autoencoder: leave out --autoencoder own")
        return codec


@cache
def _autoencoder(name: str, device: str) -> Autoencoder:
    """Load an autoencoder in float32. Raises ``OSError`` where there is none."""
    from diffusers import AutoencoderKL

    whole = Path(name) / "vae"
    vae = AutoencoderKL.from_pretrained(whole if whole.is_dir() else name, torch_dtype=torch.float32)
    return Autoencoder(vae.to(device).eval().requires_grad_(False), device)

"""Training schedules, and the grids of levels that are run through them.

A grid is made once and used in both directions. Nothing else in the package computes a timestep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from iterinv.levels import Grid, Level

SPACINGS = ("leading", "trailing", "linspace")
TABLE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
"""The precision of diffusers' tables, whatever torch's default is."""


@dataclass(frozen=True)
class Schedule:
    """A discrete variance-preserving schedule: ``alpha^2`` of every label, and of the clean end.

    ``offset`` is diffusers' ``steps_offset`` (leading spacing only). ``clean`` is ``alpha^2`` of the level after the
    last label: 1 where ``set_alpha_to_one`` holds, that of label 0 where it does not.
    """

    alphas_cumprod: tuple[float, ...]
    offset: int = 0
    clean: float = 1.0

    def level(self, t: int) -> Level:
        """The level of label ``t``. Raises ``ValueError`` for a label that the schedule lacks."""
        if not 0 <= t < len(self.alphas_cumprod):
            raise ValueError(f"label {t} is not in this schedule: labels run from 0 to {len(self.alphas_cumprod) - 1}")
        return _level(t, self.alphas_cumprod[t])

    def grid(self, steps: int, spacing: str | None = None) -> Grid:
        """``steps + 1`` levels, noisy to clean, with the labels of diffusers' DDIM. ``spacing`` is leading unless
        given.

        The last is the clean end; it carries the label of the level before it, but a rule never calls the network
        there. Raises ``ValueError`` for an unknown spacing, a number of steps outside 1..labels.
        """
        n, spacing = len(self.alphas_cumprod), spacing or "leading"
        if not 1 <= steps <= n:
            raise ValueError(f"{steps} steps do not fit: this schedule takes 1 to {n}")
        if spacing == "leading":
            labels = [k * (n // steps) + self.offset for k in reversed(range(steps))]
        elif spacing == "trailing":
            labels = [round(n - k * n / steps) - 1 for k in range(steps)]
        elif spacing == "linspace":
            labels = [round(k * (n - 1) / max(steps - 1, 1)) for k in reversed(range(steps))]
        else:
            raise ValueError(f"spacing {spacing!r} is not one of {', '.join(SPACINGS)}")
        if labels[0] >= n:
            raise ValueError(
                f"{steps} steps with offset {self.offset} reach label {labels[0]}; the last label is {n - 1}"
            )
        levels = [self.level(t) for t in labels]
        return (*levels, _level(labels[-1], self.clean))


@dataclass(frozen=True)
class Karras:
    """EDM's noise levels (Karras et al. 2022, eq. 5): noise is added and nothing mixed, so alpha is 1 throughout.

    The label of a level is its sigma. ``steps`` levels from ``sigma_max`` to ``sigma_min``, dense at the end as ``rho``
    says, and the clean end. ``rounded`` maps noise levels (steps,) to those that a network knows, where it knows only
    some. Raises ``ValueError`` for a range without levels.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    rounded: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"noise levels from {self.sigma_max:g} down to {self.sigma_min:g} are no range: "
                "sigma_min is above 0, and sigma_max is a number above sigma_min"
            )

    def grid(self, steps: int, spacing: str | None = None) -> Grid:
        """``steps + 1`` levels, noisy to clean. Raises ``ValueError`` for any ``spacing``: these levels are spaced by
        rho."""
        if steps < 2:
            raise ValueError(f"{steps} steps do not fit: this schedule takes 2 or more")
        if spacing is not None:
            raise ValueError(f"spacing {spacing!r} means nothing here: EDM's levels are spaced by rho")
        start, end = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        sigmas = [(start + k / (steps - 1) * (end - start)) ** self.rho for k in range(steps)]
        if self.rounded is not None:
            sigmas = self.rounded(torch.tensor(sigmas, dtype=torch.float64, device="cpu")).flatten().tolist()
        return (*(Level(sigma, 1.0, sigma) for sigma in sigmas), Level(sigmas[-1], 1.0, 0.0))


@dataclass(frozen=True)
class Flow:
    """The straight path of flow matching (Lipman et al., 2023): ``alpha = 1 - sigma``, from pure noise to clean data.

    ``shift`` moves the levels towards the noisy end, ``sigma -> shift sigma / (1 + (shift - 1) sigma)`` (Esser et al.,
    2024, eq. 23). The timestep of a level is ``sigma`` times ``timesteps``, as diffusers' flow models take it.
    """

    shift: float = 1.0
    timesteps: int = 1000

    def grid(self, steps: int, spacing: str | None = None) -> Grid:
        """``steps + 1`` levels, noisy to clean, evenly spaced but for the shift. Raises ``ValueError`` for any
        ``spacing``."""
        if steps < 1:
            raise ValueError(f"{steps} steps do not fit: this schedule takes 1 or more")
        if spacing is not None:
            raise ValueError(f"spacing {spacing!r} means nothing here: a flow's levels are evenly spaced, and shifted")
        sigmas = [1 - k / steps for k in range(steps)]
        shifted = [self.shift * sigma / (1 + (self.shift - 1) * sigma) for sigma in sigmas]
        levels = [Level(sigma * self.timesteps, 1 - sigma, sigma) for sigma in shifted]
        return (*levels, Level(levels[-1].t, 1.0, 0.0))


def _level(t: float, alpha_squared: float) -> Level:
    return Level(float(t), math.sqrt(alpha_squared), math.sqrt(1 - alpha_squared))


def _betas(kind: str, n: int, start: float, end: float) -> Tensor:
    if kind == "linear":
        return torch.linspace(start, end, n, **TABLE)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, n, **TABLE) ** 2
    if kind == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, eq. 17
        signal = [math.cos((k / n + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(n + 1)]
        return torch.tensor([min(1 - b / a, 0.999) for a, b in pairwise(signal)], **TABLE)
    raise ValueError(f"beta schedule {kind!r} is not one of linear, scaled_linear, squaredcos_cap_v2")


def _zero_terminal(alphas_cumprod: Tensor, rescale: bool) -> Tensor:
    """``alpha^2`` shifted and scaled so that the last is 0 and the first stays (Lin, Liu, Li, Yang, 2023, algorithm
    1)."""
    if not rescale:
        return alphas_cumprod
    alphas = alphas_cumprod.sqrt()
    first, last = alphas[0].clone(), alphas[-1].clone()
    return ((alphas - last) * (first / (first - last))) ** 2


def from_config(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a diffusers scheduler's configuration.

    The products are taken in float32 as diffusers takes them, since they are the table that the network was trained on.
    One with ``rescale_betas_zero_snr`` begins at a level without signal, alpha 0. Raises ``ValueError`` for a beta
    schedule that this package does not know.
    """
    n = int(config.get("num_train_timesteps", 1000))
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], **TABLE)
    else:
        kind = config.get("beta_schedule", "linear")
        betas = _betas(kind, n, config.get("beta_start", 1e-4), config.get("beta_end", 0.02))
    table = tuple(_zero_terminal(torch.cumprod(1 - betas, 0), bool(config.get("rescale_betas_zero_snr"))).tolist())
    clean = 1.0 if config.get("set_alpha_to_one", True) else table[0]
    return Schedule(table, offset=int(config.get("steps_offset", 0)), clean=clean)

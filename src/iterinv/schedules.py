"""Training schedules, and the grids of levels that are run through them.

A grid is made once and used in both directions. Nothing else in the package computes a timestep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from iterinv.levels import Grid, Level
from iterinv.typed import Natural, Range, Share, checked

SPACINGS = ("leading", "trailing", "linspace")
WALKS = {
    **dict.fromkeys(("DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler"), "ddim"),
    **dict.fromkeys(("DDPMScheduler", "DDPMParallelScheduler", "PNDMScheduler"), "ddim"),
    **dict.fromkeys(("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler"), "euler"),
    **dict.fromkeys(("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"), "euler"),
    **dict.fromkeys(("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"), "dpm"),
    **dict.fromkeys(("DEISMultistepScheduler", "SASolverScheduler"), "dpm"),
    **dict.fromkeys(("LCMScheduler", "TCDScheduler"), "lcm"),
    **dict.fromkeys(("BDIAScheduler", "BDIAInverseScheduler"), "ddim"),
}
"""Spacing of labels by class of diffusers' schedulers that is known here: ``ddim`` in whole numbers; ``euler``
between them too, under linspace; ``dpm`` one more than the steps, without the lowest; ``lcm`` among those that a
network was distilled from."""

ENDS_CLEAN = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler")
KARRAS = (*ENDS_CLEAN, "EulerDiscreteScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler")
UNKNOWN = {
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "timestep_type": "discrete",
    "interpolation_type": "linear",
    "lambda_min_clipped": -math.inf,
    "sigma_min": None,
    "sigma_max": None,
}
"""Settings of these classes, at the values under which their levels are known here."""

SETTINGS: dict[str, Any] = {
    "num_train_timesteps": Annotated[int, Range(1, 1_000_000)],
    "beta_schedule": str,
    "beta_start": Share,
    "beta_end": Share,
    "steps_offset": Natural,
    "timestep_spacing": str,
    "trained_betas": Annotated[tuple[Share, ...], Range(1, 1_000_000)] | None,
}
"""The kinds of the settings that levels are made of."""

FLOW = "FlowMatchEulerDiscreteScheduler"
"""The class of diffusers' schedulers of flows that is known here."""

FLOW_UNKNOWN = {
    "invert_sigmas": False,
    "shift_terminal": None,
    "stochastic_sampling": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
"""Settings of that class, at the values under which its levels and its steps are known here."""

FLOW_SETTINGS: dict[str, Any] = {
    "num_train_timesteps": Annotated[int, Range(2, 1_000_000)],
    "shift": Annotated[float, Range(1e-3, 1e3)],
    "base_shift": Annotated[float, Range(-10, 10)],
    "max_shift": Annotated[float, Range(-10, 10)],
    "base_image_seq_len": Natural,
    "max_image_seq_len": Natural,
}
"""The kinds of the settings that a flow's levels are made of."""

TABLE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
"""The precision of diffusers' tables, whatever torch's default is."""


@dataclass(frozen=True)
class Schedule:
    """A discrete variance-preserving schedule: ``alpha^2`` of every label, and of the clean end; and how it is walked.

    ``offset`` is diffusers' ``steps_offset`` (leading spacing only). ``clean`` is ``alpha^2`` of the level after the
    last label: 1 where ``set_alpha_to_one`` holds, that of label 0 where it does not. ``spacing`` is the
    default spacing of a grid, by the labels of a ``walk``, one of :data:`WALKS`. With ``karras`` such a grid has the
    noise levels of Karras et al. (2022). ``trained`` is the number of steps that a network was distilled from, whose
    labels alone it knows, or 0.
    """

    alphas_cumprod: tuple[float, ...]
    offset: int = 0
    clean: float = 1.0
    spacing: str = "leading"
    walk: str = "ddim"
    karras: bool = False
    trained: int = 0

    def level(self, t: float) -> Level:
        """The level of label ``t``; between two labels the ratio of noise to signal is interpolated.

        Raises ``ValueError`` for a label that the schedule lacks.
        """
        if not 0 <= t <= len(self.alphas_cumprod) - 1:
            raise ValueError(f"label {t} is not in this schedule: labels run from 0 to {len(self.alphas_cumprod) - 1}")
        if t == int(t):
            return _level(t, self.alphas_cumprod[int(t)])
        return _noisy(t, float(np.interp(t, range(len(self.alphas_cumprod)), self._ratios())))

    def grid(self, steps: int, spacing: str | None = None) -> Grid:
        """``steps + 1`` levels, noisy to clean, with the labels of diffusers' schedulers; ``spacing`` is the schedule's
        own unless given.

        Leading labels that would leave a step or more of the schedule out, since ``steps`` does not divide it, are
        spread over all of it. The last level is the clean end; it carries the label of the level before it, but a rule
        never calls the network there. Raises ``ValueError`` for an unknown spacing and a number of steps that does not
        fit.
        """
        labels = self._labels(steps, spacing)
        levels = [self.level(t) for t in labels]
        if self.karras and spacing is None:
            levels = self._karras(levels)
        return (*levels, _level(levels[-1].t, self.clean))

    def _labels(self, steps: int, spacing: str | None) -> list[float]:
        n, more = len(self.alphas_cumprod), self.walk == "dpm"  # one label more than steps, and the lowest left out
        most = self.trained if self.trained and spacing is None else n - more
        if not 1 <= steps <= most:
            raise ValueError(f"{steps} steps do not fit: this schedule takes 1 to {most}")
        if self.trained and spacing is None:
            each = n // self.trained
            return [each * (self.trained - k * self.trained // steps) - 1 for k in range(steps)]
        spacing = spacing or self.spacing
        if spacing == "leading":
            parts = steps + more
            whole = n % parts < n // parts
            labels = [(k * (n // parts) if whole else k * n // parts) + self.offset for k in range(more, parts)][::-1]
            if labels[0] >= n:
                raise ValueError(
                    f"{steps} steps with offset {self.offset} reach label {labels[0]}; the last label is {n - 1}: take "
                    "fewer, or trailing spacing"
                )
            return list(map(float, labels))
        if spacing == "trailing":
            return [float(t) for t in np.arange(n, 0, -n / steps)[:steps].round() - 1]
        if spacing == "linspace":
            even = np.linspace(0, n - 1, steps + more)[::-1][:steps]
            return [float(t) for t in (even.astype(np.float32) if self.walk == "euler" else even.round())]
        raise ValueError(f"spacing {spacing!r} is not one of {', '.join(SPACINGS)}")

    def _karras(self, levels: Sequence[Level]) -> list[Level]:
        """Replace levels by as many between the same ends, or those of the table, spaced as EDM's are."""
        ratios = self._ratios()
        first, last = (each.sigma / each.alpha for each in (levels[0], levels[-1]))
        if self.walk == "dpm":
            first, last = ratios[-1], ratios[0]
        spaced = _between(first, last, len(levels), 7.0)
        labels = np.interp(np.log(spaced), np.log(ratios), range(len(ratios)))
        return [
            _noisy(float(t), r) for t, r in zip(labels.round() if self.walk == "dpm" else labels, spaced, strict=True)
        ]

    def _ratios(self) -> np.ndarray:
        squared = np.array(self.alphas_cumprod)
        ratios: np.ndarray = np.sqrt((1 - squared) / squared)
        return ratios


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
        sigmas = _between(self.sigma_max, self.sigma_min, steps, self.rho)
        if self.rounded is not None:
            sigmas = self.rounded(torch.tensor(sigmas, dtype=torch.float64, device="cpu")).flatten().tolist()
        return (*(Level(sigma, 1.0, sigma) for sigma in sigmas), Level(sigmas[-1], 1.0, 0.0))


@dataclass(frozen=True)
class DynamicShift:
    """A shift that grows with the picture, as diffusers computes it for FLUX: more pixels take more noise to hide.

    Its logarithm is linear in the number of image tokens, ``base`` at ``base_tokens`` and ``most`` at ``most_tokens``,
    and goes on beyond both.
    """

    base: float = 0.5
    most: float = 1.15
    base_tokens: int = 256
    most_tokens: int = 4096

    def shift(self, tokens: int) -> float:
        """The shift of a picture of so many image tokens."""
        slope = (self.most - self.base) / (self.most_tokens - self.base_tokens)
        return math.exp(self.base + slope * (tokens - self.base_tokens))


@dataclass(frozen=True)
class Flow:
    """The straight path of flow matching (Lipman et al., 2023): ``alpha = 1 - sigma``, from pure noise to clean data.

    ``shift`` moves the levels towards the noisy end, ``sigma -> shift sigma / (1 + (shift - 1) sigma)`` (Esser et al.,
    2024, https://arxiv.org/abs/2403.03206, eq. 23). The timestep of a level is ``sigma`` times ``timesteps``, as
    diffusers' flow models take it. Before the shift the levels are evenly spaced from 1 to ``lowest``, in (0, 1), or to
    ``1 / steps`` where that is ``None``; the clean end follows. With ``dynamic`` the shift depends on the size of the
    picture (:meth:`at`).
    """

    shift: float = 1.0
    timesteps: int = 1000
    lowest: float | None = None
    dynamic: DynamicShift | None = None

    def at(self, tokens: int) -> Flow:
        """The path for pictures of so many image tokens, 1 or more; itself where the shift is the same for all."""
        return self if self.dynamic is None else replace(self, shift=self.dynamic.shift(tokens))

    def grid(self, steps: int, spacing: str | None = None) -> Grid:
        """``steps + 1`` levels, noisy to clean, evenly spaced but for the shift. Raises ``ValueError`` for any
        ``spacing``."""
        if steps < 1:
            raise ValueError(f"{steps} steps do not fit: this schedule takes 1 or more")
        if spacing is not None:
            raise ValueError(f"spacing {spacing!r} means nothing here: a flow's levels are evenly spaced, and shifted")
        step = 1 / steps if self.lowest is None else (1 - self.lowest) / max(steps - 1, 1)
        sigmas = [1 - k * step for k in range(steps)]
        shifted = [self.shift * sigma / (1 + (self.shift - 1) * sigma) for sigma in sigmas]
        levels = [Level(sigma * self.timesteps, 1 - sigma, sigma) for sigma in shifted]
        return (*levels, Level(levels[-1].t, 1.0, 0.0))


def _level(t: float, alpha_squared: float) -> Level:
    return Level(float(t), math.sqrt(alpha_squared), math.sqrt(1 - alpha_squared))


def _noisy(t: float, ratio: float) -> Level:
    """The level of a ratio of noise to signal."""
    return Level(t, 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio))


def _between(highest: float, lowest: float, steps: int, rho: float) -> list[float]:
    """Noise levels, evenly spaced in their ``rho``-th roots (Karras et al., 2022, eq. 5)."""
    start, end = highest ** (1 / rho), lowest ** (1 / rho)
    return [float((start + k / max(steps - 1, 1) * (end - start)) ** rho) for k in range(steps)]


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
    """The schedule of a diffusers scheduler's configuration, whose ``_class_name`` is DDIM's unless it says another.

    The products are taken in float32 as diffusers takes them, since they are the table that the network was trained on.
    One with ``rescale_betas_zero_snr`` begins at a level without signal, alpha 0, as far as its class does. Raises
    ``ValueError`` for a class, a beta schedule and a way of spacing levels that this package does not know.
    """
    kind = str(config.get("_class_name", "DDIMScheduler"))
    walk = WALKS.get(kind)
    if walk is None:
        raise ValueError(
            f"the levels of a {kind} are not known here: give the pipeline the scheduler that its network was trained "
            f"for, if that is one of {', '.join(WALKS)}"
        )
    unsupported = {
        key for key, plain in UNKNOWN.items() if walk in ("euler", "dpm") and config.get(key, plain) != plain
    }
    karras = walk in ("euler", "dpm") and bool(config.get("use_karras_sigmas"))
    if karras and (kind not in KARRAS or config.get("beta_schedule") == "squaredcos_cap_v2"):
        unsupported.add("use_karras_sigmas")
    if unsupported:
        settings = " and ".join(f"{key} {config[key]}" for key in sorted(unsupported))
        raise ValueError(
            f"the levels of a {kind} with {settings} are not known here: take that out of its configuration, or give "
            "the pipeline a DDIMScheduler of the same betas"
        )
    _check_settings(kind, config, SETTINGS)
    n = int(config.get("num_train_timesteps", 1000))
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], **TABLE)
    else:
        betas = _betas(
            config.get("beta_schedule", "scaled_linear" if walk == "lcm" else "linear"),
            n,
            config.get("beta_start", 0.00085 if walk == "lcm" else 1e-4),
            config.get("beta_end", 0.012 if walk == "lcm" else 0.02),
        )
    products = _zero_terminal(torch.cumprod(1 - betas, 0), bool(config.get("rescale_betas_zero_snr")))
    if products[-1] == 0 and walk in ("euler", "dpm"):
        products[-1] = 2**-24  # as these classes do, whose ratio of noise to signal would be infinite
    table = tuple(products.tolist())
    whole = {
        "euler": config.get("final_sigmas_type", "zero") == "zero",
        "dpm": kind in ENDS_CLEAN and config.get("final_sigmas_type", "zero") == "zero",
    }.get(walk, config.get("set_alpha_to_one", kind != "PNDMScheduler"))
    return Schedule(
        table,
        int(config.get("steps_offset", 0)),
        1.0 if whole else table[0],
        config.get("timestep_spacing", "linspace" if walk in ("euler", "dpm") else "leading"),
        walk,
        karras,
        int(config.get("original_inference_steps", 50)) if walk == "lcm" else 0,
    )


def flow_from_config(config: Mapping[str, Any], to_lowest: bool = False) -> Flow:
    """The path of a diffusers flow scheduler's configuration, whose ``_class_name`` is :data:`FLOW`.

    The levels before the shift end at ``1 / steps``, as FLUX's pipeline gives them, or, ``to_lowest``, at the lowest
    level of the scheduler, as it spaces them itself and Stable Diffusion 3's pipeline leaves them: of the shifted
    training levels, so that a fixed shift acts twice there. Raises ``ValueError`` for another class, for a setting that
    is not known, and for one that gives no levels.
    """
    kind = str(config.get("_class_name", FLOW))
    if kind != FLOW:
        raise ValueError(
            f"the levels of a {kind} are not those of a flow: give the pipeline the {FLOW} that its network was "
            "trained for"
        )
    by_size = bool(config.get("use_dynamic_shifting"))
    plain = {**FLOW_UNKNOWN, **({"time_shift_type": "exponential"} if by_size else {})}
    if unsupported := sorted(key for key, value in plain.items() if config.get(key, value) != value):
        settings = " and ".join(f"{key} {config[key]}" for key in unsupported)
        raise ValueError(
            f"the levels of a {kind} with {settings} are not known here: take that out of its configuration"
        )
    _check_settings(kind, config, FLOW_SETTINGS)
    n, dynamic = int(config.get("num_train_timesteps", 1000)), None
    shift = 1.0 if by_size else float(config.get("shift", 1.0))
    if by_size:
        least, most = int(config.get("base_image_seq_len", 256)), int(config.get("max_image_seq_len", 4096))
        if least >= most:
            raise ValueError(
                f"a {kind} cannot have such levels (base_image_seq_len is {least} and max_image_seq_len {most}): "
                "correct its scheduler_config.json, or get it again"
            )
        dynamic = DynamicShift(config.get("base_shift", 0.5), config.get("max_shift", 1.15), least, most)
    return Flow(shift, n, shift / (n + shift - 1) if to_lowest else None, dynamic)


def _check_settings(kind: str, config: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raise ``ValueError``, naming the class, for settings of a configuration that are not of their kinds."""
    for key in kinds.keys() & config.keys():
        value = config[key]
        try:
            checked(tuple(value) if isinstance(value, (list, np.ndarray)) else value, kinds[key], key)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"a {kind} cannot have such levels ({error}): correct its scheduler_config.json, or get it again"
            ) from None

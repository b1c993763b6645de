"""Models of EDM's kind: pixels under added noise, a network that is preconditioned by the noise's level.

Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila, Laine, 2022),
https://arxiv.org/abs/2206.00364. Nothing is mixed there, so alpha is 1 at every level and sigma runs from 80 to 0.002.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os.path import exists, isfile  # which know no name that is too long
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iterinv.conditions import Condition
from iterinv.families.family import Family
from iterinv.levels import Level, Prediction
from iterinv.models import Stage, digest_of, frozen, unwrapped
from iterinv.models.checkpoints import kind_of
from iterinv.presets import Defaults
from iterinv.schedules import Karras

DEFAULTS = Defaults(sampling_steps=40, sampling_guidance=1.0, sampler="heun")
"""Sampling as EDM's authors sample pictures of 64 px."""

Denoised = Callable[[Tensor, Tensor], Tensor]
"""Clean data (batch, channels, h, w) from a noisy sample and its noise level (batch,)."""


def precondition(network: Denoised, sigma_data: float = 0.5) -> Denoised:
    """``D(x; sigma) = c_skip x + c_out F(c_in x; log(sigma) / 4)`` (eq. 7 and table 1) of a bare network ``F``."""

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.reshape(-1, *[1] * (x.ndim - 1))
        spread = (s**2 + sigma_data**2).sqrt()
        return (sigma_data / spread) ** 2 * x + s * sigma_data / spread * network(x / spread, sigma.log() / 4)

    return denoised


@dataclass(frozen=True)
class EDMDenoiser:
    """A function from (sample, noise level) to clean data as a :class:`iterinv.guidance.Denoiser`: ``eps = (x - D) /
    sigma``.

    It is called in ``dtype``, or in the state's own where that is ``None``.
    """

    denoised: Denoised
    dtype: torch.dtype | None = torch.float32

    @property
    def network(self) -> Denoised:
        """The network, in which the first layer of infinite values is looked for."""
        return self.denoised

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        dtype = self.dtype or x.dtype
        sigma = torch.full((len(x),), level.sigma, dtype=dtype, device=x.device)
        return Prediction.from_x0(x, level, self.clean(x.to(dtype), sigma, condition).to(x.dtype))

    def clean(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """The network's clean data for samples and their noise levels (batch,), both in its dtype."""
        return self.denoised(x, sigma)


def stage(
    denoised: Denoised,
    size: int,
    name: str = "EDM",
    fingerprint: str = "",
    device: str = "cpu",
    dtype: torch.dtype | None = torch.float32,
    schedule: Karras = Karras(),
) -> Stage:
    """A stage without words. ``fingerprint`` should name the weights, so that inversions are not reopened under others;
    ``dtype`` is that of the network's inputs, ``None`` for the states'; ``schedule`` holds the noise levels that it
    knows."""

    def embed(prompts: Sequence[str | None]) -> Condition:
        return Condition({"text": torch.zeros(len(prompts), 1, 1, dtype=torch.float32, device=device)})

    return Stage(name, size, EDMDenoiser(denoised, dtype), schedule, embed, fingerprint or f"edm-{size}", device=device)


def from_module(network: torch.nn.Module, name: str = "EDM", device: str = "cpu") -> Stage:
    """A stage from a network as NVIDIA's EDM code gives them: ``network(x, sigma)`` is clean data, its
    ``img_resolution`` the size; in TorchScript too. The network stays as it is.

    Noise levels are EDM's, 80 to 0.002, within the network's ``sigma_min`` and ``sigma_max`` and rounded by its
    ``round_sigma``, as far as it has them. Raises ``ValueError`` where it has no size, or takes class labels.
    """
    network = unwrapped(network)
    size = getattr(network, "img_resolution", None)
    if type(size) is not int or size < 1:
        kind = type(network).__name__
        size_there = "no img_resolution" if size is None else f"the img_resolution {size}"
        part = "the pipeline, if it is a part of one" if hasattr(network, "config") else "a network of EDM's kind"
        raise ValueError(f"a {kind} has {size_there}: set it to the size of its pictures in px, or load {part}")
    if getattr(network, "label_dim", 0):
        raise ValueError(
            f"this network takes one of {network.label_dim} class labels; only one without labels can be inverted"
        )
    network = frozen(network).to(device)
    dtype = next((x.dtype for x in network.parameters()), None)  # without weights, it has no precision of its own
    known = Karras()
    levels = Karras(
        max(known.sigma_min, float(getattr(network, "sigma_min", 0.0))),
        min(known.sigma_max, float(getattr(network, "sigma_max", math.inf))),
        rounded=_rounding(network, device),
    )
    made = stage(network, size, name, digest_of(network)[:16], device, dtype, levels)
    return replace(made, move=lambda where, below: from_module(network, name, where))


def _rounding(network: torch.nn.Module, device: str) -> Callable[[Tensor], Tensor] | None:
    """The network's own rounding of noise levels, ``None`` where it has none."""
    rounded = getattr(network, "round_sigma", None)
    return None if rounded is None else lambda sigma: torch.as_tensor(rounded(sigma.to(device))).cpu()


def opened(what: Any, name: str, device: str, allow_pickle: bool = False) -> Stage | None:
    """Open a module or a TorchScript file by :func:`from_module`; ``None`` for anything else.

    Raises ``ValueError`` for a TorchScript file unless ``allow_pickle``, since it runs code as a pickle does, and for a
    damaged one; ``FileNotFoundError`` for the family's own name, which is no name of weights.
    """
    if isinstance(what, torch.nn.Module):
        return from_module(what, name, device)
    if not isinstance(what, (str, Path)):
        return None
    if isfile(what) and kind_of(Path(what)) == "TorchScript":
        if not allow_pickle:
            raise ValueError(
                f"{what} is a TorchScript, which runs code of whoever made it, as a pickle does: allow it "
                "(allow_pickle=True, --allow-pickle) if you trust who made it"
            )
        try:
            return from_module(torch.jit.load(what, map_location=device), name, device)
        except RuntimeError as error:
            raise ValueError(f"{what} is damaged or of another PyTorch ({str(error).splitlines()[0]})") from None
    if str(what).partition("@")[0] == "edm" and not exists(what):
        raise FileNotFoundError(
            "edm is no cascade of published weights but a kind of network: give the network itself, loaded by the code "
            "that made it, or a TorchScript file of it (torch.jit.save), which runs code as a pickle does and needs "
            "allow_pickle=True, --allow-pickle"
        )
    return None


EDM = Family(opened=opened)

"""Models of EDM's kind: pixels under added noise, a network that is preconditioned by the noise's level.

Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila, Laine, 2022),
https://arxiv.org/abs/2206.00364. Nothing is mixed there, so alpha is 1 at every level and sigma runs from 80 to 0.002.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from iterinv.levels import Level
from iterinv.models import Low, Stage
from iterinv.schedule import Karras

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
    """A function from (sample, noise level) to clean data as a :class:`iterinv.models.Denoiser`: ``eps = (x - D) / sigma``.

    It is called in ``dtype``, whatever the state's.
    """

    denoised: Denoised
    dtype: torch.dtype = torch.float32

    def __call__(self, x: Tensor, level: Level, text: Tensor, low: Low | None) -> Tensor:
        sigma = torch.full((len(x),), level.sigma, dtype=self.dtype, device=x.device)
        return (x - self.denoised(x.to(self.dtype), sigma).to(x.dtype)) / level.sigma


def stage(
    denoised: Denoised, size: int, name: str = "EDM", fingerprint: str = "", device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Stage:  # fmt: skip
    """A stage without words. ``fingerprint`` should name the weights, so that inversions are not reopened under others;
    ``dtype`` is what the network computes in."""

    def embed(prompts: list[str]) -> Tensor:
        return torch.zeros(len(prompts), 1, 1, device=device)

    return Stage(name, size, EDMDenoiser(denoised, dtype), Karras(), embed, fingerprint or f"edm-{size}", device=device)

"""diffusers' ``UNet2DConditionModel`` as a denoiser, in all the forms that published pipelines use it.

It may predict noise, the velocity ``v = alpha eps - sigma x0`` (Salimans & Ho 2022) or the clean sample; it may add channels
of a variance that deterministic rules do not use (Nichol & Dhariwal 2021). One of super-resolution sees the noised picture
from the stage below as three more input channels, and its noise level as class label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iterinv.levels import Level
from iterinv.models import Low

PREDICTIONS = ("epsilon", "v_prediction", "sample")


def noise_of(out: Tensor, x: Tensor, level: Level, prediction_type: str) -> Tensor:
    """The noise in ``x`` at a level, of what a network said of it. The clean level holds none, and cannot be asked."""
    if prediction_type == "v_prediction":
        return level.alpha * out + level.sigma * x
    return (x - level.alpha * out) / level.sigma if prediction_type == "sample" else out


@dataclass(frozen=True)
class UNetDenoiser:
    """A ``UNet2DConditionModel`` as a :class:`iterinv.models.Denoiser`, whatever the network's dtype.

    ``prediction_type`` is one of :data:`PREDICTIONS`, in diffusers' words.
    """

    unet: Any
    prediction_type: str = "epsilon"

    def __call__(self, x: Tensor, level: Level, text: Tensor, low: Low | None) -> Tensor:
        dtype = self.unet.dtype
        sample, labels = x.to(dtype), None
        if low is not None:
            sample = torch.cat([sample, low.noised().to(dtype)], 1)
            labels = torch.full((len(x),), int(low.level.t), device=x.device)
        t = torch.full((len(x),), level.t, device=x.device)
        out = self.unet(sample, t, class_labels=labels, **self.words(text.to(dtype))).sample
        # In the state's layout: arithmetic between two layouts is slow.
        out = out[:, : x.shape[1]].to(x.dtype, memory_format=torch.contiguous_format)
        return noise_of(out, x, level, self.prediction_type)

    def words(self, text: Tensor) -> dict[str, Any]:
        """The network's arguments that say the words."""
        return {"encoder_hidden_states": text}


@dataclass(frozen=True)
class SDXLDenoiser(UNetDenoiser):
    """SDXL's. The last token is the pooled text, of width ``pooled`` (:func:`iterinv.models.text.sdxl`); the network is told
    that the picture is whole: ``size`` px, cut nowhere."""

    size: int = 1024
    pooled: int = 1280

    def words(self, text: Tensor) -> dict[str, Any]:
        whole = torch.tensor([[self.size, self.size, 0, 0, self.size, self.size]], dtype=text.dtype, device=text.device)
        told = {"text_embeds": text[:, -1, : self.pooled], "time_ids": whole.expand(len(text), -1)}
        return {"encoder_hidden_states": text[:, :-1], "added_cond_kwargs": told}

"""diffusers' ``UNet2DConditionModel`` as a denoiser, in all the forms that published pipelines use it.

It may predict any of :data:`iterinv.levels.PREDICTION_TYPES`, and it may add channels of a variance that deterministic
rules do not use (Nichol and Dhariwal, 2021). One of super-resolution sees the noised picture from the stage below as
three more input channels, and its noise level as class label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from iterinv.conditions import Condition, enlarged
from iterinv.levels import Level, Prediction, prediction_from


@dataclass(frozen=True, eq=False)
class UNetDenoiser:
    """A ``UNet2DConditionModel`` as a :class:`iterinv.guidance.Denoiser`, for a network of any dtype.

    ``low_level`` is the level of the noise on the picture from the stage below, for a network that takes one; ``added``
    names the entries of a condition that it takes by other names besides, as diffusers' ``added_cond_kwargs``.
    """

    unet: Any
    prediction_type: str = "epsilon"
    low_level: Level | None = None
    added: Mapping[str, str] = field(default_factory=dict)

    @property
    def network(self) -> Any:
        """The network, in which the first layer of infinite values is looked for."""
        return self.unet

    @property
    def least_side(self) -> int:
        """The height and width of a small state, halved by every block but the last to 2."""
        return int(2 ** len(self.unet.config.block_out_channels))

    @property
    def unit(self) -> int:
        """The number that the height and width of states are multiples of, since every block but the last halves
        them."""
        return self.least_side // 2

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        dtype = self.unet.dtype
        sample, labels = x.to(dtype), None
        if self.low_level is not None:
            noise, b = condition["low_noise"], self.low_level
            low = b.alpha * enlarged(condition["low_image"], (x.shape[-2], x.shape[-1])) + b.sigma * noise
            sample = torch.cat([sample, low.to(dtype)], 1)
            labels = torch.full((len(x),), int(b.t), device=x.device)
        t = torch.full((len(x),), level.t, dtype=torch.float32, device=x.device)
        text = condition["text"].to(dtype)
        added = {theirs: condition[ours].to(dtype) for theirs, ours in self.added.items()}
        # Convolutions are a quarter faster in this layout, on a CPU and on tensor cores, for weights in any layout.
        sample = sample.contiguous(memory_format=torch.channels_last)
        out = self.unet(
            sample, t, encoder_hidden_states=text, class_labels=labels, added_cond_kwargs=added or None
        ).sample
        # In the state's layout: arithmetic between two layouts is slow.
        out = out[:, : x.shape[1]].to(x.dtype, memory_format=torch.contiguous_format)
        return prediction_from(out, x, level, self.prediction_type)


def labelled(config: Any) -> bool:
    """Say of a network's configuration whether it takes a class label, as one that enlarges does."""
    return config.class_embed_type is not None or config.num_class_embeds is not None

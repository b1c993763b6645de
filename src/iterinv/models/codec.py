"""Codecs: pictures to the states of a stage that works on latents, or on fewer channels, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grey:
    """Pictures of one channel: the brightness of a picture is the state of a network that knows no colour.

    A picture without colour comes back as it was. This codec loses the colour of any other.
    """

    channels: ClassVar[int] = 1
    factor: ClassVar[int] = 1

    def encode(self, picture: Tensor) -> Tensor:
        """The brightness (batch, 1, h, w) of pictures (batch, 3, h, w), by the weights of Rec. 601."""
        red, green, blue = picture.split(1, 1)
        return green + 0.299 * (red - green) + 0.114 * (blue - green)  # without rounding where the three are one

    def decode(self, state: Tensor) -> Tensor:
        """Pictures (batch, 3, h, w) of which all channels are the state."""
        return state.repeat(1, 3, 1, 1)


@dataclass(frozen=True)
class Autoencoder:
    """diffusers' ``AutoencoderKL`` as a :class:`iterinv.models.Codec`, in float32: it overflows in float16, and half
    precision would cost the picture. A picture is encoded by the mode of the posterior, so that it has one code.

    A state is ``(z - shift) * scale`` of the autoencoder's own ``z``, by the ``shift_factor``, 0 where it has none, and
    the ``scaling_factor`` of its configuration.
    """

    vae: Any
    device: str = "cpu"

    @property
    def channels(self) -> int:
        """The number of channels of a state."""
        return int(self.vae.config.latent_channels)

    @property
    def factor(self) -> int:
        """The factor by which a state is smaller than a picture."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def shift(self) -> float:
        """The number that is subtracted from the autoencoder's latents before they are scaled."""
        return float(self.vae.config.shift_factor or 0)

    @torch.no_grad()
    def encode(self, picture: Tensor) -> Tensor:
        """States (batch, channels, h / factor, w / factor) of pictures (batch, 3, h, w) in [-1, 1]."""
        mode = self.vae.encode(picture.to(self.device, torch.float32)).latent_dist.mode()
        return (mode - self.shift) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, state: Tensor) -> Tensor:
        """Pictures (batch, 3, h, w) of states."""
        z = state.to(self.device, torch.float32) / self.vae.config.scaling_factor + self.shift
        return self.vae.decode(z).sample.contiguous()

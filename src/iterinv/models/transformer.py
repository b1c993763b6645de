"""Transformers of flow models as denoisers: of latents in patches, they predict the flow of a straight path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from iterinv.conditions import Condition
from iterinv.levels import Level, Prediction, prediction_from


@dataclass(frozen=True, eq=False)
class TransformerDenoiser(ABC):
    """A transformer of diffusers as a :class:`iterinv.guidance.Denoiser`, for a network of any dtype.

    A subclass calls it as its pipeline does. States (batch, channels, h, w) are cut into patches of ``unit`` x
    ``unit``, each an image token.
    """

    transformer: Any

    prediction_type: ClassVar[str] = "flow_prediction"

    @property
    def network(self) -> Any:
        """The network, in which the first layer of infinite values is looked for."""
        return self.transformer

    @property
    def unit(self) -> int:
        """The number that the height and width of states are multiples of."""
        return 2

    @property
    def least_side(self) -> int:
        """The height and width of a small state, of 2 x 2 tokens."""
        return 2 * self.unit

    @abstractmethod
    def flow(self, x: Tensor, level: Level, condition: Condition) -> Tensor:
        """The flow ``eps - x0`` (batch, channels, h, w) at samples in the network's dtype."""

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        flow = self.flow(x.to(self.transformer.dtype), level, condition)
        return prediction_from(flow.to(x.dtype), x, level, self.prediction_type)

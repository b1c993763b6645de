"""Guidance: values that turn a denoiser and two conditions into a field."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from iterinv.conditions import Condition
from iterinv.levels import Field, Level, Prediction
from iterinv.typed import Checked, check_fields

Denoiser = Callable[[Tensor, Level, Condition], Prediction]
"""The prediction of a network for a sample (batch, channels, h, w) at a level, in the sample's dtype."""


class Guidance(ABC):
    """A way to combine the predictions for a positive and a negative condition; a frozen dataclass.

    ``scale`` is the guidance scale, 1 for none. ``fitted``: the negative condition was fitted to the inversion, so an
    edit keeps it.
    """

    scale: float
    fitted: ClassVar[bool] = False

    def with_scale(self, scale: float) -> Self:
        """The same guidance at another scale, or at its own where that is fixed."""
        return replace(self, scale=scale)  # type: ignore[type-var]

    def row(self, k: int) -> Self:
        """The guidance of the ``k``-th picture of a batch."""
        return self

    @abstractmethod
    def __call__(self, denoiser: Denoiser, positive: Condition, negative: Condition) -> Field: ...


@dataclass(frozen=True)
class CFG(Checked, Guidance):
    """Classifier-free guidance (Ho and Salimans, 2022): ``negative + scale (positive - negative)``.

    At scale 1, and where both conditions are one object, the negative half is not computed, and at scale 0 the positive
    half is not. Otherwise both halves go through the network as one batch, in both directions.
    """

    scale: float = 1.0

    def __call__(self, denoiser: Denoiser, positive: Condition, negative: Condition) -> Field:
        if self.scale == 1 or positive is negative:
            return unguided(denoiser, positive)
        if self.scale == 0:
            return unguided(denoiser, negative)

        def guided(x: Tensor, a: Level) -> Prediction:
            without, with_prompt = both(denoiser, x, a, negative, positive)
            return without.mix(with_prompt, self.scale)

        return guided


@dataclass(frozen=True, eq=False)
class PerLevelNull(Guidance):
    """Classifier-free guidance at a fixed scale with a null embedding (batch, tokens, width) of its own at every level.

    ``nulls`` maps levels to the embeddings that null-text inversion fitted; they replace the text of the negative
    condition.
    """

    scale: float
    nulls: Mapping[Level, Tensor] = field(repr=False)
    fitted: ClassVar[bool] = True

    def with_scale(self, scale: float) -> Self:
        return self

    def row(self, k: int) -> Self:
        return replace(self, nulls={a: x if len(x) == 1 else x[k : k + 1] for a, x in self.nulls.items()})

    def __call__(self, denoiser: Denoiser, positive: Condition, negative: Condition) -> Field:
        if self.scale == 1:
            return unguided(denoiser, positive)

        def guided(x: Tensor, a: Level) -> Prediction:
            null = negative.updated(text=self.nulls[a]) if a in self.nulls else negative
            without, with_prompt = both(denoiser, x, a, null, positive)
            return without.mix(with_prompt, self.scale)

        return guided


@dataclass(frozen=True)
class Proximal(Guidance):
    """Proximal guidance (Han, Wen, Chen, et al., 2024), https://arxiv.org/abs/2306.05414: only large differences guide.

    With ``d`` the difference of the two predictions and ``h`` the ``quantile`` of ``|d|`` of each picture by itself:

    * ``hard`` (the proximal map of l0): ``d`` where ``|d| > h``, else 0;
    * otherwise soft (of l1): ``sign(d) max(|d| - h, 0)``.

    Public code has the soft map under the name of l0, and under that of l1 one that flips signs; the tests show both.
    """

    scale: float = 1.0
    quantile: float = 0.7
    hard: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}; it lies in [0, 1)")

    def __call__(self, denoiser: Denoiser, positive: Condition, negative: Condition) -> Field:
        if positive is negative:
            return unguided(denoiser, positive)

        def guided(x: Tensor, a: Level) -> Prediction:
            without, with_prompt = both(denoiser, x, a, negative, positive)
            # At a level the differences of clean data and of noise are the same but for a factor, and so is their
            # threshold.
            difference = self.threshold(with_prompt.x0 - without.x0)
            return Prediction.from_x0(x, a, without.x0 + self.scale * difference)

        return guided

    def threshold(self, difference: Tensor) -> Tensor:
        """The proximal map of a difference (batch, ...)."""
        size = difference.abs()
        values = size.flatten(1).double().sort(1).values  # torch.quantile refuses more than 16 million values
        h = values[:, int(self.quantile * (values.shape[1] - 1))].to(size).reshape(-1, *[1] * (size.ndim - 1))
        return torch.where(size > h, difference, 0.0) if self.hard else difference.sign() * (size - h).clamp(min=0)


def unguided(denoiser: Denoiser, condition: Condition) -> Field:
    """The field of one condition alone."""
    return lambda x, a: denoiser(x, a, condition.expand(len(x)))


def both(
    denoiser: Denoiser, x: Tensor, a: Level, negative: Condition, positive: Condition
) -> tuple[Prediction, Prediction]:
    """The predictions for two conditions, by one batch through the network."""
    stacked = Condition.stack([negative, positive], len(x))
    x0, eps = denoiser(torch.cat([x, x]), a, stacked)
    (x0_negative, x0_positive), (eps_negative, eps_positive) = x0.chunk(2), eps.chunk(2)
    return Prediction(x0_negative, eps_negative), Prediction(x0_positive, eps_positive)

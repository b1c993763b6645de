"""Proximal guidance (Han, Wen, Chen, et al., 2024), https://arxiv.org/abs/2306.05414

Negative-prompt inversion, and in an edit only the large differences between what two prompts predict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from iterinv.inversion import StageInversion
from iterinv.models import Stage


@dataclass(frozen=True)
class Proximal:
    """With ``d`` the difference of the two predictions and ``h`` the ``quantile`` of ``|d|`` of each picture by itself:

    * ``hard`` (the proximal map of l0): ``d`` where ``|d| > h``, else 0;
    * otherwise soft (of l1): ``sign(d) max(|d| - h, 0)``.

    Public code has the soft map under the name of l0, and under that of l1 one that flips signs; the tests show both.
    """

    quantile: float = 0.7
    hard: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}; it lies in [0, 1)")

    def __call__(self, stage: Stage, found: StageInversion) -> StageInversion:
        return replace(found, condition=replace(found.condition, null=found.condition.text, shape=self.shape))

    def shape(self, difference: Tensor) -> Tensor:
        size = difference.abs()
        values = size.flatten(1).double().sort(1).values  # torch.quantile refuses tensors of more than 16 million values
        h = values[:, int(self.quantile * (values.shape[1] - 1))].to(size).reshape(-1, *[1] * (size.ndim - 1))
        return torch.where(size > h, difference, 0.0) if self.hard else difference.sign() * (size - h).clamp(min=0)

"""Fixed-point arithmetic for rules that undo themselves bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Multiples:
    """Numbers that are multiples of ``2 ** -bits``, in int64: adding and subtracting them is exact.

    Between steps a float64 carries them, exactly below ``2 ** (53 - bits - spare)``; a float32 carries at most
    ``single`` bits, below ``2 ** (24 - bits - spare)``. ``spare`` bits are for numbers that are carried times a factor,
    whose rounding must not reach the next multiple. ``unit`` names what the numbers are measured in, for messages.
    """

    bits: int
    single: int = 18
    unit: str = ""
    spare: int = 0

    def fixed(self, x: Tensor) -> Tensor:
        """The nearest multiples of a float64 or float32, in units of ``2 ** -bits``. Raises ``OverflowError`` above
        what the dtype carries, and ``TypeError`` for another dtype."""
        bits, limit = self._of(x)
        self._check(x, limit, limit)
        return (x * 2.0**bits).round().to(torch.int64)

    def real(self, s: Tensor, like: Tensor) -> Tensor:
        """The numbers that multiples stand for, in the dtype of ``like``. Raises as :meth:`fixed` does."""
        bits, limit = self._of(like)
        self._check(s, limit * 2**bits, limit)
        return s.to(like.dtype) * 2.0**-bits

    def _check(self, values: Tensor, below: float, limit: float) -> None:
        if not bool((values.abs() < below).all()):  # NaN is not below either
            raise OverflowError(
                f"it is not a number below {limit:g}{self.unit}, where fixed-point arithmetic ends; use less guidance, "
                "fewer bits or a float32 network"
            )

    def _of(self, x: Tensor) -> tuple[int, float]:
        """Return the fraction bits that a tensor of this dtype carries, and the limit of its numbers."""
        if x.dtype == torch.float64:
            return self.bits, 2.0 ** (53 - self.bits - self.spare)
        if x.dtype == torch.float32:
            bits = min(self.bits, self.single)
            return bits, 2.0 ** (24 - bits - self.spare)
        raise TypeError(f"fixed-point states are carried in float64 or float32, not {x.dtype}")

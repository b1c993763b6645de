"""Noise levels, predictions, and the one linear map that all solver steps are made of.

A noisy sample is ``x = alpha * x0 + sigma * eps`` everywhere in this package: clean data ``x0`` and unit noise ``eps``.
Grids run from noisy to clean. Coefficients are Python floats (double precision, no device, hashable).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor


class Level(NamedTuple):
    """A point of the noise schedule. ``t`` is the timestep that the network is given for it."""

    t: float
    alpha: float
    sigma: float

    @property
    def noise_scale(self) -> float:
        """The spread of the pure noise that sampling starts from at this level: ``sigma`` where noise is added to the
        data, as in EDM, and 1 where the two are mixed, as diffusers starts."""
        return self.sigma if self.alpha == 1 else 1.0


class Prediction(NamedTuple):
    """The clean data and the noise that a network predicts, both (batch, ...): ``x = alpha * x0 + sigma * eps``.

    No step divides by alpha, so a level without signal (alpha 0, where flow models and schedules rescaled to zero
    terminal signal begin) is an ordinary level.
    """

    x0: Tensor
    eps: Tensor

    def at(self, level: Level) -> Tensor:
        """The sample at a level: ``alpha * x0 + sigma * eps``.

        DDIM (Song, Meng, Ermon, 2021, eq. 12 with eta = 0) is this map at the next level.
        """
        return (level.alpha * self.x0).add_(level.sigma * self.eps)

    @classmethod
    def from_x0(cls, x: Tensor, a: Level, x0: Tensor) -> Prediction:
        """The pair of a sample at level ``a`` and its clean data. ``a`` holds noise."""
        return cls(x0, (x - a.alpha * x0) / a.sigma)

    @classmethod
    def from_eps(cls, x: Tensor, a: Level, eps: Tensor) -> Prediction:
        """The pair of a sample at level ``a`` and its noise. Raises ``ValueError`` for a level without signal."""
        if a.alpha == 0:
            raise ValueError(
                f"the level with timestep {a.t:g} has no signal, so the noise does not determine the picture "
                "there: take leading spacing, or a network that predicts the velocity, the flow or the sample"
            )
        return cls((x - a.sigma * eps) / a.alpha, eps)

    def mix(self, other: Prediction, weight: float | Tensor) -> Prediction:
        """``(1 - weight) * self + weight * other``, which is a pair for the same sample again."""
        return Prediction(*(u + weight * (v - u) for u, v in zip(self, other, strict=True)))


Grid = Sequence[Level]
"""The levels that a run visits, noisy to clean: ``n + 1`` of them for ``n`` steps."""

Field = Callable[[Tensor, Level], Prediction]
"""The prediction for a sample (batch, ...) at a level, in the sample's dtype."""

State = tuple[Tensor, ...]
"""Everything that a rule keeps from step to step; ``state[0]`` is the sample."""

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")
"""The prediction types of networks, in diffusers' words."""


def prediction_from(output: Tensor, x: Tensor, a: Level, prediction_type: str) -> Prediction:
    """The prediction that a network's output for ``x`` at level ``a`` means.

    ``epsilon`` is the noise, ``sample`` the clean data, ``v_prediction`` the velocity ``alpha eps - sigma x0`` of a
    variance-preserving schedule (Salimans and Ho, 2022) and ``flow_prediction`` the flow ``eps - x0`` of a path with
    ``alpha + sigma = 1`` (Lipman et al., 2023). Raises ``ValueError`` for another type.
    """
    if prediction_type == "epsilon":
        return Prediction.from_eps(x, a, output)
    if prediction_type == "sample":
        return Prediction.from_x0(x, a, output)
    if prediction_type == "v_prediction":
        return Prediction(a.alpha * x - a.sigma * output, a.alpha * output + a.sigma * x)
    if prediction_type == "flow_prediction":
        return Prediction(x - a.sigma * output, x + a.alpha * output)
    raise ValueError(f"prediction type {prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")


def move(x: Tensor, eps: Tensor, a: Level, b: Level) -> Tensor:
    """``x`` at level ``a`` carried to level ``b`` along the noise ``eps``: ``b.alpha * x0 + b.sigma * eps``.

    Exact for a fixed ``eps``, and a group: a to b to c is a to c.
    """
    return Prediction.from_eps(x, a, eps).at(b)


def constant(prediction: Prediction) -> Field:
    """The field that is one prediction everywhere: for a step whose prediction is known."""
    return lambda x, a: prediction

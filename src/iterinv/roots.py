"""Solvers of ``residual(u) = 0``. They know nothing of diffusion.

A residual takes and gives (batch, ...) and treats every sample of the batch by itself; so do the solvers, so that a
batch of n equals n batches of one. A residual should be close to ``u - root``, so that subtracting it is a good first
step. A solver returns the size of the residual at its root if it has measured it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from iterinv.typed import Checked, Count, Positive

Residual = Callable[[Tensor], Tensor]


class Root(NamedTuple):
    """``error`` (batch,) is the root mean square of the residual at ``value``; NaN where it was not
    measured."""

    value: Tensor
    error: Tensor
    calls: int


class LevelInfo(NamedTuple):
    """The place of a problem in a sequence of problems.

    ``share`` runs from 0 at the first to 1 at the last. ``scale`` is the factor on the residual that brings it
    close to ``u - root``. ``t`` is the timestep that the network receives.
    """

    share: float = 0.0
    scale: float = 1.0
    t: float = math.inf


RootFinder = Callable[[Residual, Tensor, LevelInfo], Root]


def rms(x: Tensor) -> Tensor:
    """Root mean square of each sample: (batch, ...) to (batch,)."""
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    size: float = x[0].numel() ** 0.5
    return norms / size


def _unknown(u: Tensor) -> Tensor:
    return torch.full((len(u),), float("nan"), dtype=torch.float64, device=u.device)


def each(values: Tensor, like: Tensor) -> Tensor:
    """Values (batch,) in a shape that broadcasts with ``like`` (batch, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class FixedPoint(Checked):
    """``u <- u - residual(u)``, a fixed number of times. Once, from the known state, is DDIM inversion."""

    iterations: Count = 1

    def __call__(self, residual: Residual, guess: Tensor, where: LevelInfo = LevelInfo()) -> Root:
        u = guess
        for _ in range(self.iterations):
            u = u - residual(u)
        return Root(u, _unknown(u), self.iterations)


@dataclass(frozen=True)
class Average(Checked):
    """The mean of the ``last`` of as many fixed-point iterates: where they circle the root, their mean is nearer to it.

    ReNoise (Garibi, Patashnik, Voynov, Averbuch-Elor, Cohen-Or, 2024, https://arxiv.org/abs/2403.14602) averages
    predicted noise so, which is the same, since a state is linear in it. At timesteps below ``small`` it takes six
    iterates and averages the first five, which :meth:`as_published` does too; the default does not, since iterates that
    are still on their way make a worse root. Its regularisation of the noise is not part of this.

    Raises ``ValueError`` for a ``last`` of more than ``iterations``.
    """

    iterations: Count = 10
    last: Count = 2
    small: Positive = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last > self.iterations:
            raise ValueError(f"last is {self.last}, more than the {self.iterations} iterations whose mean it takes")

    @classmethod
    def as_published(cls) -> Average:
        """The released settings, for labels from 0 to 999: six iterates below 250, ten above."""
        return cls(small=250.0)

    def __call__(self, residual: Residual, guess: Tensor, where: LevelInfo = LevelInfo()) -> Root:
        iterations, averaged = self.iterations, range(self.iterations - self.last, self.iterations)
        if where.t < self.small:
            iterations, averaged = 6, range(5)
        u, mean = guess, torch.zeros_like(guess)
        for k in range(iterations):
            u = u - residual(u)
            if k in averaged:
                mean = mean + u / len(averaged)
        return Root(mean, _unknown(u), iterations)


@dataclass(frozen=True)
class GradientDescent(Checked):
    """Descent on the summed square of the unscaled residual, as IterInv publishes it (Tang, Wang, van de Weijer, 2023).

    A fixed number of iterations from the known state, at the rate ``rate * sqrt(1 - share / 2)``, with neither test nor
    stop: the last iterate is returned unmeasured. Every iteration costs one call and one backward pass.
    """

    iterations: Count = 21
    rate: Positive = 0.3
    gradients = True

    def __call__(self, residual: Residual, guess: Tensor, where: LevelInfo = LevelInfo()) -> Root:
        u, rate = guess, self.rate * math.sqrt(1 - where.share / 2)
        for _ in range(self.iterations):
            with torch.enable_grad():
                v = u.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad((residual(v) / where.scale).square().sum(), v)
            u = u - rate * slope
        return Root(u, _unknown(u), self.iterations)


@dataclass(frozen=True)
class Damped(Checked):
    """``u <- u - damping * residual(u)`` with a residual test: no backward pass, and a sample stops at ``tolerance``.

    The first step is whole, and so DDIM inversion. Where a step made a sample worse, it goes on from its best iterate
    with half the damping. Returns the best iterate.
    """

    iterations: Count = 30
    tolerance: Positive = 1e-5
    damping: Positive = 0.5

    def __call__(self, residual: Residual, guess: Tensor, where: LevelInfo = LevelInfo()) -> Root:
        u, best, least = guess, guess, torch.zeros_like(guess)
        error = torch.full((len(guess),), torch.inf, dtype=torch.float64, device=guess.device)
        damping = torch.full_like(error, self.damping)
        for calls in range(1, self.iterations + 1):
            r = residual(u)
            now = rms(r.double())
            better = now < error
            best, least = torch.where(each(better, u), u, best), torch.where(each(better, u), r, least)
            damping = torch.where(better, damping, damping / 2)
            error = torch.where(better, now, error)
            if calls == self.iterations or bool((error <= self.tolerance).all()):
                break
            size = torch.where(error <= self.tolerance, 0.0, damping if calls > 1 else 1.0)
            u = best - each(size, u).to(u.dtype) * least
        return Root(best, error, calls)


@dataclass(frozen=True)
class Anderson(Checked):
    """Anderson acceleration (Walker & Ni, 2011) with a residual test: stops a sample when its error is at most
    ``tolerance``.

    The step is the combination of the last ``memory`` steps that would have the smallest residual if the residual were
    linear; its small least-squares problem is solved in float64, one a sample, with a relative ridge. Where an
    accelerated iterate has more than twice the error of the best one, that sample falls back to a damped step from its
    best. Returns the best iterate.
    """

    iterations: Count = 12
    tolerance: Positive = 1e-5
    memory: Count = 4
    ridge: Positive = 1e-10

    def __call__(self, residual: Residual, guess: Tensor, where: LevelInfo = LevelInfo()) -> Root:
        u, best = guess, guess
        error = torch.full((len(guess),), torch.inf, dtype=torch.float64, device=guess.device)
        least = torch.zeros_like(guess)  # the residual at the best iterate
        points: list[Tensor] = []
        residuals: list[Tensor] = []
        for calls in range(1, self.iterations + 1):
            r = residual(u)
            now = rms(r.double())
            better = each(now < error, u)
            best, least = torch.where(better, u, best), torch.where(better, r, least)
            worse = each(~(now <= 2 * error), u)  # NaN is worse
            error = error.fmin(now)
            r = r.nan_to_num(0.0, 0.0, 0.0)  # a memory of what is not finite would spoil every later step
            if calls == self.iterations or bool((error <= self.tolerance).all()):
                break
            points, residuals = [*points, u][-self.memory :], [*residuals, r][-self.memory :]
            u = torch.where(worse, best - 0.5 * least, self._next(points, residuals))
            u = torch.where(each(error <= self.tolerance, u), best, u)
        return Root(best, error, calls)

    def _next(self, points: list[Tensor], residuals: list[Tensor]) -> Tensor:
        u, r = points[-1], residuals[-1]
        if len(points) == 1:
            return u - r
        du = torch.stack([u - p for p in points[:-1]], -1).flatten(1, -2).double()
        dr = torch.stack([r - p for p in residuals[:-1]], -1).flatten(1, -2).double()
        gram = dr.mT @ dr
        trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] + 1e-200  # a sample at rest has a Gram of zeros
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        mix: Tensor = torch.linalg.solve(gram + self.ridge * trace * eye, dr.mT @ r.flatten(1)[..., None].double())
        flat = u.flatten(1).double() - r.flatten(1).double() - ((du - dr) @ mix)[..., 0]
        return flat.to(u.dtype).reshape(u.shape)

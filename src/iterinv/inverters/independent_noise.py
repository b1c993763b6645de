"""A path of independent noises, for edit-friendly DDPM inversion."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from iterinv.inverters.inverter import Inverted, Inverter
from iterinv.levels import Field, Grid, State
from iterinv.steps import OneStep, Step


@dataclass(frozen=True)
class IndependentNoise(Inverter):
    """At every level the picture under a noise of its own, ``alpha x0 + sigma n_i``, from one generator; no network call.

    With :class:`iterinv.refine.Offsets` this is edit-friendly DDPM inversion (Huberman-Spiegelglas, Kulikov, Michaeli, 2024),
    https://arxiv.org/abs/2304.06140
    """

    follows_rule = False

    def check(self, rule: Step) -> None:
        if not isinstance(rule, OneStep):
            raise ValueError(
                f"{type(rule).__name__} remembers more than one state, which independent noises do not give: take DDPM or DDIM"
            )

    def __call__(self, rule: Step, field: Field, x: Tensor, grid: Grid, seed: int = 0) -> Generator[State, None, Inverted]:
        generator, path = torch.Generator().manual_seed(seed), []
        for level in grid[:-1]:
            noise = torch.randn((1, *x.shape[1:]), generator=generator).to(x)
            path.append(level.alpha * x + level.sigma * noise)
            yield (path[-1],)
        yield (x,)
        return Inverted(rule.init(path[0]), [*path, x])

"""A path of independent noises, for edit-friendly DDPM inversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from iterinv.inverters.inverter import Inverted, Inverter, Walk
from iterinv.levels import Field, Grid
from iterinv.steps import OneStep, Step
from iterinv.streams import draw_noise


@dataclass(frozen=True)
class IndependentNoise(Inverter):
    """Noise the picture at every level independently, ``alpha x0 + sigma n_i``, each from its own stream; no network
    call.

    With :class:`iterinv.refine.Offsets` this is edit-friendly DDPM inversion (Huberman-Spiegelglas, Kulikov, Michaeli,
    2024), https://arxiv.org/abs/2304.06140
    """

    follows_rule = False

    def check(self, rule: Step) -> None:
        if not isinstance(rule, OneStep):
            raise ValueError(
                f"{type(rule).__name__} remembers more than one state, which independent noises do not give: "
                "take DDPM or DDIM"
            )

    def __call__(self, rule: Step, field: Field, x: Tensor, grid: Grid, seeds: Sequence[int] = (0,)) -> Walk:
        path = []
        for i, level in enumerate(grid[:-1]):
            noise = draw_noise(x.shape[1:], seeds, "independent noise", i).to(x)
            path.append(level.alpha * x + level.sigma * noise)
            yield (path[-1],)
        yield (x,)
        return Inverted(rule.init(path[0]), [*path, x])

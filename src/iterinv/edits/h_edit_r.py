"""h-Edit with a random path (Nguyen, Do, Kieu, Nguyen, 2025), https://arxiv.org/abs/2503.02187"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from iterinv.edits.h_edit_d import HEditD
from iterinv.edits.site import Site
from iterinv.inverters import IndependentNoise
from iterinv.stage_inversion import finish
from iterinv.steps import DDPM, OneStep
from iterinv.typed import Natural


@dataclass(frozen=True)
class HEditR(HEditD):
    """h-Edit-R without attention control: :class:`iterinv.edits.HEditD` by DDPM's step along independent noises.

    The path is that of edit-friendly inversion, drawn from ``seed``, so that the correction of a step is its noise map.
    No state of the inversion is computed or used.
    """

    seed: Natural = 0

    @property
    def rule(self) -> OneStep:
        return DDPM()

    def path(self, site: Site) -> Sequence[Tensor]:
        clean = site.path[-1]
        walk = IndependentNoise()(self.rule, site.source(), clean, site.grid, [self.seed] * len(clean))
        return finish(walk).path

"""A root finder of your own: Aitken's extrapolation of a fixed-point iteration. Listing a method makes it known by
name.

python examples/extending/root_finder.py [cascade folder]
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import iterinv
from iterinv.inverters import Solve
from iterinv.methods import METHODS, Method
from iterinv.roots import LevelInfo, Residual, Root, rms
from iterinv.steps import DDIM


@dataclass(frozen=True)
class Aitken:
    """Two fixed-point steps, and the point where their geometric series would end, value by value; repeated ``cycles``
    times.

    A value moves at most ``reach`` times as far as the two steps moved it.
    """

    cycles: int = 4
    reach: float = 4.0

    def __call__(self, residual: Residual, guess: Tensor, where: LevelInfo = LevelInfo()) -> Root:
        u = guess
        for _ in range(self.cycles):
            first = -residual(u)
            second = -residual(u + first)
            factor = first / (first - second + 1e-12 * torch.sign(first - second) + 1e-30)
            u = u + first * factor.clamp(0, self.reach)
        return Root(u, rms(residual(u).double()), 2 * self.cycles + 1)


METHODS["iterinv-aitken"] = Method("DDIM solved by Aitken's extrapolation", DDIM(), Solve(Aitken()))

if __name__ == "__main__":
    cascade = iterinv.load(*sys.argv[1:])
    picture = Path(__file__).parents[1] / "red-sphere.png"
    inversion = cascade.invert(picture, "a red sphere", "iterinv-aitken", num_inference_steps=10)
    inversion.save("aitken.safetensors")
    print(f"solved to {inversion.stages[0].report.root_error_max:.1e} at stage I, by {inversion.stages[0].plan.method}")

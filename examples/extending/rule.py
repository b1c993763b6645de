"""A solver step of your own: Adams-Bashforth of second order. Listing it makes it a sampler by name.

python examples/extending/rule.py [cascade folder]
"""

import sys
from dataclasses import dataclass

from torch import Tensor

import iterinv
from iterinv.levels import Field, Grid, State, move
from iterinv.steps import RULES


@dataclass(frozen=True)
class AdamsBashforth2:
    """``x_b = move(x_a, e_a + h_b / (2 h_p) (e_a - e_p), a, b)``, with ``h`` the steps of ``sigma / alpha``.

    One network call a step. The first step, which has no past, and the last, into the clean end, are DDIM. The state is
    ``(x_a, e_p)``: the sample, and the noise predicted at the level before.
    """

    order = 2

    def init(self, x: Tensor, *older: Tensor) -> State:
        return (x,)

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        (x, *past), a, b = state, grid[i], grid[i + 1]
        e = field(x, a).eps
        if not past or b.sigma == 0:
            return move(x, e, a, b), e
        p = grid[i - 1]
        ratio = (b.sigma / b.alpha - a.sigma / a.alpha) / (a.sigma / a.alpha - p.sigma / p.alpha)
        return move(x, e + ratio / 2 * (e - past[0]), a, b), e


RULES["ab2"] = AdamsBashforth2()

if __name__ == "__main__":
    cascade = iterinv.load(*sys.argv[1:])
    (picture,) = cascade("a red sphere on a wooden floor", num_inference_steps=6, rule="ab2").images
    picture.save("sample.png")
    print(f"sampled {picture.size[0]} px by ab2")

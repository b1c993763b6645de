"""FlowEdit agrees with a closed form and restores the background."""

import math

import pytest
import torch

from iterinv.cascade import Cascade
from iterinv.edits import FlowEdit, Given
from iterinv.edits.flowedit import Flow
from iterinv.guidance import CFG
from iterinv.levels import move
from iterinv.models.toy import arc, gaussian
from iterinv.steps.run import run
from iterinv.streams import draw_noise

OLD, NEW, STD = -0.2, 0.3, 0.5


def edited(x, steps, averages=1):
    grid = arc(steps)
    flow = Flow(gaussian(OLD, STD), x, averages, seed=0)
    *_, (z,) = run(flow, gaussian(NEW, STD), flow.init(x), grid)
    return z


def truth(x):
    """Solve ``d(u - D)/ds = (u - D) s / (std^2 + s^2)`` for Gaussians of one width: ``u`` is the edit's shift, ``D``
    the means'."""
    noisy, clean = arc(2)[0], arc(2)[-1]
    high, low = ((STD**2 + (a.sigma / a.alpha) ** 2) for a in (noisy, clean))
    return x + clean.alpha * (NEW - OLD) * (1 - math.sqrt(low / high))


@pytest.mark.parametrize("averages", [1, 3])
def test_of_two_gaussians_it_is_the_shift_from_one_to_the_other(averages):
    """The noise is in both and cancels, for every draw. The error halves with twice the steps."""
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(1, 3, 2, 2)
    shift = edited(x, 40, averages) - x
    torch.testing.assert_close(shift, shift.mean().expand_as(shift), rtol=0, atol=1e-12)
    coarse, fine = (float((edited(x, steps, averages) - truth(x)).abs().max()) for steps in (100, 200))
    assert fine < 5e-3
    assert coarse / fine == pytest.approx(2, rel=0.1)


def test_between_two_passes_nothing_moves():
    grid = arc(4)
    flow, state = Flow(gaussian(), torch.ones(1, 3, 2, 2), 1, 0), (torch.ones(1, 3, 2, 2),)
    assert flow.step(None, state, (*grid, *grid), 4) is state


def test_it_is_the_published_algorithm_with_the_published_defaults(tiny):
    """The oracle is algorithm 1 written with velocities of ``x / alpha`` over ``sigma / alpha``, at Stable Diffusion
    3's settings: the last 33 of 50 steps, the target's flow guided by 13.5 and the source's by 3.5, one noise."""
    cascade = Cascade(tiny.stages[:1])
    stage, (x,) = cascade.stages[0], torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))[None] * 2 - 1
    words, target = "a red sphere", "a blue cube"
    inversion = cascade.invert(x, words, "bdia", 50, as_needed=True)
    edit = cascade.edit(inversion, target, "flowedit")
    assert edit.reports[0]["strength"] == pytest.approx(33 / 50)
    assert edit.masks is None
    grid, empty = inversion.stages[0].grid, stage.condition("")
    flows = [
        CFG(scale)(stage.denoiser, stage.condition(prompt), empty) for scale, prompt in ((3.5, words), (13.5, target))
    ]
    z = x = x.double()
    for i in range(17, 50):
        a, b, clean = grid[i], grid[i + 1], grid[-1]
        noise = draw_noise((3, 16, 16), [0], "flowedit", i, 0).double()
        slopes = [flow(move(each, noise, clean, a), a).eps for flow, each in zip(flows, (x, z), strict=True)]
        z = z + clean.alpha * (b.sigma / b.alpha - a.sigma / a.alpha) * (slopes[1] - slopes[0])
    torch.testing.assert_close(edit.pictures[0].double(), z.clamp(-1, 1), rtol=0, atol=1e-6)


def test_a_region_limits_it(tiny):
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8, :] = 1
    cascade = Cascade(tiny.stages[:1])
    inversion = cascade.invert(torch.zeros(1, 3, 16, 16), "a red sphere", as_needed=True)
    edit = cascade.edit(inversion, "a blue cube", FlowEdit(region=Given(mask)))
    assert bool((edit.pictures[0][..., 8:, :] == 0).all())
    assert float(edit.pictures[0][..., :8, :].abs().min()) > 0

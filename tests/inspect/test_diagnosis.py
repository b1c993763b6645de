"""Each test makes one loss on purpose and checks that the diagnosis names it."""

from dataclasses import replace

import pytest
import torch

from iterinv.cascade import Cascade
from iterinv.inspect.diagnosis import diagnose
from iterinv.inverters import Solve
from iterinv.levels import Prediction
from iterinv.methods import plan
from iterinv.plans import Plan, Refinement
from iterinv.roots import FixedPoint
from iterinv.stage_inversion import NotExact
from iterinv.steps import BDIA, DDIM

PROMPT = "a red sphere on a wooden floor"


@pytest.fixture
def photo():
    values = torch.randint(0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(2))
    return values.float() / 127.5 - 1


def test_an_exact_inversion_loses_nothing(first, photo):
    (losses,), why = diagnose(first.stages, first.invert(photo, PROMPT, plan("bdia", 6)), photo)
    assert why == "Every pixel comes back, at every stage."
    assert losses["round_trip"] < 1e-6
    assert losses["codec"] is None
    assert losses["dtype"] < 1e-12


def test_the_solver_is_named(first, photo):
    (losses,), why = diagnose(
        first.stages, first.invert(photo, PROMPT, Plan(DDIM(), Solve(FixedPoint(1)), steps=6)), photo
    )
    assert losses["solver"] == losses["round_trip"] > 1e-3
    assert why.startswith("Stage I loses most")
    assert "the solver: the rerun of DDIM+FixedPoint leaves the inverted states" in why


def test_guidance_is_named_where_it_is_what_is_lost(first, photo):
    """The inversion is unguided and solved well; its guided rerun uses a null embedding that was never fitted."""

    class Nothing(Refinement):
        def __call__(self, stage, inversion):
            return inversion

    how = replace(plan("iterinv-anderson", 4), refine=Nothing(), guidance=9.0)
    inversion = first.invert(photo, PROMPT, how)
    (losses,), why = diagnose(first.stages, inversion, photo)
    assert losses["guidance"] > 2 * losses["solver"]
    assert "guidance 9: the rerun leaves the path" in why


def test_rounding_is_told_by_what_the_rule_multiplies(first, photo):
    tame, wild = (
        diagnose(first.stages, first.invert(photo, PROMPT, Plan(BDIA(gamma), steps=12, dtype="float32")), photo)[0][0][
            "dtype"
        ]
        for gamma in (1.0, 0.6)
    )
    assert wild > 100 * tame


def test_what_nothing_explains_is_not_laid_on_rounding(first, photo):
    """The network does not predict the same twice."""
    draws = torch.Generator().manual_seed(0)

    def moody(x, level, condition):
        return Prediction.from_eps(x, level, x + 0.3 * torch.randn(x.shape, generator=draws, dtype=x.dtype))

    broken = Cascade((replace(first.stages[0], denoiser=moody),))
    (losses,), why = diagnose(broken.stages, broken.invert(photo, PROMPT, plan("edict", 6)), photo)
    assert losses["round_trip"] > 1e-2
    assert "the network may not predict the same noise twice" in why
    with pytest.raises(NotExact, match=r"pixels do not come back.*`iterinv doctor`"):
        broken.invert(photo, PROMPT, plan("bdia", 6))

"""`bdia` and `bdia-fixed` give every pixel back under all settings, or refuse with the remedy."""

import random
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch

from iterinv.cascade import Cascade, load
from iterinv.images import to_uint8
from iterinv.methods import plan
from iterinv.plans import Plan
from iterinv.stage_inversion import NotExact
from iterinv.steps import EDICT, FixedPointBDIA

PROMPT = "a red sphere on a wooden floor"
NETWORKS = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def stages(tiny_folder):
    return {dtype: Cascade(load(str(tiny_folder), dtype=dtype).stages[:1]) for dtype in NETWORKS}


def photo(seed, size=16):
    values = torch.randint(0, 256, (1, 3, size, size), generator=torch.Generator().manual_seed(seed))
    return values / 127.5 - 1


def drawn(seed):
    """Draw a method, a network's dtype and a picture from ``seed``."""
    rng = random.Random(seed)
    made = plan(rng.choice(["bdia", "bdia-fixed"]), rng.randint(2, 50), rng.choice([1.0, 2.0, 3.0, 5.0, 7.5, 15.0]))
    spacing = rng.choice([None, "leading", "trailing", "linspace"])
    made = replace(made, dtype=rng.choice(["float32", "float64"]), spacing=spacing)
    flat = rng.choice([None, None, -1.0, 128 / 127.5 - 1, 1.0])
    x = photo(seed) if flat is None else torch.full((1, 3, 16, 16), flat)
    return made, rng.choice(NETWORKS), x


def check(stages, seed):
    """Invert and rerun; return "exact", "refused" if the sentence has a remedy, or a description of the fault."""
    made, dtype, x = drawn(seed)
    try:
        inversion = stages[dtype].invert(x, PROMPT, made)
    except ArithmeticError as error:
        return "refused" if re.search(r"\b(take|use)\b", str(error)) else f"no remedy: {error}"
    for each in (inversion, stages[dtype].rerun(inversion)):
        if not (to_uint8(each.picture) == to_uint8(x)).all():
            return f"lost: {seed} {made} {dtype}"
    return "exact"


@pytest.mark.filterwarnings("ignore")
def test_what_is_drawn_comes_back_or_is_refused(stages):
    came = Counter(check(stages, seed) for seed in range(12))
    assert came.keys() <= {"exact", "refused"}
    assert came["exact"] >= 9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_270_draws_come_back_or_are_refused(stages):
    came = Counter(check(stages, seed) for seed in range(270))
    assert came.keys() <= {"exact", "refused"}
    assert came["exact"] >= 240


def test_a_loss_is_refused_with_the_remedy(stages):
    """Half precision loses the picture under ``bdia``; ``bdia-fixed`` returns it."""
    stage, x = stages[torch.float16], photo(10)
    lossy = replace(plan("bdia", 20, 15.0), dtype="float32")
    with pytest.raises(NotExact, match=r"stage I by bdia: \d+ of 256 pixels do not come back.*bdia-fixed"):
        stage.invert(x, PROMPT, lossy)
    fixed = stage.invert(x, PROMPT, replace(plan("bdia-fixed", 20, 15.0), dtype="float32"))
    assert (to_uint8(fixed.picture) == to_uint8(x)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_loss_in_float32_states_is_refused_whatever_the_rule(stages, dtype):
    """A grid that begins nearly without signal enlarges the rounding there, and so does half precision."""
    spacing = "linspace" if dtype == torch.float32 else None
    with pytest.raises(NotExact, match="float64 states"):
        stages[dtype].invert(photo(0), PROMPT, Plan(EDICT(), spacing=spacing, dtype="float32", guidance=15.0))


def test_the_residual_of_fixed_point_states_holds_the_rounding_of_the_picture(stages):
    """In float32 a picture's values lie between the multiples of the fixed point; in float64 they are such."""
    reports = [
        stages[torch.float32].invert(photo(0), PROMPT, Plan(FixedPointBDIA(), steps=5, dtype=dtype)).stages[0].report
        for dtype in ("float32", "float64")
    ]
    assert 0 < reports[0].residual_max <= 2.0**-19
    assert reports[1].residual_max == 0

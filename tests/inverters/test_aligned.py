"""The aligned rerun returns the path under the same prompt, exactly, and is a DDIM step of the new prompt otherwise."""

import pytest
import torch
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from iterinv.cascade import Cascade, load
from iterinv.edits import PromptSwap
from iterinv.inverters import Align
from iterinv.methods import plan
from iterinv.models.toy import arc, mixture
from iterinv.plans import Plan
from iterinv.roots import rms
from iterinv.schedules import from_config
from iterinv.stage_inversion import invert_stage
from iterinv.steps import BDIA, DDIM
from iterinv.steps.aligned import Aligned, scaled
from iterinv.steps.run import NotFinite, run

from conftest import draw, result

PROMPT, TARGET = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"


def guided(scale):
    """Return a field guided from one mixture of Gaussians to another, as far from linear as a network."""
    one, other = mixture(0.6), mixture(0.2, 0.4)
    return lambda x, a: one(x, a).mix(other(x, a), 1 - scale)


@settings(max_examples=30, deadline=None)
@given(st.integers(10, 100), st.floats(1, 7), st.sampled_from([0, 40]), st.integers(0, 9))
@example(94, 6.878877019320385, 40, 6)  # samples of some thousand alpha, where a product with alpha loses a bit
def test_the_same_prompt_returns_the_path(steps, scale, bits, seed):
    grid, field = arc(steps), guided(scale)
    try:
        state, path, _ = result(Align(bits)(DDIM(), field, draw((1, 3, 4, 4), seed).double().clamp(-1, 1), grid))
    except NotFinite:
        reject()  # it says so: samples of 2048 alpha and more are refused
    largest = max(float(p.abs().max()) for p in path)
    for p, (z,) in zip(path, run(Aligned(DDIM(), path, bits), field, state, grid), strict=True):
        error = float((z - p).abs().max())
        assert error == 0 if bits else error <= 1e-12 * max(largest, 1)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float64, 40), (torch.float32, 11)])
def test_a_sample_over_alpha_survives_the_product_with_alpha(dtype, bits):
    """Every multiple below the limit comes back from ``alpha s``, whatever alpha is."""
    fixed, generator = scaled(40), torch.Generator().manual_seed(0)
    s = torch.randint(-(2 ** (bits + 11)) + 1, 2 ** (bits + 11), (20_000,), generator=generator)
    alpha = float(torch.rand((), generator=generator, dtype=torch.float64)) * 0.01
    like = torch.empty(0, dtype=dtype)
    assert torch.equal(fixed.fixed(alpha * fixed.real(s, like) / alpha), s)
    with pytest.raises(OverflowError, match="below 2048 alpha"):
        fixed.fixed(torch.full((1,), 2048.0, dtype=dtype))


def test_the_inverted_path_is_ddim_inversions():
    grid, field, x = arc(12), guided(3.0), draw((1, 3, 4, 4), 0).double()
    (z,), path, _ = result(Align()(DDIM(), field, x, grid))
    (other,), _, _ = result(plan("ddim").inverter(DDIM(), field, x, grid))
    assert torch.allclose(z, other, rtol=0, atol=1e-12)
    fixed = result(Align(40)(DDIM(), field, x, grid)).path
    assert all(torch.allclose(p, q, rtol=0, atol=1e-9) for p, q in zip(path, fixed, strict=True))


def test_another_prompt_takes_a_ddim_step_where_the_network_is_asked_beside_the_path():
    """This is the paper's step, written out; both forms take it."""
    grid, (source, target), x = arc(8), (guided(1.0), guided(4.0)), draw((1, 3, 4, 4), 1).double()
    for bits, tolerance in ((0, 1e-13), (40, 1e-9)):
        state, path, _ = result(Align(bits)(DDIM(), source, x, grid))
        z, states = state[0], run(Aligned(DDIM(), path, bits), target, state, grid)
        for i, (now,) in enumerate(states):
            assert torch.allclose(now, z, rtol=0, atol=tolerance)
            if i < 8:
                a, b = grid[i], grid[i + 1]
                eps = target(z + path[i + 1] - path[i], a).eps
                z = b.alpha * (z - a.sigma * eps) / a.alpha + b.sigma * eps


RUNS = [(k, n, scale) for k in range(3) for n in (10, 20, 50, 100) for scale in (1.0, 3.0, 7.0)]
QUICK = [(0, 10, 1.0), (0, 10, 7.0), (1, 10, 3.0)]


@pytest.mark.parametrize(
    ("stage", "steps", "guidance"), [pytest.param(*r, marks=[] if r in QUICK else pytest.mark.slow) for r in RUNS]
)
def test_every_stage_of_the_embedded_cascade_comes_back(stage, steps, guidance, picture):
    one = Cascade(load("embedded").stages[: stage + 1])
    x = torch.nn.functional.interpolate(picture, (one.size, one.size), mode="bilinear").double()
    condition = one.stages[stage].condition(PROMPT, *low(one, stage, x))
    for method, most in (("aligned", 1e-12), ("aligned-fixed", 0.0)):
        inversion = invert_stage(one.stages[stage], plan(method, steps, guidance), condition, x)
        assert inversion.report.residual_max <= most * max(1.0, float(rms(inversion.noise).max()))


def low(cascade, stage, x):
    """Return the low-resolution picture and its noise at a stage above the first."""
    if stage == 0:
        return ()
    size = cascade.stages[stage - 1].size
    small = torch.nn.functional.interpolate(x.float(), (size, size), mode="area")
    return small, draw(x.shape, 5)


def test_a_saved_file_reruns_to_the_same_bits_and_edits_change_the_picture(tiny, picture, tmp_path):
    for method in ("aligned", "aligned-fixed"):
        made = tiny.invert(picture, PROMPT, plan(method, 6, 3.0))
        made.save(tmp_path / "a")
        again = tiny.rerun(tiny.open(tmp_path / "a"))
        for a, b in zip(made.stages, again.stages, strict=True):
            assert torch.equal(a.picture, b.picture)
            assert all(torch.equal(p, q) for p, q in zip(a.path, b.path, strict=True))
        same, other = (tiny.edit(again, words, PromptSwap(guidance=1.0)) for words in (PROMPT + ".", TARGET))
        assert float((other.pictures[0] - same.pictures[0]).abs().max()) > 1e-3


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="the aligned rerun is one of DDIM, and BDIA is another rule"):
        Plan(BDIA(), Align())
    schedule = from_config(
        {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    )
    with pytest.raises(ValueError, match="has no signal, and the aligned rerun has no step from there: take bdia"):
        result(Align()(DDIM(), guided(1.0), draw((1, 3, 4, 4), 0).double(), schedule.grid(5)))
    with pytest.raises(NotFinite, match="not a number below 2 alpha"):
        result(Align(50)(DDIM(), guided(1.0), draw((1, 3, 4, 4), 0).double(), arc(5, clean=0.3)))

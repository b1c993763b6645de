"""The tests that every rule runs through: a new rule is tested by being listed in RULES."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from iterinv import drive
from iterinv.models.toy import arc, gaussian, gaussian_flow, mixture
from iterinv.roots import Anderson
from iterinv.schedule import SPACINGS, from_config
from iterinv.steps import BDIA, DDIM, RULES, Reversible

ALL = {"ddim": DDIM(), "bdia": BDIA(), "bdia 0.8": BDIA(0.8), "bdia 0.5": BDIA(0.5)}
REVERSIBLE = {name: rule for name, rule in ALL.items() if isinstance(rule, Reversible)}
COSINE = from_config({"beta_schedule": "squaredcos_cap_v2"})


def noise(seed=0, n=64):
    return torch.randn(2, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data(seed=0):
    x = noise(seed)
    return 0.6 * x.sign() + 0.15 * noise(seed + 1)


def clean_end(rule, eps, x, grid):
    *_, state = drive.run(rule, eps, rule.init(x), grid)
    return state[0]


def undone(rule, eps, x, grid, stop=0):
    *_, state = drive.undo(rule, eps, x, grid, stop)
    return state


def test_every_rule_is_tested():
    assert {type(rule) for rule in ALL.values()} == set(RULES.values())


@pytest.mark.parametrize("rule", ALL.values(), ids=ALL.keys())
def test_order(rule):
    """On a linear field, whose flow is known, the error falls with the order that the rule declares."""
    x, counts = noise(), [64, 128, 256]
    truth = gaussian_flow(x, arc(1)[0], arc(1)[-1])
    errors = [float((clean_end(rule, gaussian(), x, arc(n)) - truth).abs().max()) for n in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(rule.order, abs=0.2)


@pytest.mark.parametrize("rule", REVERSIBLE.values(), ids=REVERSIBLE.keys())
@pytest.mark.parametrize("steps", [2, 10])
def test_round_trip(rule, steps):
    x, grid = data(), COSINE.grid(steps)
    state = undone(rule, mixture(), x, grid)
    *_, (back, *_) = drive.run(rule, mixture(), state, grid, rule.first)
    assert float((back - x).abs().max()) < 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.sampled_from(SPACINGS), st.integers(0, 40), st.sampled_from([0.9, 0.96, 1.0]))
def test_round_trip_from_any_level(steps, spacing, stop, gamma):
    """Exact whatever the grid and however far it is undone, and the loop says so: the state at `stop` gives the data back."""
    rule, x, grid = BDIA(gamma), data(), from_config({"beta_start": 1e-4, "beta_end": 0.02}).grid(steps, spacing)
    stop = min(stop, steps - 1)
    state = undone(rule, mixture(), x, grid, stop)
    *_, (back, *_) = drive.run(rule, mixture(), state, grid, max(stop, rule.first))
    assert float((back - x).abs().max()) < 1e-9


@pytest.mark.parametrize("rule", [BDIA()], ids=["bdia"])
def test_noise_consistency(rule):
    """The inverted noise tends to the ODE's as the grid gets finer. A wrong first step can leave the round trip exact."""
    x, errors = data(), []
    for n in (40, 80, 160):
        grid = arc(n)
        truth = gaussian_flow(x, grid[-1], grid[0])
        errors.append(float((undone(rule, gaussian(), x, grid)[-1] - truth).square().mean().sqrt()))
    assert errors[2] < errors[1] / 3 < errors[0] / 9 * 1.5
    assert errors[2] < 2e-3


@pytest.mark.parametrize("steps", [20, 50, 100])
def test_growth(steps):
    """Under the default settings the inverted noise stays near unit variance (methods: gamma = 0.5 reaches 1e12 at 50)."""
    assert undone(BDIA(), mixture(), data(), COSINE.grid(steps))[-1].std() == pytest.approx(1, abs=0.15)
    assert undone(BDIA(0.5), mixture(), data(), COSINE.grid(steps))[-1].std() > 100


def test_undoing_costs_one_call_a_step_and_never_looks_at_the_clean_end():
    grid, labels = COSINE.grid(10), []

    def watched(x, a):
        labels.append(a)
        return mixture()(x, a)

    state = undone(BDIA(), watched, data(), grid)
    assert len(labels) == 10
    assert all(label.sigma > 0 for label in labels)
    labels.clear()
    list(drive.run(BDIA(), watched, state, grid, 1))
    assert len(labels) == 9


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("offset", [0, 1])
def test_ddim_agrees_with_diffusers(spacing, offset):
    """Linspace is left out: diffusers steps from each of its labels to that label less 1000 // N, which is not the next one."""
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
    scheduler = DDIMScheduler(**config, timestep_spacing=spacing, steps_offset=offset, set_alpha_to_one=offset == 0)
    scheduler.set_timesteps(25)
    grid = from_config(scheduler.config).grid(25, spacing)
    ours = theirs = noise()
    ours = clean_end(DDIM(), mixture(), ours, grid)
    for level, t in zip(grid, scheduler.timesteps, strict=False):
        theirs = scheduler.step(mixture()(theirs, level), t, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_bdia_is_ddim_where_it_must_be():
    """Its first step is DDIM's; and a gamma near 0 is DDIM throughout."""
    x, grid = noise(), COSINE.grid(12)
    assert torch.equal(BDIA().step(mixture(), BDIA().init(x), grid, 0)[0], DDIM().step(mixture(), DDIM().init(x), grid, 0)[0])
    near = clean_end(BDIA(1e-12), mixture(), x, grid)
    torch.testing.assert_close(near, clean_end(DDIM(), mixture(), x, grid), rtol=0, atol=1e-9)


def test_bdia_undone_is_its_own_equation():
    """(2.7c) solves (2.7b) for the oldest state: one step there, and back, by the rule's own two methods."""
    grid, rule = COSINE.grid(8), BDIA(0.7)
    now, before = noise(1), noise(2)
    there = rule.step(mixture(), (now, before), grid, 4)
    now_again, before_again = rule.undo(mixture(), there, grid, 4)
    assert torch.equal(now_again, now)
    torch.testing.assert_close(before_again, before, rtol=0, atol=1e-12)


def test_gamma_outside_its_range_is_refused():
    for gamma in (0.0, -0.5, 1.01):
        with pytest.raises(ValueError, match="outside"):
            BDIA(gamma)


def test_a_state_that_is_not_finite_stops_the_loop():
    def broken(x, a):
        return x * float("nan") if a.t < 500 else x

    with pytest.raises(drive.NotFinite, match=r"running: the state at level 6 of 10 \(label 300\)"):
        clean_end(DDIM(), broken, noise(), COSINE.grid(10))
    with pytest.raises(drive.NotFinite, match="undoing"):
        undone(BDIA(), broken, data(), COSINE.grid(10))


def test_solving_ddim_gives_the_data_back():
    x, grid = data(), COSINE.grid(20)
    *_, (state, root) = drive.solve(DDIM(), mixture(), x, grid, Anderson(30, 1e-12))
    assert float(root.error.max()) < 1e-11
    assert float((clean_end(DDIM(), mixture(), state[0], grid) - x).abs().max()) < 1e-8

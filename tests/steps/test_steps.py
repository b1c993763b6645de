"""Every rule runs through these tests: an entry in RULES is enough."""

import math
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from iterinv.inverters import Relax, Solve, Undo
from iterinv.levels import Level, Prediction, move, prediction_from
from iterinv.models.toy import arc, gaussian, gaussian_flow, mixture
from iterinv.roots import Anderson
from iterinv.schedules import SPACINGS, Flow, from_config
from iterinv.steps import (
    BDIA,
    BDIADPMPP,
    BELM,
    DDIM,
    DPMPP2M,
    DPMPP2S,
    EDICT,
    RULES,
    BDIAHeun,
    FixedPointBDIA,
    Heun,
    Reversible,
    Rex,
)
from iterinv.steps.run import NotFinite, run

from conftest import result

ALL = {
    **RULES,
    "bdia 0.8": BDIA(0.8),
    "bdia 0.5": BDIA(0.5),
    "bdia on heun": BDIA(base=Heun()),
    "bdia 0.9 on heun": BDIA(0.9, Heun()),
    "bdia on dpmpp-2s": BDIA(base=DPMPP2S()),
    "edict 0.8": EDICT(0.8),
    "rex 0.9 on heun": Rex(0.9, Heun()),
}
REVERSIBLE = {name: rule for name, rule in ALL.items() if isinstance(rule, Reversible)}
COSINE = from_config({"beta_schedule": "squaredcos_cap_v2"})


def noise(seed=0, n=64):
    return torch.randn(2, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data(seed=0):
    x = noise(seed)
    return 0.6 * x.sign() + 0.15 * noise(seed + 1)


def clean_end(rule, field, x, grid):
    *_, state = run(rule, field, rule.init(x), grid)
    return state[0]


def undone(rule, field, x, grid, stop=0):
    """Return the state at `grid[stop]`: the walk back ends there."""
    *_, state = islice(Undo()(rule, field, x, grid), len(grid) - max(stop, rule.first))
    return state


@pytest.mark.parametrize("rule", ALL.values(), ids=ALL.keys())
def test_order(rule):
    """On a linear field, whose flow is known, the error falls with the order that the rule declares."""
    x, counts = noise(), [64, 128, 256]
    if rule == RULES["rex-heun"]:  # the difference of its pair, damped by 0.999 a step, dies out on finer grids only
        counts = [512, 1024, 2048]
    truth = gaussian_flow(x, arc(1)[0], arc(1)[-1])
    errors = [float((clean_end(rule, gaussian(), x, arc(n)) - truth).abs().max()) for n in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(rule.order, abs=0.2)


@pytest.mark.parametrize("rule", REVERSIBLE.values(), ids=REVERSIBLE.keys())
@pytest.mark.parametrize("steps", [2, 10])
def test_round_trip(rule, steps):
    x, grid = data(), COSINE.grid(steps)
    state = undone(rule, mixture(), x, grid)
    *_, (back, *_) = run(rule, mixture(), state, grid, rule.first)
    assert float((back - x).abs().max()) < 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.sampled_from(SPACINGS), st.integers(0, 40), st.sampled_from([0.9, 0.96, 1.0]))
def test_round_trip_from_any_level(steps, spacing, stop, gamma):
    """The state at `stop` gives the data back exactly, on every grid and from every depth."""
    rule, x, grid = BDIA(gamma), data(), from_config({"beta_start": 1e-4, "beta_end": 0.02}).grid(steps, spacing)
    stop = min(stop, steps - 1)
    state = undone(rule, mixture(), x, grid, stop)
    *_, (back, *_) = run(rule, mixture(), state, grid, max(stop, rule.first))
    assert float((back - x).abs().max()) < 1e-9


def noise_error(rule, steps):
    """Measure how far the undone noise lies from the ODE's."""
    x, grid = data(), arc(steps)
    return float((undone(rule, gaussian(), x, grid)[-1] - gaussian_flow(x, grid[-1], grid[0])).square().mean().sqrt())


@pytest.mark.parametrize(
    "name", [name for name, rule in REVERSIBLE.items() if name in RULES or rule.growth(arc(160)) < 2]
)
def test_noise_consistency(name):
    """The inverted noise tends to the ODE's as the grid gets finer. A wrong first step can leave the round trip
    exact."""
    counts = (20, 40) if name in ("edict", "rex") else (40, 80, 160)  # un-mixing outgrows a finer grid: see below
    errors = [noise_error(REVERSIBLE[name], n) for n in counts]
    assert all(later < sooner / 1.5 for sooner, later in pairwise(errors))
    assert errors[-1] < 0.05


@pytest.mark.parametrize("name", ["bdia 0.8", "bdia 0.5", "edict 0.8", "bdia 0.9 on heun"])
def test_what_damps_a_run_drives_its_noise_away_when_undone(name):
    """The noise grows by 1 / gamma per step, or 1 / p^2: on finer grids it gets worse, though the round trip stays
    exact."""
    coarse, fine = (noise_error(REVERSIBLE[name], n) for n in (10, 80))
    assert fine > 5 * coarse
    assert REVERSIBLE[name].growth(arc(80)) > 1000


@pytest.mark.parametrize("steps", [20, 50, 100])
def test_growth(steps):
    """Under the default settings the inverted noise stays near unit variance; gamma = 0.5 reaches 1e12 at 50 steps."""
    for rule in (BDIA(), FixedPointBDIA(), BDIA(base=Heun()), BDIA(0.96, Heun())):
        assert undone(rule, mixture(), data(), COSINE.grid(steps))[-1].std() == pytest.approx(1, abs=0.15)
    assert undone(BDIA(0.5), mixture(), data(), COSINE.grid(steps))[-1].std() > 100


@pytest.mark.parametrize("steps", [20, 50, 100])
def test_belm_stays_near_unit_variance_on_stable_diffusions_schedule_but_not_on_the_cosine(steps):
    """O-BELM's undamped factor is the square of the ratio of the first to the last difference of sigma / alpha."""
    linear = from_config(
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    )
    assert undone(BELM(), mixture(), data(), linear.grid(steps))[-1].std() == pytest.approx(1, abs=0.25)
    assert undone(BELM(), mixture(), data(), COSINE.grid(steps))[-1].std() > 3


def test_undoing_costs_one_call_a_step_and_never_looks_at_the_clean_end():
    grid, labels = COSINE.grid(10), []

    def watched(x, a):
        labels.append(a)
        return mixture()(x, a)

    state = undone(BDIA(), watched, data(), grid)
    assert len(labels) == 10
    assert all(label.sigma > 0 for label in labels)
    labels.clear()
    list(run(BDIA(), watched, state, grid, 1))
    assert len(labels) == 9


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("offset", [0, 1])
def test_ddim_agrees_with_diffusers(spacing, offset):
    """The test leaves linspace out: there diffusers steps from each label to that label less 1000 // N, which is not
    the next one."""
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
    scheduler = DDIMScheduler(**config, timestep_spacing=spacing, steps_offset=offset, set_alpha_to_one=offset == 0)
    scheduler.set_timesteps(25)
    grid = from_config(scheduler.config).grid(25, spacing)
    ours = theirs = noise()
    ours = clean_end(DDIM(), mixture(), ours, grid)
    for level, t in zip(grid, scheduler.timesteps, strict=False):
        theirs = scheduler.step(mixture()(theirs, level).eps, t, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_bdia_is_ddim_where_it_must_be():
    """BDIA's first step is DDIM's, and with a gamma near 0 all steps are."""
    x, grid = noise(), COSINE.grid(12)
    assert torch.equal(
        BDIA().step(mixture(), BDIA().init(x), grid, 0)[0], DDIM().step(mixture(), DDIM().init(x), grid, 0)[0]
    )
    near = clean_end(BDIA(1e-12), mixture(), x, grid)
    torch.testing.assert_close(near, clean_end(DDIM(), mixture(), x, grid), rtol=0, atol=1e-9)


def test_bdia_undone_is_its_own_equation():
    """(2.7c) solves (2.7b) for the oldest state: the rule's own two methods take one step there and back."""
    grid, rule = COSINE.grid(8), BDIA(0.7)
    now, before = noise(1), noise(2)
    there = rule.step(mixture(), (now, before), grid, 4)
    now_again, before_again = rule.undo(mixture(), there, grid, 4)
    assert torch.equal(now_again, now)
    torch.testing.assert_close(before_again, before, rtol=0, atol=1e-12)


def test_belm_is_the_papers_equation():
    grid, rule, x, older = COSINE.grid(9), BELM(), noise(1), noise(2)
    p, a, b = grid[3:6]
    e = mixture()(x, a).eps
    wide, narrow = p.sigma / p.alpha - a.sigma / a.alpha, a.sigma / a.alpha - b.sigma / b.alpha
    expected = (
        narrow**2 / wide**2 * b.alpha / p.alpha * older
        + (wide**2 - narrow**2) / wide**2 * b.alpha / a.alpha * x
        - narrow * (wide + narrow) / wide * b.alpha * e
    )
    torch.testing.assert_close(rule.step(mixture(), (x, older), grid, 4)[0], expected, rtol=0, atol=1e-10)


def test_edict_takes_turns_and_its_parts_are_the_papers():
    grid, rule, x, y = COSINE.grid(9), EDICT(0.9), noise(1), noise(2)
    a, b = grid[4], grid[5]
    x1 = move(x, mixture()(y, a).eps, a, b)
    y1 = move(y, mixture()(x1, a).eps, a, b)
    mixed = 0.9 * x1 + 0.1 * y1
    there = rule.step(mixture(), (x, y), grid, 4)
    torch.testing.assert_close(torch.stack(there), torch.stack((mixed, 0.9 * y1 + 0.1 * mixed)), rtol=0, atol=1e-12)
    for i in (4, 5):  # at odd steps y leads; undone, each gives the pair back
        back = rule.undo(mixture(), rule.step(mixture(), (x, y), grid, i), grid, i)
        torch.testing.assert_close(torch.stack(back), torch.stack((x, y)), rtol=0, atol=1e-12)
    assert not torch.equal(rule.step(mixture(), (x, y), grid, 5)[0], rule.step(mixture(), (y, x), grid, 5)[1])


@pytest.mark.parametrize("base", [DDIM(), Heun()])
def test_rex_is_the_papers_coupling(base):
    """The oracle is written in ``s = x / alpha`` over ``r = sigma / alpha``, with Runge-Kutta increments."""
    grid, zeta, x, y = COSINE.grid(9), 0.9, noise(1), noise(2)
    a, b = grid[4], grid[5]

    def increment(s, a, b):
        h = b.sigma / b.alpha - a.sigma / a.alpha
        slope = mixture()(a.alpha * s, a).eps
        if base == Heun():
            slope = (slope + mixture()(b.alpha * (s + h * slope), b).eps) / 2
        return h * slope

    s, t = x / a.alpha, y / a.alpha
    s = zeta * s + (1 - zeta) * t + increment(t, a, b)
    t = t - increment(s, b, a)
    there = Rex(zeta, base).step(mixture(), (x, y), grid, 4)
    torch.testing.assert_close(torch.stack(there), b.alpha * torch.stack((s, t)), rtol=0, atol=1e-12)
    back = Rex(zeta, base).undo(mixture(), there, grid, 4)
    torch.testing.assert_close(torch.stack(back), torch.stack((x, y)), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="zeta = 0 is outside"):
        Rex(0)


@pytest.mark.parametrize("order", [1, 2])
def test_dpmpp_2m_agrees_with_diffusers(order):
    config = {"beta_schedule": "squaredcos_cap_v2", "algorithm_type": "dpmsolver++", "solver_order": order}
    scheduler = DPMSolverMultistepScheduler(
        **config, final_sigmas_type="zero", lower_order_final=True, timestep_spacing="leading"
    )
    scheduler.set_timesteps(12)
    grid = (*(COSINE.level(int(t)) for t in scheduler.timesteps), COSINE.grid(1)[-1])
    theirs = noise()
    ours = clean_end(DPMPP2M() if order == 2 else DDIM(), mixture(), theirs, grid)
    for level, t in zip(grid, scheduler.timesteps, strict=False):
        theirs = scheduler.step(mixture()(theirs, level).eps, t, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_single_steps_carry_as_their_papers_write_them():
    """Heun is compared in EDM's variables, where noise is added and not mixed, and DPM-Solver++ 2S along lambda."""
    grid, x = COSINE.grid(9), noise(3)
    a, b = grid[4], grid[5]
    field = mixture()

    def eps(x, a):
        return field(x, a).eps

    t, s, u = a.sigma / a.alpha, b.sigma / b.alpha, x / a.alpha
    d = (u - (u - t * eps(x, a))) / t
    euler = u + (s - t) * d
    trapezoid = u + (s - t) * (d + eps(euler * b.alpha, b)) / 2
    torch.testing.assert_close(Heun().step_to(field, x, a, b)[0], trapezoid * b.alpha, rtol=0, atol=1e-12)
    h = math.log(b.alpha / b.sigma) - math.log(a.alpha / a.sigma)
    x0 = (x - a.sigma * eps(x, a)) / a.alpha
    y = b.sigma / a.sigma * x - b.alpha * math.expm1(-h) * x0
    y0 = (y - b.sigma * eps(y, b)) / b.alpha
    second = b.sigma / a.sigma * x - b.alpha * math.expm1(-h) * (x0 + y0) / 2
    torch.testing.assert_close(DPMPP2S().step_to(field, x, a, b)[0], second, rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.one_of(st.integers(2, 60), st.just(1000)),
    st.sampled_from([1.0, 3.0, 7.0]),
    st.integers(0, 1000),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_fixed_point_arithmetic_gives_the_same_bits_back(steps, guidance, seed, dtype):
    """No bit of the clean state changes, for any steps, guidance and network precision."""
    wild = mixture()

    def field(x, a):
        rough = Prediction(*(each.to(dtype).to(x.dtype) for each in wild(x, a)))
        return gaussian()(x, a).mix(rough, guidance)

    rule, grid = FixedPointBDIA(), COSINE.grid(steps)
    x = (data(seed) * 127.5).round().clamp(-255, 255).float().double() / 127.5
    x = x.float().double()
    state = undone(rule, field, x, grid)
    *_, (back, *_) = run(rule, field, state, grid, 1)
    assert torch.equal(rule.init(x)[0], back)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("steps", [2, 10, 50])
def test_float32_fixed_point_states_give_a_half_precision_network_the_same_input_both_ways(dtype, steps):
    """A float32 state may round to half precision in two ways; a fixed-point state rounds in one."""
    wild = mixture()

    def field(x, a):
        return wild(x.to(dtype).to(x.dtype), a)

    rule, grid, x = FixedPointBDIA(), COSINE.grid(steps), data(3).float()
    *_, (back, *_) = run(rule, field, undone(rule, field, x, grid), grid, 1)
    assert back.dtype == torch.float32
    assert torch.equal(rule.init(x)[0], back)
    assert float((back - x).abs().max()) <= 2**-19
    with pytest.raises(OverflowError, match="below 64"):
        rule.init(100 * x + 100)


def test_eight_bit_pixels_are_fixed_point_numbers():
    """Therefore the float32 picture itself comes back, not only its rounded state."""
    levels = (torch.arange(256) / 127.5 - 1).double()
    assert torch.equal(FixedPointBDIA().init(levels)[0], levels)


def test_fixed_point_arithmetic_says_where_it_ends():
    with pytest.raises(TypeError, match="carried in float64"):
        FixedPointBDIA().init(noise().half())
    for wild in (noise() * 1e5, noise() * 1e30, noise() * float("nan")):
        with pytest.raises(OverflowError, match="below 8192"):
            FixedPointBDIA().init(wild)


def edm_grid(steps):
    """Make noise levels from 80 to 0.002, then none (Karras et al. 2022, eq. 5); nothing is mixed, so alpha is 1."""
    ends = 80 ** (1 / 7), 0.002 ** (1 / 7)
    sigmas = [(ends[0] + k / (steps - 1) * (ends[1] - ends[0])) ** 7 for k in range(steps)]
    return tuple(Level(sigma, 1.0, sigma) for sigma in (*sigmas, 0.0))


def test_what_bdia_adds_to_other_rules():
    """The test uses a two-sided mixture in EDM's variables: at few steps a gamma near 0.5 helps DDIM most, at many
    steps one near 1; kept slopes make Heun better at no cost; 2M gains at gamma 0.5."""
    x = 80 * noise(n=400)
    fine = clean_end(Heun(), mixture(), x, edm_grid(4000))

    def error(rule, n):
        return float((clean_end(rule, mixture(), x, edm_grid(n)) - fine).square().mean().sqrt())

    for n in (9, 18, 40, 80):
        assert error(BDIA(0.5), n) < 0.7 * error(DDIM(), n)
    for n in (18, 40, 80):
        assert error(BDIAHeun(1.0), n) < 0.9 * error(Heun(), n)
        assert error(BDIADPMPP(0.5), n) < 0.8 * error(DPMPP2M(), n)
    assert error(BDIA(0.9), 9) > error(BDIA(0.5), 9)
    assert error(BDIA(0.9), 80) < error(BDIA(0.5), 80) / 3


def test_gamma_outside_its_range_is_refused():
    for gamma in (0.0, -0.5, 1.01):
        with pytest.raises(ValueError, match="outside"):
            BDIA(gamma)


def test_a_state_that_is_not_finite_stops_the_loop():
    def broken(x, a):
        return Prediction(x, x * float("nan") if a.t < 500 else x)

    with pytest.raises(NotFinite, match=r"running: the state at level 6 of 10 \(label 300\)"):
        clean_end(DDIM(), broken, noise(), COSINE.grid(10))
    with pytest.raises(NotFinite, match="undoing"):
        undone(BDIA(), broken, data(), COSINE.grid(10))


def test_relaxing_a_multistep_rule_finds_the_path_that_it_runs_through():
    """It returns from the sample that 2M draws to the starting noise, and finds every state between."""
    rule, grid = DPMPP2M(), COSINE.grid(50)
    *_, (z, _) = states = list(run(rule, mixture(), rule.init(data()), grid))
    _, path, error = result(Relax(60, 1e-12)(rule, mixture(), z, grid))
    _, first, _ = result(Relax(0, 1e-12)(rule, mixture(), z, grid))
    assert float(error.max()) <= 1e-12
    for u, (x, *_) in zip(path, states, strict=True):
        assert float((u - x).abs().max()) < 1e-9
    assert float((first[0] - states[0][0]).abs().max()) > 1e-3


def test_relaxing_tells_how_well_it_did():
    """Few steps fold the field between the two modes of the data; there the sweeps do not end, and the best path is
    returned."""
    rule, grid = DPMPP2M(), COSINE.grid(10)
    *_, (x, _) = run(rule, mixture(), rule.init(noise()), grid)
    _, path, error = result(Relax(60, 1e-6)(rule, mixture(), x, grid))
    _, _, one = result(Relax(1, 1e-6)(rule, mixture(), x, grid))
    *_, (back, _) = run(rule, mixture(), rule.init(path[0]), grid)
    assert ((error > 1e-3) & (error <= one)).all()
    assert float((back - x).abs().max()) > 1e-3


def test_relaxing_a_batch_is_relaxing_each_by_itself():
    """One picture converges long before the other."""
    rule, grid = DPMPP2M(), COSINE.grid(20)
    x = torch.stack([noise().flatten(), 0.6 * noise().flatten().sign()])
    _, path, error = result(Relax(40, 1e-4)(rule, mixture(), x, grid))
    for k in range(2):
        _, alone, its_error = result(Relax(40, 1e-4)(rule, mixture(), x[k : k + 1], grid))
        torch.testing.assert_close(path[0][k : k + 1], alone[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(error[k : k + 1], its_error, rtol=1e-6, atol=1e-12)
    assert error[1] <= 1e-4 < error[0]


def test_solving_ddim_gives_the_data_back():
    x, grid = data(), COSINE.grid(20)
    state, _, error = result(Solve(Anderson(30, 1e-12))(DDIM(), mixture(), x, grid))
    assert float(error.max()) < 1e-11
    assert float((clean_end(DDIM(), mixture(), state[0], grid) - x).abs().max()) < 1e-8


# Flows and schedules of zero terminal signal begin at a level without signal, alpha 0.

ZERO_SIGNAL = {
    "flow": Flow(),
    "shifted flow": Flow(3.0),
    "zero terminal signal": from_config({"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True}),
}


def zero_signal_grid(name, steps):
    schedule = ZERO_SIGNAL[name]
    return schedule.grid(steps) if isinstance(schedule, Flow) else schedule.grid(steps, "trailing")


@pytest.mark.parametrize("name", ZERO_SIGNAL)
@pytest.mark.parametrize("rule", [BDIA(), BDIA(0.96), FixedPointBDIA(), BDIA(base=Heun()), BDIA(base=DPMPP2S())])
def test_round_trip_from_a_level_without_signal(name, rule):
    x, grid = data(), zero_signal_grid(name, 12)
    assert grid[0].alpha == 0
    state = undone(rule, mixture(), x, grid)
    *_, (back, *_) = run(rule, mixture(), state, grid, rule.first)
    assert float((back - x).abs().max()) < 1e-9


@pytest.mark.parametrize("name", ZERO_SIGNAL)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_every_rule_samples_from_a_level_without_signal_or_says_that_it_cannot(name, rule):
    """A run from pure noise, for Gaussian data, ends near the end of the flow, whose start is known."""
    grid = zero_signal_grid(name, 200)
    if isinstance(rule, (EDICT, BELM, Rex)):
        assert rule.growth(grid) == math.inf
        return
    x = noise()
    truth = gaussian_flow(x, grid[0], grid[-1])
    end = clean_end(rule, gaussian(), x, grid)
    assert float((end - truth).abs().max()) < 0.05


def test_solving_goes_through_a_level_without_signal():
    grid = zero_signal_grid("flow", 8)
    x = clean_end(DDIM(), gaussian(), noise(), grid)
    state, _, error = result(Solve(Anderson(60, 1e-12))(DDIM(), gaussian(), x, grid))
    assert float(error.max()) < 1e-10
    torch.testing.assert_close(state[0], noise(), rtol=0, atol=1e-6)


def test_noise_alone_says_nothing_of_the_picture_at_a_level_without_signal():
    level = Level(999.0, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"timestep 999 has no signal.*leading spacing"):
        prediction_from(noise(), noise(), level, "epsilon")
    x, x0 = noise(), noise(5)
    for kind, output in (("v_prediction", -x0), ("sample", x0), ("flow_prediction", x - x0)):
        torch.testing.assert_close(prediction_from(output, x, level, kind), Prediction(x0, x), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="'score' is not one of epsilon"):
        prediction_from(x, x, level, "score")

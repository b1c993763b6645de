from dataclasses import replace
from itertools import islice

import pytest
import torch

from iterinv.inverters import Solve
from iterinv.levels import move
from iterinv.models.toy import mixture
from iterinv.roots import Anderson, Average, Damped, FixedPoint, GradientDescent, LevelInfo, rms
from iterinv.schedules import from_config
from iterinv.steps import DDIM
from iterinv.steps.run import run

from conftest import result

GRID = from_config({"beta_schedule": "squaredcos_cap_v2"}).grid(10)


def x(seed=0):
    return torch.randn(3, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PROBLEMS = {
    "contraction": (lambda u: u - 0.5 * torch.cos(u), 1e-10),
    "linear": (lambda u: u - 0.5 * u.roll(1, -1) - 0.1, 1e-8),
    "expanding": (lambda u: 2.5 * u - torch.sin(u), 1e-8),  # a plain fixed point diverges here
}


TESTED = {"anderson": Anderson(60, memory=5), "damped": Damped(200)}


@pytest.mark.parametrize("find", TESTED.values(), ids=TESTED.keys())
@pytest.mark.parametrize(("residual", "tolerance"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_what_tests_its_residual_solves_the_bank(find, residual, tolerance):
    root = replace(find, tolerance=tolerance)(residual, x())
    assert float(root.error.max()) <= tolerance
    torch.testing.assert_close(rms(residual(root.value)), root.error, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize(
    "find", [FixedPoint(30), Average(30), GradientDescent(200)], ids=["fixed", "average", "gradient"]
)
@pytest.mark.parametrize("problem", ["contraction", "linear"])
def test_what_does_not_test_gets_near_where_it_converges(find, problem):
    residual, _ = PROBLEMS[problem]
    root = find(residual, x())
    assert root.error.isnan().all()
    assert root.calls == find.iterations
    assert float(residual(root.value).abs().max()) < 1e-4


def test_an_average_ends_a_circle():
    """Fixed-point iterates jump from one side of the root to the other: their mean lies between."""
    root = Average(10, 2)(lambda u: 1.95 * (u - 3), x())
    assert float((root.value - 3).abs().max()) < 0.1 * float(
        (FixedPoint(10)(lambda u: 1.95 * (u - 3), x()).value - 3).abs().max()
    )


def test_gradient_descent_is_the_published_loop():
    """The loop is u <- u - s_j grad |F(u) - known|^2, summed, with s_j = rate sqrt(1 - j / (2 (N - 1))) and an unscaled
    residual."""
    known, where = x(1), LevelInfo(share=0.5, scale=0.7)

    def field(u):
        return u + 0.3 * torch.sin(u)

    root = GradientDescent(3, 0.2)(lambda u: where.scale * (field(u) - known), known, where)
    u = known
    for _ in range(3):
        u = u - 0.2 * 0.75**0.5 * 2 * (field(u) - known) * (1 + 0.3 * torch.cos(u))
    torch.testing.assert_close(root.value, u, rtol=0, atol=1e-12)
    assert not root.value.requires_grad


def test_a_fixed_point_spends_what_it_says():
    calls = []

    def residual(u):
        calls.append(1)
        return u - 0.5 * torch.cos(u)

    root = FixedPoint(7)(residual, x())
    assert root.calls == len(calls) == 7
    assert root.error.isnan().all()
    assert float(residual(root.value).abs().max()) < 1e-2


def test_anderson_counts_its_calls_and_stops_when_all_samples_are_there():
    calls = []

    def residual(u):
        calls.append(1)
        return 0.9 * u

    root = Anderson(50, 1e-6)(residual, x())
    assert root.calls == len(calls) < 6


def test_anderson_returns_its_best_iterate_where_nothing_converges():
    errors = []

    def residual(u):
        r = torch.sin(5 * u) + 3
        errors.append(rms(r))
        return r

    root = Anderson(8, 1e-9)(residual, x())
    torch.testing.assert_close(root.error, torch.stack(errors).min(0).values)


EVERY = {**TESTED, "fixed": FixedPoint(9), "average": Average(), "gradient": GradientDescent()}


@pytest.mark.parametrize("find", EVERY.values(), ids=EVERY.keys())
def test_a_batch_is_its_samples(find):
    """Each sample has its own mixing, damping and stop: together and alone it has the same root."""
    together = find(PROBLEMS["contraction"][0], x() * torch.tensor([[0.1], [1.0], [9.0]]))
    for k, scale in enumerate((0.1, 1.0, 9.0)):
        alone = find(PROBLEMS["contraction"][0], x()[k : k + 1] * scale)
        torch.testing.assert_close(together.value[k : k + 1], alone.value, rtol=0, atol=1e-9)


def test_one_fixed_point_iteration_is_ddim_inversion():
    """The noise is that of the known state at the destination's level: `move(x, eps(x, a), b, a)`."""
    known = x()
    states = islice(Solve(FixedPoint(1))(DDIM(), mixture(), known, GRID), 3)
    expected = known
    next(states)
    for a, b, state in zip(GRID[-2:-4:-1], GRID[:-3:-1], states, strict=True):
        expected = move(expected, mixture()(expected, a).eps, b, a)
        torch.testing.assert_close(state[0], expected, rtol=0, atol=1e-12)


def test_a_batch_is_its_samples_where_one_is_at_rest():
    """A sample that needs no step has nothing to mix; it must not spoil the small problem of the others."""
    start = x()
    start[0] = 0.0

    def residual(u):
        return u - 0.5 * torch.sin(u)

    root = Anderson(30, 1e-9)(residual, start)
    assert torch.equal(root.value[0], start[0])
    assert float(root.error.max()) <= 1e-9


def test_anderson_steps_over_a_residual_that_is_not_finite():
    calls = []

    def residual(u):
        calls.append(1)
        return (u - 0.5 * torch.cos(u)) * (float("nan") if len(calls) == 3 else 1)

    root = Anderson(40, 1e-9)(residual, x())
    assert float(root.error.max()) <= 1e-9
    assert bool(root.value.isfinite().all())


def test_the_published_loop_steps_widest_at_the_data():
    """In s_j = 0.3 sqrt(1 - j / (2 (N - 1))), j counts from the clean end, where walking back begins."""
    assert GradientDescent() == GradientDescent(21, 0.3)
    calls = []

    def find(residual, guess, where):
        calls.append(where)
        return FixedPoint(1)(residual, guess, where)

    result(Solve(find)(DDIM(), mixture(), x(), GRID))
    assert [where.share for where in calls] == pytest.approx([j / 9 for j in range(10)])
    assert [where.scale for where in calls] == [
        a.alpha / b.alpha for a, b in zip(GRID[-2::-1], GRID[:0:-1], strict=True)
    ]


def test_no_more_iterates_are_averaged_than_there_are():
    with pytest.raises(ValueError, match="last is 2, more than the 1 iterations"):
        Average(1)
    assert Average(1, 1) == Average(iterations=1, last=1)


def released_renoise(field, x, grid):
    """Run the released loop of ReNoise (Garibi et al., 2024): predict the noise at the state of the level below, then
    at each new state that this noise leads to; average noises 8 and 9 of ten, or 0 to 4 of six below label 250."""
    z, calls = x, 0
    for i in reversed(range(len(grid) - 1)):
        a, b, noises = grid[i], grid[i + 1], []
        there = z
        for _ in range(6 if a.t < 250 else 10):
            noises.append(field(there, a).eps)
            there = move(z, noises[-1], b, a)
        calls += len(noises)
        chosen = noises[:5] if a.t < 250 else noises[8:10]
        z = move(z, sum(chosen) / len(chosen), b, a)
    return z, calls


def test_renoise_has_the_released_rule_for_small_labels_as_a_setting():
    grid = from_config({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}).grid(20)
    data = 0.6 * torch.randn(2, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sign()
    counted, errors = [], []

    def field(x, a):
        counted.append(a.t)
        return mixture()(x, a)

    theirs, calls = released_renoise(mixture(), data, grid)
    for how in (Average.as_published(), Average()):
        counted.clear()
        state, _, _ = result(Solve(how)(DDIM(), field, data, grid))
        if how.small:
            torch.testing.assert_close(state[0], theirs, rtol=0, atol=1e-10)
            assert len(counted) == calls == 15 * 10 + 5 * 6
            assert sum(t < 250 for t in counted) == 5 * 6
        *_, (back,) = run(DDIM(), mixture(), state, grid)
        errors.append(float((back - data).square().mean().sqrt()))
    assert errors[1] < errors[0]  # hence it is not the default

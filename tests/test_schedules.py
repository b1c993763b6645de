from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from iterinv.schedules import SPACINGS, Flow, from_config

STABLE = {"steps_offset": 1, "set_alpha_to_one": False}
CONFIGS = {
    "if": {"beta_schedule": "squaredcos_cap_v2"},
    "sd": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, **STABLE},
    "x4": {"beta_schedule": "scaled_linear", "beta_start": 0.0001, "beta_end": 0.02, **STABLE},
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [7, 20, 50])
def test_a_grid_is_the_one_that_diffusers_walks(config, spacing, steps):
    scheduler = DDIMScheduler(**config, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    schedule = from_config(scheduler.config)
    grid = schedule.grid(steps, spacing)
    assert [level.t for level in grid[:-1]] == scheduler.timesteps.tolist()
    table = scheduler.alphas_cumprod
    for level in grid[:-1]:
        assert level.alpha**2 == pytest.approx(float(table[int(level.t)]), abs=1e-7)
    assert grid[-1].alpha ** 2 == pytest.approx(float(scheduler.final_alpha_cumprod), abs=1e-7)


@given(st.integers(1, 200), st.sampled_from(SPACINGS))
def test_grids_run_from_noisy_to_clean_and_preserve_variance(steps, spacing):
    grid = from_config(CONFIGS["linear"]).grid(steps, spacing)
    assert len(grid) == steps + 1
    assert all(a.sigma > b.sigma for a, b in pairwise(grid))
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1) for level in grid)
    assert grid[-1].sigma == 0


def test_what_does_not_fit_is_refused_with_a_sentence():
    schedule = from_config(CONFIGS["if"])
    with pytest.raises(ValueError, match="steps do not fit"):
        schedule.grid(0)
    with pytest.raises(ValueError, match="not one of leading"):
        schedule.grid(10, "karras")
    with pytest.raises(ValueError, match="label 1000 is not in this schedule"):
        schedule.level(1000)
    with pytest.raises(ValueError, match="beta schedule 'sigmoid'"):
        from_config({"beta_schedule": "sigmoid"})
    with pytest.raises(ValueError, match="1 or more"):
        Flow().grid(0)
    with pytest.raises(ValueError, match="evenly spaced, and shifted"):
        Flow().grid(9, "trailing")


def test_a_schedule_rescaled_to_zero_terminal_signal_is_diffusers_own():
    config = {**CONFIGS["sd"], "rescale_betas_zero_snr": True}
    table, ours = DDIMScheduler(**config).alphas_cumprod, from_config(config)
    torch.testing.assert_close(torch.tensor(ours.alphas_cumprod), table, rtol=0, atol=1e-6)
    assert ours.grid(10, "trailing")[0][1:] == (0.0, 1.0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flows_levels_are_diffusers_own(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1 - k / 8 for k in range(8)])
    grid = Flow(shift).grid(8)
    assert [level.sigma for level in grid] == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)
    assert [level.t for level in grid[:-1]] == pytest.approx(scheduler.timesteps.tolist(), abs=1e-3)
    assert all(level.alpha + level.sigma == pytest.approx(1) for level in grid)


def test_the_cosine_table_is_diffusers_own():
    table = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    assert torch.equal(torch.tensor(from_config(CONFIGS["if"]).alphas_cumprod), table)

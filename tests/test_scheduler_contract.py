"""BDIA's two schedulers meet the contract of diffusers' own scheduler tests.

Held here: settings survive saving, loading and ``from_config``, from other schedulers too; a step has the sample's
shape and one result in both forms of output; timesteps on a device; ``trained_betas``; noise is added as by DDIM;
defaults stay defaults. Not held: ``eta`` other than 0, since BDIA is deterministic; DDIM's exact numbers at a gamma
above 0, since it is another rule; steps at timesteps that ``set_timesteps`` did not give, since a two-step rule needs
its grid, so they are refused.
"""

import inspect

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

from iterinv.diffusers_schedulers import BDIAInverseScheduler, BDIAScheduler

OWN = {"clip_sample": False}
BOTH = pytest.mark.parametrize("kind", [BDIAScheduler, BDIAInverseScheduler])
SETTINGS = [
    {"num_train_timesteps": 100},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "v_prediction"},
    {"timestep_spacing": "trailing"},
    {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    {"steps_offset": 1, "set_alpha_to_one": False},
    {"gamma": 0.5},
    {"clip_sample_range": 2.0, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9},
    {"trained_betas": np.linspace(1e-4, 0.02, 50).tolist(), "num_train_timesteps": 50},
]


def sample(seed=0):
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def plain(config):
    """Return the settings alone, without diffusers' notes on them."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def walk(scheduler, steps=5):
    """Return all states of a run with a fixed network."""
    scheduler.set_timesteps(steps)
    x, states = sample(), []
    for t in scheduler.timesteps:
        x = scheduler.step(torch.sin(x) + 0.1 * t / 1000, t, x).prev_sample
        states.append(x)
    return torch.stack(states)


@BOTH
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings))
def test_settings_survive_saving_loading_and_from_config(kind, settings, tmp_path):
    scheduler = kind(**OWN, **settings)
    scheduler.save_pretrained(tmp_path)
    states = walk(scheduler)
    for again in (kind.from_pretrained(tmp_path), kind.from_config(scheduler.config)):
        assert plain(again.config) == plain(scheduler.config)
        assert all(again.config[key] == value for key, value in settings.items())
        torch.testing.assert_close(walk(again), states, rtol=0, atol=0)


@BOTH
@pytest.mark.parametrize("other", [DDIMScheduler, DDPMScheduler, PNDMScheduler, DPMSolverMultistepScheduler])
def test_it_is_made_from_another_schedulers_configuration(kind, other):
    theirs = other(beta_end=0.01, beta_schedule="scaled_linear")
    ours = kind.from_config(theirs.config, gamma=0.5, **OWN)
    assert (ours.config.beta_end, ours.config.beta_schedule, ours.config.gamma) == (0.01, "scaled_linear", 0.5)
    back = other.from_config(ours.config)
    shared = {key: back.config[key] for key in plain(theirs.config)}
    assert {**shared, "clip_sample": None} == {**plain(theirs.config), "clip_sample": None}


@BOTH
def test_defaults_stay_defaults(kind):
    """A default of one scheduler must not override that of another made from its configuration."""
    given = kind(**OWN, beta_end=0.01)
    names = set(inspect.signature(kind.__init__).parameters) - {"self", "clip_sample", "beta_end"}
    assert set(given.config["_use_default_values"]) == names
    assert "_use_default_values" not in given.to_json_string()


@BOTH
def test_a_step_has_the_shape_of_the_sample_and_one_result_in_both_forms(kind):
    forms = []
    for return_dict in (True, False):
        scheduler = kind(**OWN)
        scheduler.set_timesteps(5)
        out = scheduler.step(sample(1), scheduler.timesteps[0], sample(), return_dict=return_dict)
        forms.append((out.prev_sample, out.pred_original_sample) if return_dict else out)
    for a, b in zip(*forms, strict=True):
        assert a.shape == sample().shape
        assert torch.equal(a, b)


@BOTH
def test_timesteps_may_be_integers_or_tensors_and_the_sample_in_half_precision(kind):
    scheduler, other = kind(**OWN), kind(**OWN)
    for each in (scheduler, other):
        each.set_timesteps(5, device="cpu")
    a = scheduler.step(sample(1), scheduler.timesteps[0], sample()).prev_sample
    assert torch.equal(a, other.step(sample(1), int(other.timesteps[0]), sample()).prev_sample)
    half = kind(**OWN)
    half.set_timesteps(5)
    assert half.step(sample(1).half(), half.timesteps[0], sample().half()).prev_sample.dtype == torch.float16


@BOTH
def test_noise_is_added_and_inputs_are_scaled_as_by_ddim(kind):
    ours, theirs = kind(**OWN), DDIMScheduler(**OWN)
    t = torch.tensor([10, 900])
    assert torch.equal(ours.add_noise(sample(), sample(1), t), theirs.add_noise(sample(), sample(1), t))
    assert torch.equal(ours.get_velocity(sample(), sample(1), t), theirs.get_velocity(sample(), sample(1), t))
    assert torch.equal(ours.scale_model_input(sample(), 10), sample())
    assert ours.init_noise_sigma == 1.0
    assert len(ours) == 1000


def test_steps_off_the_grid_are_refused_in_a_sentence():
    scheduler, inverse = BDIAScheduler(**OWN), BDIAInverseScheduler(**OWN)
    for each in (scheduler, inverse):
        with pytest.raises(ValueError, match="there are no timesteps yet: call set_timesteps"):
            each.step(sample(1), 1, sample())
        each.set_timesteps(5)
    with pytest.raises(ValueError, match="timestep 1 is none of the 5 that set_timesteps gave"):
        scheduler.step(sample(1), 1, sample())
    with pytest.raises(ValueError, match="timestep 800 is not the next, 0"):
        inverse.step(sample(1), 800, sample())
    for t in inverse.timesteps:
        inverse.step(sample(1), t, sample())
    with pytest.raises(ValueError, match="all 5 steps are done"):
        inverse.step(sample(1), inverse.timesteps[-1], sample())


@BOTH
@pytest.mark.parametrize("gamma", [-0.1, 1.5, float("nan"), "1", None])
def test_a_wrong_gamma_is_a_sentence(kind, gamma):
    with pytest.raises((ValueError, TypeError), match="gamma"):
        kind(**OWN, gamma=gamma)

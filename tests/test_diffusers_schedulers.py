"""BDIA as a diffusers scheduler agrees with diffusers' DDIM and with our loops."""

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from iterinv.diffusers_schedulers import BDIAInverseScheduler, BDIAScheduler, level
from iterinv.inverters import Undo
from iterinv.models.toy import mixture
from iterinv.schedules import from_config
from iterinv.steps import BDIA
from iterinv.steps.run import run

from conftest import result

PLAIN = {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False}
STABLE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "steps_offset": 1,
}
SPACINGS = ("leading", "trailing", "linspace")


def data(seed=0):
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def predicted(scheduler, x, t):
    """Return the output of a network of the scheduler's prediction type for the mixture."""
    a, (x0, e) = level(scheduler, int(t)), mixture()(x, level(scheduler, int(t)))
    kind = scheduler.config.prediction_type
    return {"epsilon": e, "v_prediction": a.alpha * e - a.sigma * x0, "sample": x0}[kind]


def sampled(scheduler, x, steps):
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(predicted(scheduler, x, t), t, x).prev_sample
    return x


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip", [False, True])
def test_gamma_0_is_ddim_bit_for_bit(spacing, kind, clip):
    config = {**STABLE, "timestep_spacing": spacing, "prediction_type": kind, "clip_sample": clip}
    theirs, ours = sampled(DDIMScheduler(**config), data(), 13), sampled(BDIAScheduler(**config, gamma=0), data(), 13)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_it_samples_what_our_loop_samples(spacing, kind, gamma):
    scheduler = BDIAScheduler(**STABLE, timestep_spacing=spacing, prediction_type=kind, gamma=gamma)
    grid = from_config(scheduler.config).grid(13, spacing)
    *_, (ours, _) = run(BDIA(gamma), mixture(), (data(),), grid)
    torch.testing.assert_close(sampled(scheduler, data(), 13), ours, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [0.96, 1.0])
def test_what_is_inverted_is_sampled_again(spacing, kind, gamma):
    config = {**STABLE, "timestep_spacing": spacing, "prediction_type": kind, "gamma": gamma}
    inverse, forward = BDIAInverseScheduler(**config), BDIAScheduler(**config)
    x = data()
    inverse.set_timesteps(20)
    assert len(inverse.timesteps) == 20
    z = x
    for t in inverse.timesteps:
        z = inverse.step(predicted(inverse, z, t), t, z).prev_sample
    assert torch.equal(z, inverse.pair[0])
    forward.start_from(inverse)
    assert float((sampled(forward, z, 20) - x).abs().max()) < 1e-9
    fresh = data(7)
    assert torch.equal(
        sampled(forward, fresh, 20), sampled(BDIAScheduler(**config), fresh, 20)
    )  # the pair is for its own noise
    grid = from_config(forward.config).grid(20, spacing)
    (_, noisiest), _, _ = result(Undo()(BDIA(gamma), mixture(), x, grid))
    torch.testing.assert_close(z, noisiest, rtol=0, atol=1e-5)


def test_it_is_saved_loaded_and_made_from_another_schedulers_configuration(tmp_path):
    scheduler = BDIAScheduler.from_config(DDIMScheduler(**STABLE).config, gamma=0.7)
    assert scheduler.config.gamma == 0.7
    assert scheduler.config.steps_offset == 1
    scheduler.save_pretrained(tmp_path)
    again = BDIAScheduler.from_pretrained(tmp_path)
    assert again.config.gamma == 0.7
    assert torch.equal(sampled(again, data(), 9), sampled(scheduler, data(), 9))
    inverse = BDIAInverseScheduler.from_config(scheduler.config)
    assert inverse.config.gamma == 0.7


def test_a_run_forgets_the_run_before():
    scheduler = BDIAScheduler(**PLAIN, gamma=1.0)
    first = sampled(scheduler, data(), 7)
    sampled(scheduler, data(5), 7)
    assert torch.equal(sampled(scheduler, data(), 7), first)


def test_a_pipeline_takes_it(tiny_folder):
    absent = dict(safety_checker=None, feature_extractor=None, watermarker=None, requires_safety_checker=False)
    pipe = DiffusionPipeline.from_pretrained(tiny_folder / "stage1", dtype=torch.float32, **absent)
    pipe.set_progress_bar_config(disable=True)
    pictures = []
    for gamma in (0.0, 0.5):
        pipe.scheduler = BDIAScheduler.from_config(
            pipe.scheduler.config, gamma=gamma, thresholding=False, clip_sample=False
        )
        pipe.scheduler.register_to_config(variance_type="fixed_small")
        generator = torch.Generator().manual_seed(0)
        pictures.append(pipe("a red sphere", num_inference_steps=5, generator=generator, output_type="pt").images)
    assert pictures[0].shape == pictures[1].shape == (1, 3, 16, 16)
    assert bool(torch.stack(pictures).isfinite().all())
    assert not torch.equal(*pictures)


def test_what_cannot_be_undone_is_refused():
    with pytest.raises(ValueError, match=r"gamma is 1\.5"):
        BDIAScheduler(gamma=1.5)
    with pytest.raises(ValueError, match="must lie in"):
        BDIAInverseScheduler(gamma=0.0, clip_sample=False)
    with pytest.raises(ValueError, match="clipping and thresholding cannot be undone"):
        BDIAInverseScheduler.from_config(DDIMScheduler().config)
    mine, other = BDIAScheduler(**PLAIN), BDIAInverseScheduler(**PLAIN, gamma=0.9)
    with pytest.raises(ValueError, match=r"gamma 1\.0 and 0\.9; make both from one"):
        mine.start_from(other)
    inverse = BDIAInverseScheduler(**PLAIN)
    with pytest.raises(ValueError, match="0 of 0 steps were inverted"):
        mine.start_from(inverse)
    inverse.set_timesteps(5)
    for t in inverse.timesteps[:3]:
        inverse.step(data(), t, data())
    with pytest.raises(ValueError, match="3 of 5 steps were inverted"):
        mine.start_from(inverse)
    scheduler = BDIAScheduler(**PLAIN)
    scheduler.set_timesteps(5)
    with pytest.raises(ValueError, match="eta is 1"):
        scheduler.step(data(), 800, data(), eta=1)
    with pytest.raises(ValueError, match="use_clipped_model_output"):
        scheduler.step(data(), 800, data(), use_clipped_model_output=True)


def inverted(scheduler, x, steps):
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(predicted(scheduler, x, t), t, x).prev_sample
    return x


def test_an_inversion_is_run_by_its_own_steps_and_in_any_precision():
    x = 0.6 * data().sign()
    inverse, scheduler = BDIAInverseScheduler(**PLAIN), BDIAScheduler(**PLAIN)
    noise = inverted(inverse, x, 12)
    scheduler.start_from(inverse)
    with pytest.raises(ValueError, match="inverted by 12 steps and cannot be run by 6 others"):
        sampled(scheduler, noise, 6)
    assert float((sampled(scheduler, noise, 12) - x).abs().max()) < 1e-12
    assert float((sampled(scheduler, noise.float(), 12) - x).abs().max()) < 1e-4


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_it_runs_from_no_signal_at_all(gamma):
    """With rescale_betas_zero_snr, alpha is 0 at the first level, where only a v prediction determines the clean
    data."""
    config = {
        **STABLE,
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "prediction_type": "v_prediction",
    }

    def velocity(scheduler, x, t):
        a = level(scheduler, int(t))
        x0 = 0.3 * a.alpha * x / (a.alpha**2 * 0.3 + a.sigma**2)  # the data are N(0, 0.3)
        return (a.alpha * x - x0) / a.sigma

    ends = []
    for scheduler in (DDIMScheduler(**config), BDIAScheduler(**config, gamma=gamma)):
        scheduler.set_timesteps(200)
        x = data()
        for t in scheduler.timesteps:
            x = scheduler.step(velocity(scheduler, x, t), t, x).prev_sample
        ends.append(x)
    assert bool(ends[1].isfinite().all())
    torch.testing.assert_close(*ends, rtol=0, atol=0 if gamma == 0 else 0.02)


def test_a_pipeline_that_holds_it_is_saved_and_loaded(tiny_folder, tmp_path):
    absent = dict(safety_checker=None, feature_extractor=None, watermarker=None, requires_safety_checker=False)
    pipe = DiffusionPipeline.from_pretrained(tiny_folder / "stage1", dtype=torch.float32, **absent)
    pipe.scheduler = BDIAScheduler.from_config(pipe.scheduler.config, gamma=0.7)
    pipe.save_pretrained(tmp_path)
    again = DiffusionPipeline.from_pretrained(tmp_path, dtype=torch.float32, **absent).scheduler
    assert isinstance(again, BDIAScheduler)
    assert again.config.gamma == 0.7


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 60),
    st.sampled_from(SPACINGS),
    st.sampled_from([0, 1]),
    st.booleans(),
    st.sampled_from(["epsilon", "v_prediction"]),
    st.sampled_from([1.0, 3.0, 7.0]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_the_pair_is_exact_on_any_grid(steps, spacing, offset, to_one, kind, guidance, dtype):
    """This holds for all spacings, offsets, clean ends, prediction types, guidance scales and precisions."""
    config = {**STABLE, "timestep_spacing": spacing, "steps_offset": offset, "set_alpha_to_one": to_one}
    config |= {"prediction_type": kind, "gamma": 1.0}
    inverse, forward = BDIAInverseScheduler(**config), BDIAScheduler(**config)
    x = z = data().to(dtype)

    def guided(scheduler, x, t):
        return guidance * predicted(scheduler, x, t) + (1 - guidance) * predicted(scheduler, 0.9 * x, t)

    inverse.set_timesteps(steps)
    for t in inverse.timesteps:
        z = inverse.step(guided(inverse, z, t), t, z).prev_sample
    forward.start_from(inverse)
    forward.set_timesteps(steps)
    for t in forward.timesteps:
        z = forward.step(guided(forward, z, t), t, z).prev_sample
    assert z.dtype == dtype
    assert float((z - x).abs().max()) < (1e-3 if dtype == torch.float32 else 1e-9) * max(
        1.0, float(inverse.pair[0].abs().max())
    )

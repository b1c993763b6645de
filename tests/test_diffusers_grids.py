"""Every scheduler that diffusers exports gives its own grid here, or is refused by its name."""

import inspect
import math

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from hypothesis import example, given, settings
from hypothesis import strategies as st

import published
from iterinv import families
from iterinv.cascade import Cascade
from iterinv.models import pipelines
from iterinv.models.toy import gaussian, gaussian_flow
from iterinv.plans import Plan
from iterinv.schedules import KARRAS, SPACINGS, WALKS, Schedule, from_config
from iterinv.steps import DDIM
from iterinv.steps.run import run

from conftest import draw, field_of

EXPORTED = sorted(name for name in dir(diffusers) if name.endswith("Scheduler"))
KNOWN = [name for name in WALKS if not name.startswith("BDIA")]
BETAS = {
    "sd": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}


def made(name, **config):
    """Make a scheduler of a class, with those of the settings that the class takes."""
    kind = getattr(diffusers, name)
    config = {"skip_prk_steps": True, **config}  # PNDM's Runge-Kutta steps use labels between those of its grid
    return kind(**{key: value for key, value in config.items() if key in inspect.signature(kind).parameters})


def walked(scheduler, steps):
    """Return the levels that a scheduler takes, (label, ratio of noise to signal), and the ratio that it ends at."""
    scheduler.set_timesteps(steps)
    table = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().double()
    if (sigmas := getattr(scheduler, "sigmas", None)) is None:
        # PNDM visits one of them twice; and where steps round so, diffusers' trailing labels go on to -1.
        labels = sorted({int(t) for t in scheduler.timesteps if t >= 0}, reverse=True)
        ends = [getattr(scheduler, name, None) for name in ("final_alpha_cumprod", "initial_alpha_cumprod")]
        end = next((float(each) for each in ends if each is not None), 1.0)
        return [(float(t), float(table[t])) for t in labels], math.sqrt((1 - end) / end)
    labels, sigmas = scheduler.timesteps.tolist(), sigmas.double().tolist()
    if scheduler.order == 2:  # it makes two calls per step: every other label is an inner point
        labels = [labels[0], *labels[2::2]]
        sigmas = [sigmas[0], *sigmas[2::2][: len(labels) - 1], sigmas[-1]]
    return list(zip(labels, sigmas[:-1], strict=True)), sigmas[-1]


def assert_as_walked(scheduler, steps):
    levels, end = walked(scheduler, steps)
    grid = pipelines.schedule(scheduler).grid(steps)
    assert [level.t for level in grid[:-1]] == pytest.approx([t for t, _ in levels], abs=2e-3)
    ratios = [level.sigma / level.alpha for level in grid]
    assert ratios == pytest.approx([*(ratio for _, ratio in levels), end], rel=2e-5, abs=1e-6)


def divides(name, spacing, steps):
    """Tell whether diffusers' leading labels cover the schedule; otherwise ours are spread."""
    parts = steps + (WALKS[name] == "dpm")
    return spacing != "leading" or 1000 % parts < 1000 // parts


@pytest.mark.parametrize("name", EXPORTED)
def test_every_exported_scheduler_is_known_or_refused_by_name(name):
    if name in KNOWN:
        for steps in (4, 20, 50):
            assert_as_walked(made(name), steps)
        return
    with pytest.raises(ValueError, match=f"the levels of a {name} are not known here: give the pipeline"):
        from_config({"_class_name": name})


@settings(max_examples=150, deadline=None)
@example("DPMSolverMultistepScheduler", "cosine", "leading", 1, False, 999)
@example("DPMSolverSinglestepScheduler", "cosine", "leading", 1, False, 999)  # this class has neither setting
@given(
    st.sampled_from(KNOWN),
    st.sampled_from(sorted(BETAS)),
    st.sampled_from(SPACINGS),
    st.sampled_from([0, 1]),
    st.booleans(),
    st.integers(2, 999),
)
def test_known_schedulers_are_read_as_they_walk(name, betas, spacing, offset, to_one, steps):
    """This holds for all betas, spacings, offsets, clean ends and numbers of steps."""
    if name == "DDIMInverseScheduler" and spacing == "linspace":
        spacing = "trailing"  # this class has no other spacing
    if WALKS[name] == "lcm":
        steps = min(steps, 50)
    if not divides(name, spacing, steps) or len(np.arange(1000, 0, -1000 / steps)) > steps:  # see above
        steps = 20
    config = {**BETAS[betas], "timestep_spacing": spacing, "steps_offset": offset, "set_alpha_to_one": to_one}
    config["final_sigmas_type"] = "zero" if to_one else "sigma_min"
    scheduler = made(name, **config)
    leading = scheduler.config.get("timestep_spacing") == "leading"
    if leading and WALKS[name] == "dpm" and steps == 999 and scheduler.config.get("steps_offset"):  # beyond the table
        with pytest.raises(ValueError, match="reach label 1000; the last label is 999: take fewer"):
            pipelines.schedule(scheduler).grid(steps)
        return
    assert_as_walked(scheduler, steps)


@pytest.mark.parametrize("name", KNOWN)
def test_no_signal_at_the_noisy_end_is_read_as_each_class_means_it(name):
    scheduler = made(name, **BETAS["sd"], rescale_betas_zero_snr=True, timestep_spacing="trailing")
    if "rescale_betas_zero_snr" in scheduler.config and WALKS[name] != "lcm":
        grid, ours = pipelines.schedule(scheduler).grid(10), float(scheduler.alphas_cumprod[-1])
        assert grid[0].alpha ** 2 == pytest.approx(ours, abs=1e-12)
        assert (grid[0].alpha == 0) == (WALKS[name] == "ddim")


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize(
    "option", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas"]
)
def test_other_levels_of_a_class_are_read_or_refused_by_name(name, option):
    kind = getattr(diffusers, name)
    if option not in inspect.signature(kind).parameters:
        # A setting of another class, which diffusers keeps in the configuration and does not use.
        scheduler = kind.from_config({**made(name, **BETAS["sd"]).config, option: True})
        assert pipelines.schedule(scheduler) == pipelines.schedule(made(name, **BETAS["sd"]))
        return
    prediction = {"prediction_type": "flow_prediction"} if option == "use_flow_sigmas" else {}
    scheduler = made(name, **BETAS["sd"], **prediction, **{option: True})
    if option != "use_karras_sigmas" or name not in KARRAS:
        with pytest.raises(ValueError, match=f"{name} with {option} True"):
            pipelines.schedule(scheduler)
        return
    for steps in (4, 20, 35):
        assert_as_walked(scheduler, steps)
    grid = pipelines.schedule(scheduler).grid(10, "leading")  # an explicit spacing applies to labels
    assert grid == pipelines.schedule(made(name, **BETAS["sd"])).grid(10, "leading")


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -5.1}),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}),
        ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}),
        ("UniPCMultistepScheduler", {"sigma_max": 3.0, "use_karras_sigmas": True}),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_settings_that_change_the_levels_are_refused_by_name(name, setting):
    with pytest.raises(ValueError, match=f"the levels of a {name} with .*{next(iter(setting))}"):
        pipelines.schedule(made(name, **setting))


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler", "IPNDMScheduler"])
def test_a_pipeline_of_a_scheduler_that_is_not_known_is_refused_at_load(name):
    pipe = published.sd()
    pipe.scheduler = getattr(diffusers, name)()
    with pytest.raises(ValueError, match=f"the levels of a {name} are not known"):
        families.stage(pipe)


class Mine(DDIMScheduler):
    """A user's own scheduler, which takes the steps of DDIM's."""


def test_a_class_of_ones_own_is_read_as_the_one_it_comes_from():
    config = {**BETAS["sd"], "timestep_spacing": "trailing", "steps_offset": 1, "set_alpha_to_one": False}
    assert pipelines.schedule(Mine(**config)) == pipelines.schedule(DDIMScheduler(**config))


@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize(
    ("kind", "spacing"), [("ddim", "leading"), ("ddim", "trailing"), *(("euler", each) for each in SPACINGS)]
)
def test_pictures_are_the_pipelines_own_by_its_own_spacing(kind, spacing, steps):
    """Euler's rule is DDIM's in other variables: linspace between whole labels too. diffusers' DDIM itself steps to the
    label less 1000 // steps, which is the next one where steps divide and never under linspace."""
    pipe = published.sd()
    make = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}[kind]
    pipe.scheduler = make.from_config(pipe.scheduler.config, timestep_spacing=spacing)
    stage = families.stage(pipe)
    noise = draw((1, *stage.shape), 0)
    theirs = pipe(
        "a red ball", num_inference_steps=steps, guidance_scale=1.0, latents=noise, output_type="latent"
    ).images
    grid = stage.schedule.grid(steps)
    pipe.scheduler.set_timesteps(steps)
    start = noise.double()
    if kind == "euler":  # it works on x / alpha, from noise of its own spread
        start = start * float(pipe.scheduler.init_noise_sigma) * grid[0].alpha
    with torch.no_grad():
        *_, (x,) = run(DDIM(), field_of(stage, stage.condition("a red ball")), (start,), grid)
    torch.testing.assert_close(x.float(), theirs, rtol=0, atol=1e-4 * max(1.0, float(theirs.abs().max())))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 1000), st.sampled_from(["ddim", "euler", "dpm"]), st.sampled_from(SPACINGS), st.sampled_from([0, 1])
)
def test_a_grid_goes_the_whole_way_or_is_refused_with_the_counts_that_fit(steps, walk, spacing, offset):
    """The labels are distinct; the first is less than two steps from the last of the table, and the last as near to its
    first."""
    schedule = Schedule(from_config({}).alphas_cumprod, offset, walk=walk)
    if (walk == "dpm" and steps > 999) or (spacing == "leading" and steps + offset > 1000 - (walk == "dpm")):
        with pytest.raises(ValueError, match=r"takes 1 to 999|take fewer"):
            schedule.grid(steps, spacing)
        return
    labels = [level.t for level in schedule.grid(steps, spacing)[:-1]]
    assert len(set(labels)) == steps
    assert labels == sorted(labels, reverse=True)
    assert labels[0] >= 999 - 2 * 1000 / (steps + (walk == "dpm")) or steps == 1
    assert 0 <= labels[-1] <= 1000 / steps + 1


def test_many_steps_sample_what_few_do():
    """501 leading labels of 1000 began half-way up, at a level with as much signal as noise."""
    schedule, x = (
        from_config({}),
        torch.randn(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    ends = []
    for steps in (50, 334, 501, 667):
        grid = schedule.grid(steps)
        *_, (end,) = run(DDIM(), gaussian(), (x,), grid)
        ends.append(end)
        assert float((end - gaussian_flow(x, schedule.level(999), grid[-1])).abs().max()) < 0.1
    assert all(float((end - ends[0]).square().mean().sqrt()) < 0.05 for end in ends)


def test_a_cascade_samples_and_inverts_by_the_spacing_of_its_configuration():
    pipe = published.sd()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    cascade = Cascade((families.stage(pipe),))
    x = torch.zeros(1, 3, 64, 64)
    assert cascade.invert(x, "a", "bdia", 4).noise_level.t == 999
    assert cascade.invert(x, "a", Plan(steps=4, spacing="leading")).noise_level.t == 751

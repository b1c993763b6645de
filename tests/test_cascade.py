import contextlib
from dataclasses import replace

import pytest
import torch

from iterinv.cascade import Cascade, load, resize
from iterinv.edits import DiffEdit, FlowEdit, FromPrompts, PromptSwap
from iterinv.families import edm
from iterinv.images import to_uint8
from iterinv.inverters import IndependentNoise, Relax, Solve, Undo
from iterinv.levels import Prediction
from iterinv.methods import METHODS, plan
from iterinv.models.toy import mixture
from iterinv.plans import Plan
from iterinv.roots import Anderson, FixedPoint
from iterinv.schedules import from_config
from iterinv.steps import BDIA, BELM, DDIM, DPMPP2M, EDICT, BDIAHeun, FixedPointBDIA
from iterinv.steps.run import NotFinite, run

from conftest import Hearing

PROMPT, TARGET = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"


@pytest.fixture(scope="module")
def exact(tiny):
    return tiny.invert(photo(), PROMPT, plan("bdia", 10))


def photo(batch=1, size=64):
    values = torch.randint(0, 256, (batch, 3, size, size), generator=torch.Generator().manual_seed(2))
    return values.float() / 127.5 - 1


EXACT = ["bdia", "bdia-fixed", "bdia-heun", "bdia-2s", "belm", "edict", "rex", "rex-heun", "direct", "edit-friendly"]


@pytest.mark.filterwarnings("ignore:.*inverts under guidance", "ignore:undoing")
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_works_at_every_stage_at_any_guidance_and_leaves_its_files(tiny, tmp_path, method, guidance):
    """The reported fidelity is right, and a reopened file reruns to the same bits."""
    x = photo()
    inversion = tiny.invert(x, PROMPT, plan(method, 3, guidance))
    assert [stage_inversion.plan.method for stage_inversion in inversion.stages] == [method] * 3
    if method in EXACT:
        assert (to_uint8(inversion.picture) == to_uint8(x)).all()
    inversion.save(tmp_path / "a.safetensors")
    again = tiny.open(tmp_path / "a.safetensors")
    for a, b in zip(inversion.stages, again.stages, strict=True):
        assert a.plan == b.plan
        assert torch.equal(a.picture, b.picture)
        assert torch.equal(a.noise, b.noise)
    for editor in (DiffEdit(region=FromPrompts(maps=2)), FlowEdit(averages=1)):
        edit = tiny.edit(again, TARGET, editor)
        assert all(bool(picture.isfinite().all()) for picture in edit.pictures)


@pytest.mark.filterwarnings("ignore:.*inverts under guidance", "ignore:undoing")
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_two_is_two_batches_of_one(tiny_folder, method):
    # float64, since a processor may convolve a batch and a single picture by other kernels, and AdamW amplifies
    # float32's last bit.
    stage, pair = Cascade(load(str(tiny_folder), dtype=torch.float64).stages[:1]), photo(2, 16)
    together = stage.invert(pair, PROMPT, plan(method, 3, 3.0))
    for k in range(2):
        alone = stage.invert(pair[k : k + 1], PROMPT, plan(method, 3, 3.0))
        torch.testing.assert_close(together.stages[0].noise[k], alone.stages[0].noise[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(together.picture[k], alone.picture[0], rtol=0, atol=1e-6)


def test_fixed_point_arithmetic_gives_the_float_picture_back_with_no_bit_changed(tiny):
    for guidance in (1.0, 7.0):
        x = photo()
        inversion = tiny.invert(x, PROMPT, plan("bdia-fixed", 20, guidance))
        assert torch.equal(inversion.stages[-1].picture, x.double())
        assert all(stage_inversion.report.residual_max == 0 for stage_inversion in inversion.stages)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("steps", [2, 10])
def test_bdia_gives_every_pixel_back_at_every_stage_in_2n_minus_1_calls(tiny, steps, guidance):
    x = photo()
    inversion = tiny.invert(x, PROMPT, plan("bdia", steps, guidance))
    for stage, stage_inversion in zip(tiny.stages, inversion.stages, strict=True):
        assert (to_uint8(stage_inversion.picture) == to_uint8(resize(x, stage.extent))).all()
        assert stage_inversion.report.forward == (2 * steps - 1) * (1 if guidance == 1 else 2)
        assert stage_inversion.report.backward == 0
        assert stage_inversion.report.residual_max < 1e-9


def test_float32_states_are_exact_too(tiny):
    x = photo()
    inversion = tiny.invert(x, PROMPT, Plan(steps=20, dtype="float32"))
    assert inversion.stages[-1].state[0].dtype == torch.float32
    assert (to_uint8(inversion.picture) == to_uint8(x)).all()


def test_ddim_costs_2n_and_loses_the_picture_and_iterinv_finds_it(tiny):
    x, steps = photo(), 10
    ddim = tiny.invert(x, PROMPT, plan("ddim", steps))
    solved = tiny.invert(x, PROMPT, Plan(DDIM(), Solve(Anderson(60, 1e-7)), steps=steps))
    assert [stage_inversion.report.forward for stage_inversion in ddim.stages] == [2 * steps] * 3
    assert ddim.stages[-1].report.root_error_max is None  # one fixed-point iteration measures nothing
    error = [float((i.picture - x).square().mean()) for i in (ddim, solved)]
    assert error[0] > 1e-3 > 1e-5 > error[1]
    assert solved.stages[-1].report.forward > 3 * steps


def test_stages_are_conditioned_on_the_reconstruction_below(tiny, exact):
    for below, stage_inversion in zip(exact.stages, exact.stages[1:], strict=False):
        torch.testing.assert_close(
            stage_inversion.condition["low_image"], below.picture.clamp(-1, 1).float(), rtol=0, atol=0
        )


def test_rerunning_from_the_states_alone_gives_the_same_bits(tiny, exact):
    again = tiny.rerun(exact)
    for a, b in zip(exact.stages, again.stages, strict=True):
        assert torch.equal(a.picture, b.picture)
        assert all(torch.equal(x, y) for x, y in zip(a.path, b.path, strict=True))


def test_the_seed_draws_the_low_noise_and_nothing_else(tiny):
    a, b, c = (tiny.invert(photo(), PROMPT, plan("bdia", 4), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a.stages[2].noise, b.stages[2].noise)
    assert not torch.equal(a.stages[2].condition["low_noise"], c.stages[2].condition["low_noise"])
    assert torch.equal(a.stages[0].noise, c.stages[0].noise)


# Refusals and their sentences.


def test_a_picture_of_another_kind_is_refused(tiny):
    with pytest.raises(ValueError, match=r"a picture's tensor is \(3, h, w\), not \(2, 3, 32, 32\)"):
        tiny.invert(torch.zeros(2, 3, 32, 32), PROMPT)
    with pytest.raises(ValueError, match=r"lie in \[-1, 1\]"):
        tiny.invert(photo() * 2, PROMPT)
    with pytest.raises(ValueError, match="finite"):
        tiny.invert(photo() * float("nan"), PROMPT)
    with pytest.raises(ValueError, match="2 plans for 3 stages"):
        tiny.invert(photo(), PROMPT, [Plan(), Plan()])
    with pytest.raises(ValueError, match="2 plans for 3 stages"):
        tiny.invert(photo(), PROMPT, guidance_scale=[2.0, 1.0])
    with pytest.raises(TypeError, match="a name, a plan, or a list of one for each stage"):
        tiny.invert(photo(), PROMPT, ["bdia", Plan(), Plan()])


def test_plans_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="DDIM cannot undo itself: give the plan another inverter"):
        Plan(DDIM())
    with pytest.raises(ValueError, match="float16 lose the picture"):
        Plan(dtype="float16")
    with pytest.raises(ValueError, match="the methods are bdia, bdia-fixed, "):
        plan("magic")
    with pytest.raises(ValueError, match=r"1 step\(s\) leave BDIA nothing to undo"):
        Plan(steps=1)
    with pytest.raises(ValueError, match="guidance is nan"):
        Plan(guidance=float("nan"))
    with pytest.raises(ValueError, match="guidance is inf"):
        DiffEdit(guidance=float("inf"))
    with pytest.raises(ValueError, match="strength"):
        PromptSwap(strength=0)
    with pytest.raises(ValueError, match="mask_strength"):
        FromPrompts(strength=1.5)


def test_method_names_go_both_ways():
    for name in METHODS:
        assert plan(name).method == name
    assert Plan(BDIA(0.96)).method == "BDIA"
    assert Plan(DDIM(), Solve(Anderson())).method == "DDIM+Anderson"


@pytest.mark.parametrize(
    ("rule", "dtype", "ways"),
    [
        (BDIA(0.5), "float64", "30 steps or a gamma of 0.656 or more or another method"),
        (BDIA(0.8), "float32", "42 steps or a gamma of 0.829 or more"),
        (EDICT(0.8), "float64", "46 steps or another method"),
    ],
)
def test_growth_that_the_dtype_cannot_carry_is_refused_and_the_way_out_works(tiny, rule, dtype, ways):
    """The error names the largest number of steps, or the smallest gamma; both work."""
    with pytest.raises(ValueError, match=ways):
        tiny.invert(photo(), PROMPT, Plan(rule, steps=50, dtype=dtype))
    first, x = Cascade(tiny.stages[:1]), photo(1, 16)
    plans = [Plan(rule, steps=int(ways.split()[0]), dtype=dtype)]
    if "gamma" in ways:
        plans.append(Plan(BDIA(float(ways.split("gamma of ")[1].split()[0])), steps=50, dtype=dtype))
    for how in plans:
        with pytest.warns(UserWarning, match="far from a sampler's") if rule != BDIA(0.8) else contextlib.nullcontext():
            inversion = first.invert(x, PROMPT, how)
        assert (to_uint8(inversion.picture) == to_uint8(x)).all()


def test_a_rule_whose_growth_depends_on_the_grid_is_refused_with_a_way_out(tiny):
    with pytest.raises(ValueError, match=r"undoing 50 steps of BELM\(\) multiplies rounding by .* another method"):
        Plan(BELM(), steps=50, dtype="float32").check(tiny.stages[0])
    with pytest.raises(ValueError, match=r"undoing 200 steps of EDICT.*; take \d+ steps or another method"):
        Plan(EDICT(0.9), steps=200).check(edm.stage(lambda x, sigma: x, 16))


@pytest.mark.parametrize("rule", [BELM(), DPMPP2M(), BDIA()])
def test_a_grid_whose_last_two_levels_are_one_is_no_trouble_or_is_told(rule):
    """With steps_offset 0 and without set_alpha_to_one, the clean end is the last level."""
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "set_alpha_to_one": False}
    grid = from_config(config).grid(10)
    assert grid[-1].alpha == grid[-2].alpha
    if isinstance(rule, BELM):
        assert rule.growth(grid) == float("inf")
        return
    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    *_, state = run(rule, mixture(), rule.init(x), grid)
    assert bool(state[0].isfinite().all())


@pytest.mark.parametrize(
    ("rule", "inverter", "words"),
    [
        (BDIA(), Solve(Anderson()), "BDIA remembers more than one state"),
        (EDICT(), Solve(Anderson()), "EDICT remembers more than one state"),
        (FixedPointBDIA(), Solve(FixedPoint(1)), "FixedPointBDIA remembers more than one state"),
        (BDIAHeun(), Solve(Anderson()), "BDIAHeun remembers more than one state"),
        (DPMPP2M(), Solve(Anderson()), "DPMPP2M remembers more than one state.*give the plan Relax"),
        (DPMPP2M(), IndependentNoise(), "DPMPP2M remembers more than one state"),
        (DPMPP2M(), Undo(), r"give the plan another inverter, such as Relax\(\)"),
        (DDIM(), Undo(), r"give the plan another inverter, such as Solve\(FixedPoint\(\)\)"),
        (DDIM(), Relax(), "DDIM is none: give the plan Solve"),
    ],
)
def test_a_rule_and_its_inverter_must_fit(rule, inverter, words):
    with pytest.raises(ValueError, match=words):
        Plan(rule, inverter)


def test_equal_plans_compare_equal_whatever_their_names():
    assert plan("bdia") == Plan() == Plan(BDIA(), Undo())
    assert plan("iterinv-anderson") == Plan(DDIM(), Solve(Anderson()))
    assert plan("bdia") != plan("belm")
    assert len({plan(name) for name in METHODS}) == len(METHODS)


def test_a_spacing_is_for_discrete_timesteps_only(tiny):
    with pytest.raises(ValueError, match="EDM's levels are spaced by rho"):
        Plan(spacing="trailing").check(edm.stage(lambda x, sigma: x, 16))
    assert Plan().check(edm.stage(lambda x, sigma: x, 16))[0].sigma == pytest.approx(80)
    assert Plan(steps=4, spacing="trailing").check(tiny.stages[0]) != Plan(steps=4).check(tiny.stages[0])


def test_solving_under_guidance_is_warned_of(tiny):
    with pytest.warns(UserWarning, match="ddim inverts under guidance 3"):
        tiny.invert(photo(), PROMPT, plan("ddim", 2, 3.0))


def test_another_cascades_inversion_is_refused(tiny, exact):
    other = Cascade(tiny.stages[:2])
    with pytest.raises(ValueError, match="not by the one loaded"):
        other.rerun(exact)


def test_progress_hears_every_step_and_can_stop_the_work(tiny):
    heard = Hearing()
    tiny.invert(photo(), PROMPT, plan("bdia", 4), observer=heard)
    grid = tiny.stages[0].schedule.grid(4)
    assert heard.steps[:4] == [("I", "inverting", k, 4, grid[5 - k].t) for k in (1, 2, 3, 4)]
    assert heard.steps[4:8] == [("I", "reconstructing", k, 4, grid[k].t) for k in (1, 2, 3, 4)]
    assert {stage for stage, *_ in heard.steps} == {"I", "II", "III"}
    assert heard.calls == ["I"] * 7 + ["II"] * 7 + ["III"] * 7


def test_work_stops_between_any_two_network_calls(tiny):
    class Stopping(Hearing):
        def on_call(self, stage):
            super().on_call(stage)
            if len(self.calls) == 5:
                raise KeyboardInterrupt

    for work in (
        lambda watch: tiny.invert(photo(), PROMPT, observer=watch),
        lambda watch: tiny.invert(photo(), PROMPT, plan("iterinv-anderson", 2), observer=watch),
        lambda watch: tiny.sample(PROMPT, 4, observer=watch),
    ):
        watch = Stopping()
        with pytest.raises(KeyboardInterrupt):
            work(watch)
        assert len(watch.calls) == 5


def test_a_callback_is_called_after_every_step(tiny):
    heard = []

    def callback(cascade, step, timestep, values):
        heard.append((step, timestep, values["stage"], values["phase"], tuple(values["latents"].shape)))

    inversion = tiny.invert(photo(), PROMPT, plan("bdia", 3), callback_on_step_end=callback)
    assert heard[0] == (0, tiny.stages[0].schedule.grid(3)[-1].t, "I", "inverting", (1, 3, 16, 16))
    heard.clear()
    tiny.edit(inversion, TARGET, PromptSwap(), callback_on_step_end=callback)
    assert {phase for _, _, _, phase, _ in heard} == {"editing"}
    heard.clear()
    tiny.sample(PROMPT, 3, callback_on_step_end=callback)
    assert [step for step, _, stage, *_ in heard if stage == "I"] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="not both"):
        tiny.sample(PROMPT, 3, callback_on_step_end=callback, observer=Hearing())


def test_sampling_is_reproducible_and_in_range(tiny):
    a, b = (tiny.sample(PROMPT, 3, num_images_per_prompt=2, seed=1) for _ in range(2))
    assert [p.shape[-1] for p in a] == [16, 32, 64]
    assert all(torch.equal(x, y) and float(x.abs().max()) <= 1 for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0][0], a[0][1])


def test_a_sample_does_not_depend_on_the_size_of_its_batch(tiny):
    for x, y in zip(tiny.sample(PROMPT, 2), tiny.sample(PROMPT, 2, num_images_per_prompt=3), strict=True):
        torch.testing.assert_close(x[0], y[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["bdia", "bdia-fixed", "iterinv-anderson", "dpmpp-2m", "edit-friendly"])
def test_a_state_that_is_not_finite_is_told_with_stage_and_method(tiny, method):
    def broken(x, level, condition):
        x = x * float("nan") if level.t < 500 else x
        return Prediction(x, x)

    cascade = Cascade((tiny.stages[0], replace(tiny.stages[1], denoiser=broken)))
    with pytest.raises(NotFinite, match=rf"stage II by {method}: \w+: the state at level \d of 4 \(label -?\d+\)"):
        cascade.invert(photo(1, 32), PROMPT, plan(method, 4))


def test_a_rerun_and_an_edit_say_so_too(tiny):
    fine = Cascade(tiny.stages[:2])
    inversion = fine.invert(photo(1, 32), PROMPT, plan("bdia", 4))
    broken = Cascade(
        (tiny.stages[0], replace(tiny.stages[1], denoiser=lambda x, level, condition: Prediction(x * float("nan"), x)))
    )
    for work in (lambda: broken.rerun(inversion), lambda: broken.edit(inversion, TARGET, PromptSwap())):
        with pytest.raises(NotFinite, match=r"stage II by bdia.*: running: the state at level"):
            work()

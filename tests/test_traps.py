"""Public code makes these mistakes: each test makes one on purpose, or shows that this package does not make it."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from iterinv import sources
from iterinv.cascade import Cascade
from iterinv.guidance import unguided
from iterinv.inverters import Solve, Undo
from iterinv.levels import move
from iterinv.methods import METHODS, plan
from iterinv.models.toy import mixture
from iterinv.roots import FixedPoint
from iterinv.schedules import from_config
from iterinv.steps import BDIA, DDIM
from iterinv.steps.run import run

from conftest import result

X4 = from_config({"beta_schedule": "scaled_linear", "beta_start": 1e-4, "beta_end": 0.02, "steps_offset": 1})
PROMPT = "a red sphere on a wooden floor"


def photo(size):
    values = torch.randint(0, 256, (1, 3, size, size), generator=torch.Generator().manual_seed(2))
    return values.float() / 127.5 - 1


def rms(x):
    return float(x.square().mean().sqrt())


def test_a_velocity_taken_for_noise_is_lost_at_any_number_of_steps():
    """Published DDIM rows for the x4 upscaler invert this way: finer grids do not help them, while the right reading
    gains."""
    x = 0.6 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sign()

    def noise(u, a):
        return mixture()(u, a).eps

    def velocity(u, a):
        x0, e = mixture()(u, a)
        return a.alpha * e - a.sigma * x0

    def lost(steps, inverse_eps):
        grid, u = X4.grid(steps), x
        for i in reversed(range(steps)):
            u = move(u, inverse_eps(u, grid[i]), grid[i + 1], grid[i])
        *_, (back,) = run(DDIM(), mixture(), (u,), grid)
        return rms(back - x)

    right, wrong = ([lost(n, eps) for n in (50, 100, 200)] for eps in (noise, velocity))
    assert right[2] < right[1] < right[0] < 0.05
    assert min(wrong) > 5 * right[0]


def test_another_noise_on_the_low_picture_is_another_reconstruction(tiny):
    """The noise of the condition must be that of the inversion: new noise loses the picture by orders of magnitude."""
    inversion = tiny.invert(photo(64), PROMPT, plan("bdia", 10))
    stage_inversion = inversion.stages[2]
    other = stage_inversion.condition.updated(low_noise=torch.randn(stage_inversion.condition["low_noise"].shape))
    with torch.no_grad():
        field = unguided(tiny.stages[2].denoiser, other)
        *_, (back, *_) = run(
            stage_inversion.rule, field, stage_inversion.state, stage_inversion.grid, stage_inversion.start
        )
    assert rms(back - photo(64)) > 1e3 * max(rms(stage_inversion.picture - photo(64)), 1e-9)


def test_thresholding_in_a_folders_scheduler_does_not_reach_our_steps(tiny_folder, tmp_path):
    """IF's own configuration turns thresholding on, and it has no inverse."""
    config = json.loads((tiny_folder / "stage1" / "scheduler" / "scheduler_config.json").read_text())
    assert config["thresholding"]
    plain = shutil.copytree(tiny_folder / "stage1", tmp_path / "plain")
    (plain / "scheduler" / "scheduler_config.json").write_text(json.dumps({**config, "thresholding": False}))
    noises = []
    for folder in (tiny_folder / "stage1", plain):
        cascade = Cascade(sources.stages(folder))
        noises.append(cascade.invert(photo(16), PROMPT, plan("bdia", 5)).stages[0].noise)
    assert torch.equal(*noises)


@pytest.mark.filterwarnings("ignore:.*inverts under guidance", "ignore:undoing")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [3, 4])
def test_no_method_shows_the_network_a_label_it_does_not_know(tiny, method, steps):
    """Public BDIA calls the network at -20 on its first step back; steps that do not divide 1000 leave its integer
    grid."""
    labels, stage = set(), tiny.stages[0]

    def watched(x, level, condition):
        labels.add(level.t)
        assert level.sigma > 0
        return stage.denoiser(x, level, condition)

    Cascade((replace(stage, denoiser=watched),)).invert(photo(16), PROMPT, plan(method, steps, 3.0))
    assert labels <= {level.t for level in stage.schedule.grid(steps)[:-1]}


def test_the_source_label_is_not_the_destinations():
    """DDIM inversion predicts the noise at the level it goes to; a prediction at the level it leaves loses several
    times more."""
    x = 0.6 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sign()
    grid = X4.grid(50)

    def lost(shift):
        u = x
        for i in reversed(range(50)):
            u = move(u, mixture()(u, grid[min(i + shift, 49)]).eps, grid[i + 1], grid[i])
        *_, (back,) = run(DDIM(), mixture(), (u,), grid)
        return rms(back - x)

    assert lost(0) < 0.7 * lost(1)
    state, _, _ = result(Solve(FixedPoint(1))(DDIM(), mixture(), x, grid))
    *_, (back,) = run(DDIM(), mixture(), state, grid)
    assert rms(back - x) == pytest.approx(lost(0))


def test_one_half_of_the_pair_is_not_enough():
    """A fresh first step from the noise alone is not BDIA's way back: the pair is what reproduces."""
    x = 0.6 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sign()
    grid = X4.grid(30)
    pair, _, _ = result(Undo()(BDIA(), mixture(), x, grid))
    *_, (whole, _) = run(BDIA(), mixture(), pair, grid, 1)
    *_, (half, _) = run(BDIA(), mixture(), BDIA().init(pair[1]), grid)
    assert rms(whole - x) < 1e-12
    assert rms(half - x) > 1e-6

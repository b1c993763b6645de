"""EDM's models and levels run on a network that is exact for Gaussian data."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import iterinv
from iterinv.cascade import Cascade
from iterinv.cli import app
from iterinv.families import edm
from iterinv.guidance import unguided
from iterinv.images import from_uint8, to_uint8
from iterinv.methods import METHODS, plan
from iterinv.reports import inversion_report
from iterinv.schedules import Karras
from iterinv.steps import RULES, BDIAHeun, Heun
from iterinv.steps.run import run
from iterinv.streams import draw_noise

MEAN, STD, DATA = 0.2, 0.4, 0.5


def network(x, c_noise):
    """Return the bare network whose preconditioning is exact for data N(MEAN, STD^2)."""
    s = (4 * c_noise).exp().reshape(-1, *[1] * (x.ndim - 1))
    spread = (s**2 + DATA**2).sqrt()
    truth = (STD**2 * (x * spread) + s**2 * MEAN) / (STD**2 + s**2)
    return (truth - (DATA / spread) ** 2 * x * spread) / (s * DATA / spread)


@pytest.fixture(scope="module")
def stage():
    return edm.stage(edm.precondition(network), 16, dtype=torch.float64)


def test_preconditioning_is_the_papers(stage):
    x, sigma = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.tensor([0.1, 5.0], dtype=torch.float64)
    s = sigma[:, None, None, None]
    truth = (STD**2 * x + s**2 * MEAN) / (STD**2 + s**2)
    torch.testing.assert_close(edm.precondition(network)(x, sigma), truth, rtol=0, atol=1e-9)
    inputs = []
    edm.precondition(lambda x, c: inputs.append((x, c)) or x * 0)(x, sigma)
    torch.testing.assert_close(inputs[0][0], x / (s**2 + 0.25) ** 0.5)
    torch.testing.assert_close(inputs[0][1], sigma.log() / 4)


def test_the_levels_are_the_papers():
    grid = Karras().grid(18)
    assert len(grid) == 19
    assert [grid[0].sigma, grid[-1].sigma] == [pytest.approx(80.0), 0.0]
    assert grid[17].sigma == pytest.approx(0.002)
    assert {level.alpha for level in grid} == {1.0}
    for steps, spacing, words in ((1, "leading", "2 or more"), (9, "trailing", "means nothing here")):
        with pytest.raises(ValueError, match=words):
            Karras().grid(steps, spacing)


def test_heun_and_bdia_on_it_reach_the_flows_end(stage):
    """The probability flow keeps quantiles, so the end of a run from noise of spread 80 is known."""
    noise = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    field, errors = unguided(stage.denoiser, stage.condition("")), []
    grid = stage.schedule.grid(40)
    truth = MEAN + STD * (80 * noise - MEAN) / (80**2 + STD**2) ** 0.5
    for rule in (Heun(), BDIAHeun(1.0)):
        *_, (x, *_) = run(rule, field, (80 * noise,), grid)
        errors.append(float((x - truth).square().mean().sqrt()))
    assert errors[1] < errors[0] < 5e-3


@pytest.mark.filterwarnings("ignore:undoing")
@pytest.mark.parametrize(
    "method", [name for name in METHODS if name.startswith(("bdia", "belm", "edict", "rex", "direct"))]
)
def test_exact_methods_are_exact_here_too(stage, method):
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    inversion = Cascade((stage,)).invert(x, "", plan(method, 9))
    assert float((inversion.picture - x).abs().max()) < 1e-4


def test_a_network_of_ordinary_precision_is_called_in_it():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)
    cascade = Cascade((edm.stage(edm.precondition(lambda x, c_noise: conv(x)), 16),))
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    inversion = cascade.invert(x, "", plan("bdia", 9))
    assert inversion.stages[0].noise.dtype == torch.float64
    assert float((inversion.picture - x).abs().max()) < 1e-4


class Blur(torch.nn.Module):
    """A network that returns clean data, preconditioned as EDM's networks are."""

    def __init__(self):
        super().__init__()
        self.img_resolution = 16
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        s = sigma.reshape(-1, 1, 1, 1)
        spread = (s**2 + 0.25).sqrt()
        return 0.25 / spread**2 * x + s * 0.5 / spread * self.conv(x / spread)


def test_a_module_and_its_torchscript_are_the_same_cascade_and_a_pickle_is_refused(tmp_path):
    torch.manual_seed(0)
    network = Blur()
    traced = torch.jit.script(network)
    traced.save(tmp_path / "net.ts")
    torch.save(network.state_dict(), tmp_path / "net.pkl")
    picture = from_uint8(to_uint8(torch.randn(1, 3, 16, 16) / 3))
    noises = []
    with pytest.raises(ValueError, match=r"net.ts is a TorchScript, which runs code .*--allow-pickle"):
        iterinv.load(tmp_path / "net.ts")
    for what in (network, tmp_path / "net.ts"):
        cascade = iterinv.load(what, allow_pickle=True)
        inversion = cascade.invert(picture, "", plan("bdia", 12))
        assert (to_uint8(inversion.picture) == to_uint8(picture)).all()
        noises.append((cascade.fingerprint, inversion.stages[0].noise))
    assert noises[0][0] == noises[1][0]
    torch.testing.assert_close(noises[0][1], noises[1][1], rtol=0, atol=1e-3)  # relative to a sigma of 80
    with pytest.raises(ValueError, match=r"net.pkl is a pickle, which runs code"):
        iterinv.load(tmp_path / "net.pkl")
    with pytest.raises(ValueError, match="a Linear has no img_resolution"):
        iterinv.load(torch.nn.Linear(1, 1))
    network.label_dim = 10
    with pytest.raises(ValueError, match="takes one of 10 class labels"):
        iterinv.load(network)


class Ideal(torch.nn.Module):
    """The expected clean data of a sample of N(0.3, 0.2^2); ``known`` holds a network's own range and levels."""

    def __init__(self, known: list[float] | None = None, **settings: float):
        super().__init__()
        self.img_resolution = 16
        self.known = [float(each) for each in known or [0.0]]
        for name, value in settings.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        s = sigma.reshape(-1, 1, 1, 1) ** 2
        return (0.04 * x + 0.3 * s) / (0.04 + s)

    @torch.jit.export
    def round_sigma(self, sigma: torch.Tensor) -> torch.Tensor:
        if len(self.known) == 1:
            return sigma
        known = torch.tensor(self.known, dtype=sigma.dtype)
        return known[(sigma.reshape(-1, 1) - known).abs().argmin(1)].reshape(sigma.shape)


def sampled_by_edm(network, noise, steps):
    """Sample by algorithm 1 of the paper without churn, in the arithmetic of its authors' sampler."""
    lowest, highest = max(0.002, network.sigma_min), min(80.0, network.sigma_max)
    place = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    levels = (highest ** (1 / 7) + place * (lowest ** (1 / 7) - highest ** (1 / 7))) ** 7
    levels = torch.cat([network.round_sigma(levels), torch.zeros(1, dtype=torch.float64)])
    x = noise.double() * levels[0]
    for t, s in pairwise(levels):
        slope = (x - network(x, t)) / t
        end = x + (s - t) * slope
        if s > 0:
            end = x + (s - t) * (0.5 * slope + 0.5 * (end - network(end, s)) / s)
        x = end
    return x


@pytest.mark.parametrize(
    ("network", "steps"),
    [
        (Ideal(sigma_min=0.0, sigma_max=float("inf")), 18),
        (Ideal(sigma_min=0.02, sigma_max=100.0), 18),
        (Ideal(sigma_min=0.01, sigma_max=3.0), 7),
        (Ideal([96, 37, 22, 9.5, 4.25, 2, 1, 0.5, 0.125, 0.0625, 0.03125], sigma_min=0.03125, sigma_max=96.0), 7),
        (Ideal([3, 2, 1, 0.25], sigma_min=0.25, sigma_max=3.0), 12),  # more steps than levels: some stand still
    ],
    ids=["edm", "ve", "narrow", "rounded", "repeated"],
)
def test_a_network_is_sampled_in_its_own_range_and_rounding_as_its_authors_sample_it(network, steps, tmp_path):
    torch.jit.script(network).save(tmp_path / "net.ts")
    for what in (network, tmp_path / "net.ts"):
        cascade = iterinv.load(what, allow_pickle=True)
        stage = cascade.stages[0]
        noise = draw_noise(stage.shape, [0], "sample", stage.name, 0)
        truth = sampled_by_edm(network, noise, steps)
        (pictures,) = cascade.sample("", steps)
        torch.testing.assert_close(pictures, truth.clamp(-1, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", ["ddim", "heun", "dpmpp-2m", "bdia"])
def test_samples_are_the_datas(rule):
    x = torch.cat(iterinv.load(Ideal()).sample("", 200, num_images_per_prompt=8, rule=rule))
    assert float(x.mean()) == pytest.approx(0.3, rel=0.02)
    assert float(x.std()) == pytest.approx(0.2, rel=0.04 if rule == "ddim" else 0.02)


def test_the_command_line_samples_a_torchscript_file(tmp_path):
    torch.jit.script(Ideal()).save(tmp_path / "net.ts")
    model = "--model", str(tmp_path / "net.ts"), "--allow-pickle"
    result = CliRunner().invoke(app, ["sample", "noise", "--count", "6", "--out", str(tmp_path), *model])
    assert result.exit_code == 0, result.output
    x = np.stack([np.asarray(Image.open(tmp_path / f"sample-{k}.png")) for k in range(6)]) / 127.5 - 1
    assert x.mean() == pytest.approx(0.3, rel=0.02)
    assert x.std() == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("method", ["bdia", "bdia-fixed", "bdia-heun", "dpmpp-2m", "iterinv-anderson"])
def test_the_noise_of_an_inversion_is_told_in_units_of_the_level(method):
    cascade = iterinv.load(Ideal())
    x = from_uint8(to_uint8(0.3 + 0.2 * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))))
    inversion = cascade.invert(x, "", method, 50)
    assert float(inversion.noise.std()) > 60  # the state itself is at sigma 80
    statistics = inversion_report(cascade, inversion, 0.0, [])["stages"][0]["terminal_noise"]
    assert statistics["std"] == pytest.approx(1, abs=0.1)


def test_a_range_without_levels_is_refused():
    for lowest, highest in ((0.0, 80.0), (3.0, 2.0), (0.1, float("inf"))):
        with pytest.raises(ValueError, match="are no range"):
            Karras(lowest, highest)
    with pytest.raises(ValueError, match="from 80 down to 90 are no range"):
        iterinv.load(Ideal(sigma_min=90.0))


def test_no_level_is_undone_twice_by_a_rule_that_divides_by_steps():
    """A network's rounding makes two levels equal; O-BELM would divide by their distance."""
    cascade = iterinv.load(Ideal([3, 2, 1, 0.25], sigma_min=0.25, sigma_max=3.0))
    x = torch.zeros(1, 3, 16, 16)
    assert float((cascade.invert(x, "", "bdia", 12).picture - x).abs().max()) < 1e-9
    with pytest.raises(ValueError, match="multiplies rounding by inf"):
        cascade.invert(x, "", "belm", 12)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_samples_over_levels_that_are_one(name):
    once, twice = (iterinv.load(Ideal(levels, sigma_min=0.25, sigma_max=3.0)) for levels in ([], [3, 2, 1, 0.25]))
    assert bool(torch.isfinite(twice.sample("", 12, rule=name)[0]).all())
    assert len(set(twice.stages[0].schedule.grid(12))) == 5 < len(set(once.stages[0].schedule.grid(12)))


def test_a_network_that_takes_its_square_alone_refuses_a_rectangle_and_says_what_to_do():
    cascade, picture = iterinv.load(Blur()), to_uint8(torch.randn(1, 3, 16, 32) / 3)
    with pytest.raises(ValueError, match="squares of 16 px alone: pad or crop the pictures to a square"):
        cascade.invert(picture, "", fit="aspect")
    with pytest.raises(ValueError, match="squares of 16 px alone"):
        cascade.sample("", height=16, width=32)
    square = cascade.invert(np.ascontiguousarray(picture[:, :16]), "", plan("bdia", 4), fit="aspect")
    assert square.extent == (16, 16)

"""EDM's models and levels, on a network that is exact for Gaussian data."""

import pytest
import torch

import iterinv
from iterinv.cascade import Cascade
from iterinv.families import edm
from iterinv.guidance import unguided
from iterinv.images import from_uint8, to_uint8
from iterinv.methods import METHODS, plan
from iterinv.schedules import Karras
from iterinv.steps import BDIAHeun, Heun
from iterinv.steps.run import run

MEAN, STD, DATA = 0.2, 0.4, 0.5


def network(x, c_noise):
    """The bare network whose preconditioning is exact for data N(MEAN, STD^2)."""
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
    seen = []
    edm.precondition(lambda x, c: seen.append((x, c)) or x * 0)(x, sigma)
    torch.testing.assert_close(seen[0][0], x / (s**2 + 0.25) ** 0.5)
    torch.testing.assert_close(seen[0][1], sigma.log() / 4)


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
    """The probability flow keeps quantiles: where noise of spread 80 goes is known."""
    noise = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    field, errors = unguided(stage.denoiser, stage.condition("")), []
    grid = stage.schedule.grid(40)
    truth = MEAN + STD * (80 * noise - MEAN) / (80**2 + STD**2) ** 0.5
    for rule in (Heun(), BDIAHeun(1.0)):
        *_, (x, *_) = run(rule, field, (80 * noise,), grid)
        errors.append(float((x - truth).square().mean().sqrt()))
    assert errors[1] < errors[0] < 5e-3


@pytest.mark.filterwarnings("ignore:undoing")
@pytest.mark.parametrize("method", [name for name in METHODS if name.startswith(("bdia", "belm", "edict", "direct"))])
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
    """Clean data by a network's form, preconditioned as EDM's are."""

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
    for what in (network, tmp_path / "net.ts"):
        cascade = iterinv.load(what)
        inversion = cascade.invert(picture, "", plan("bdia", 12))
        assert (to_uint8(inversion.picture) == to_uint8(picture)).all()
        noises.append((cascade.fingerprint, inversion.stages[0].noise))
    assert noises[0][0] == noises[1][0]
    torch.testing.assert_close(noises[0][1], noises[1][1], rtol=0, atol=1e-3)  # of a sigma of 80
    with pytest.raises(ValueError, match=r"net.pkl is no TorchScript .*pickle"):
        iterinv.load(tmp_path / "net.pkl")
    with pytest.raises(ValueError, match="a Linear says no img_resolution"):
        iterinv.load(torch.nn.Linear(1, 1))
    network.label_dim = 10
    with pytest.raises(ValueError, match="wants one of 10 class labels"):
        iterinv.load(network)

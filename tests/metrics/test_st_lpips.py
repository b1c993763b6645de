"""ST-LPIPS agrees with the package that its weights come from; ghost is a projection with known values."""

import sys

import numpy as np
import pytest
from skimage import data

from iterinv.metrics import ghost, st_lpips


def pictures():
    """Return a photograph, and it moved by a pixel, noisy, and inverted in tone."""
    a = data.astronaut()[100:196, 150:262].copy()
    noise = np.random.default_rng(0).integers(-40, 41, a.shape)
    return a, np.roll(a, 1, 1), np.clip(a.astype(int) + noise, 0, 255).astype(np.uint8), 255 - a


@pytest.mark.parametrize(
    ("network", "values"),
    [
        ("alex", (0.0, 0.0039034360, 0.4084097147, 0.3688609302)),
        ("vgg", (0.0, 0.0175788235, 0.5416492820, 0.3947489262)),
    ],
)
def test_the_values_are_those_of_the_package(network, values):
    """The values are those of stlpips-pytorch 0.0.2 itself, run once with a stand-in for torchvision."""
    a, *others = pictures()
    assert [st_lpips(a, b, network=network) for b in (a, *others)] == pytest.approx(values, abs=1e-6)


def test_a_shift_costs_less_than_noise_of_the_same_error():
    a, moved, *_ = pictures()
    error = np.sqrt(((a.astype(float) - moved) ** 2).mean())
    noisy = np.clip(a + np.random.default_rng(1).normal(0, error, a.shape), 0, 255).astype(np.uint8)
    assert st_lpips(a, moved) < st_lpips(a, noisy) / 10


def test_what_cannot_be_compared_is_a_sentence(monkeypatch):
    a, b, *_ = pictures()
    with pytest.raises(ValueError, match="there is no network 'squeeze': the networks are alex, vgg"):
        st_lpips(a, b, network="squeeze")
    with pytest.raises(ValueError, match="pictures are 112x8 px; ST-LPIPS compares 16 px a side or more"):
        st_lpips(a[:8], b[:8])
    module = sys.modules["iterinv.metrics.st_lpips"]  # the name in the package is the function's
    module.load.cache_clear()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'iterinv\[metrics\]'"):
        st_lpips(a, b)
    assert "pip install 'iterinv[metrics]'" in module.missing()


def test_a_ghost_is_measured_by_its_share():
    rng = np.random.default_rng(0)
    truth = np.full((64, 64, 3), 120, np.uint8)
    source = truth.copy()
    source[20:40, 20:40] = rng.integers(0, 240, (20, 20, 3))
    for share in (0.0, 0.25, 1.0):
        mixed = np.round(truth + share * (source.astype(float) - truth)).astype(np.uint8)
        assert ghost(source, truth, mixed) == pytest.approx(share, abs=0.01)
    mask = np.zeros((64, 64), bool)
    mask[:16, :16] = True
    assert ghost(source, truth, source, mask) is None
    tinted = np.full_like(truth, 140)  # another tone is no structure
    assert ghost(source, truth, tinted) == pytest.approx(0, abs=0.01)
    assert ghost(truth, truth, source) is None

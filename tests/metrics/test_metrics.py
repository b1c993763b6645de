"""The metrics agree with second implementations: torchmetrics where it follows the definition, and the definition
itself."""

import numpy as np
import pytest
import torch

from iterinv import metrics


def pair(seed=0, noise=12):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)
    return a, np.clip(a + rng.normal(0, noise, a.shape), 0, 255).astype(np.uint8)


def test_psnr_and_mse_against_torchmetrics():
    from torchmetrics.image import PeakSignalNoiseRatio

    a, b = pair()
    x, y = (torch.from_numpy(p).float() / 255 for p in (a, b))
    assert metrics.psnr(a, b) == pytest.approx(float(PeakSignalNoiseRatio(data_range=1.0)(x, y)), abs=1e-3)
    assert metrics.mse(a, b) == pytest.approx(float((x - y).square().mean()), rel=1e-5)


def test_ssim_is_the_papers_and_not_torchmetrics_border_variant():
    """torchmetrics averages over a reflected border too; without the border the two agree."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = pair()
    x, y = (torch.from_numpy(p).permute(2, 0, 1)[None].float() / 255 for p in (a, b))
    _, full = structural_similarity_index_measure(x, y, data_range=1.0, return_full_image=True)
    inner = full[..., 5:-5, 5:-5].mean()
    assert metrics.ssim(a, b) == pytest.approx(float(inner), abs=1e-4)
    assert metrics.ssim(a[:8], b[:8]) is None


def test_equal_pictures_have_no_psnr():
    a, _ = pair()
    assert metrics.fidelity(a, a.copy()) == {
        "mse": 0.0,
        "psnr": None,
        "ssim": 1.0,
        "max_abs_8bit": 0,
        "exact_pixels": 1.0,
    }


def test_one_value_off_by_one_is_seen():
    a, _ = pair()
    b = a.copy()
    b[3, 4, 1] ^= 1
    figures = metrics.fidelity(a, b)
    assert figures["max_abs_8bit"] == 1
    assert figures["exact_pixels"] == 1 - 1 / (64 * 48)
    assert figures["psnr"] > 80


def test_terminal_noise_of_noise_and_of_what_is_not():
    unit = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    statistics = metrics.terminal_noise(unit)
    assert statistics["mean"] == pytest.approx(0, abs=0.02)
    assert statistics["std"] == pytest.approx(1, abs=0.02)
    assert statistics["kurtosis"] == pytest.approx(3, abs=0.1)
    assert statistics["autocorrelation"] == pytest.approx(0, abs=0.02)
    smooth = torch.nn.functional.avg_pool2d(unit, 5, 1)
    assert metrics.terminal_noise(2 * smooth + 1)["autocorrelation"] > 0.7
    assert metrics.terminal_noise(unit * 0 + 1) == {"mean": 1.0, "std": 0.0, "kurtosis": None, "autocorrelation": None}
    assert metrics.terminal_noise(unit.sign())["kurtosis"] == pytest.approx(1, abs=0.01)


def test_grain_is_the_noise_that_was_added():
    rng, rows = np.random.default_rng(0), np.linspace(60, 180, 64)
    flat = rows[:, None, None] + np.zeros((64, 64, 3))
    for sigma in (2.0, 6.0):
        noisy = (flat + sigma * rng.standard_normal(flat.shape)).round().astype(np.uint8)
        assert metrics.grain(noisy) == pytest.approx(sigma, rel=0.1)
    noisy[20:40, 20:40] = 255
    assert metrics.grain(noisy) == pytest.approx(6.0, rel=0.15)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 11)])
@pytest.mark.parametrize(("a", "b"), [(10, 10), (10, 200), (0, 255), (0, 1)])
@pytest.mark.filterwarnings("error")
def test_constant_pictures_and_single_pixels_have_their_closed_forms(size, a, b):
    x, y = (np.full((*size, 3), value, np.uint8) for value in (a, b))
    figures = metrics.fidelity(x, y)
    assert figures["mse"] == pytest.approx((a - b) ** 2 / 255**2)
    assert figures["psnr"] == (None if a == b else pytest.approx(20 * np.log10(255 / abs(a - b))))
    similar = (2 * a * b + 2.55**2) / (a * a + b * b + 2.55**2)
    assert figures["ssim"] == (None if min(size) < 11 else pytest.approx(similar))
    assert (figures["max_abs_8bit"], figures["exact_pixels"]) == (abs(a - b), float(a == b))


@pytest.mark.parametrize("metric", ["mse", "psnr", "ssim", "max_abs_8bit", "exact_pixels", "fidelity"])
def test_what_has_no_distance_is_a_sentence(metric):
    good = np.zeros((20, 20, 3), np.uint8)
    for wrong, words in (
        (np.zeros((1, 1, 3), np.uint8), "bring them to one shape"),
        (np.zeros((20, 20, 1), np.uint8), r"is not \(h, w, 3\) uint8"),
        (np.zeros((20, 20), np.uint8), r"is not \(h, w, 3\) uint8"),
        (np.zeros((20, 20, 3)), "dtype float64"),
        (np.zeros((0, 20, 3), np.uint8), "with pixels"),
    ):
        with pytest.raises(ValueError, match=words):
            getattr(metrics, metric)(good, wrong)


@pytest.mark.filterwarnings("error")
def test_an_empty_mask_has_no_distance():
    a, b = pair()
    nowhere = np.zeros(a.shape[:2], bool)
    assert metrics.psnr(a, b, nowhere) is None
    assert metrics.ssim(a, b, nowhere) is None


@pytest.mark.filterwarnings("error")
def test_terminal_noise_of_few_values_equal_values_and_none():
    nothing = {"mean": None, "std": None, "kurtosis": None, "autocorrelation": None}
    for bad in (torch.full((1, 3, 4, 4), torch.nan), torch.tensor([[[[1.0, torch.inf]]]]), torch.zeros(0, 3, 4, 4)):
        assert metrics.terminal_noise(bad) == nothing
    for value in (0.1, -3.7, 1e-30):
        statistics = metrics.terminal_noise(torch.full((1, 3, 37, 41), value, dtype=torch.float64))
        assert statistics == {"mean": value, "std": 0.0, "kurtosis": None, "autocorrelation": None}
    assert metrics.terminal_noise(torch.full((1, 1, 1, 1), 2.0))["std"] == 0.0
    for shape in ((1, 1, 1, 4), (1, 1, 4, 1)):
        statistics = metrics.terminal_noise(torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(shape))
        assert statistics["autocorrelation"] == pytest.approx(-0.75)
    assert metrics.terminal_noise(torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1))["autocorrelation"] is None


@pytest.mark.filterwarnings("error")
def test_frechet_of_one_feature_is_the_distance_of_two_normal_distributions():
    a, b = torch.randn(50, 1).double(), 3 * torch.randn(60, 1).double() + 2
    want = float((a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2)
    assert metrics.frechet(a, b) == pytest.approx(want)
    assert metrics.frechet(a, a) == pytest.approx(0, abs=1e-12)
    assert metrics.frechet(torch.ones(5, 1), torch.full((5, 1), 3.0)) == pytest.approx(4)
    for x, y, words in (
        (a, torch.randn(50, 2), "features of 1 and of 2 values"),
        (a, torch.full((5, 1), torch.nan), "not finite"),
        (a, torch.zeros(5, 0), r"n of 2 or more"),
        (a, torch.zeros(1, 1), r"n of 2 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            metrics.frechet(x, y)

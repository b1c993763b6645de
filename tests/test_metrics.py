"""Against second implementations: torchmetrics where it agrees with the definition, and the definition itself."""

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
    """torchmetrics averages over a reflected border too; cut off the border and the two agree."""
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
    told = metrics.fidelity(a, b)
    assert told["max_abs_8bit"] == 1
    assert told["exact_pixels"] == 1 - 1 / (64 * 48)
    assert told["psnr"] > 80


def test_terminal_noise_of_noise_and_of_what_is_not():
    unit = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    told = metrics.terminal_noise(unit)
    assert told["mean"] == pytest.approx(0, abs=0.02)
    assert told["std"] == pytest.approx(1, abs=0.02)
    assert told["kurtosis"] == pytest.approx(3, abs=0.1)
    assert told["autocorrelation"] == pytest.approx(0, abs=0.02)
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

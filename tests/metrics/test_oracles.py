"""MSE, PSNR, SSIM and its variants agree with scikit-image and torchmetrics; the Fréchet distance with scipy."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage import data
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from iterinv import metrics
from iterinv.metrics.ms_ssim import ms_ssim

KINDS = ("noise", "photograph", "grey", "constant", "gradient")


def drawn(seed):
    """Draw a pair of pictures of odd or even sides: noise, photographs, grey and constant ones."""
    rng, kind = np.random.default_rng(seed), KINDS[seed % len(KINDS)]
    height, width = rng.integers(11, 90, 2)
    if kind == "photograph":
        top, left = rng.integers(0, 400, 2)
        a = data.astronaut()[top : top + height, left : left + width].copy()
    elif kind == "gradient":
        a = np.linspace(0, 255, width).astype(np.uint8)[None, :, None].repeat(height, 0)
    elif kind == "constant":
        a = np.full((height, width, 3), rng.integers(0, 256), np.uint8)
    else:
        a = rng.integers(0, 256, (height, width, 1 if kind == "grey" else 3), dtype=np.uint8)
    a = np.broadcast_to(a, (*a.shape[:2], 3)).copy()
    if seed % 3 == 0:
        return a, np.full_like(a, rng.integers(0, 256))
    noise = rng.normal(0, rng.choice([0.4, 5, 60]), (*a.shape[:2], 1 if kind == "grey" else 3))
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


def tensors(*pictures):
    return [torch.from_numpy(each).permute(2, 0, 1)[None].double() / 255 for each in pictures]


@pytest.mark.parametrize("seed", range(50))
def test_mse_psnr_and_ssim_are_those_of_scikit_image(seed):
    a, b = drawn(seed)
    x, y = a / 255, b / 255
    assert metrics.mse(a, b) == pytest.approx(mean_squared_error(x, y), abs=1e-12)
    if (a == b).all():
        assert metrics.psnr(a, b) is None
    else:
        assert metrics.psnr(a, b) == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1), abs=1e-6)
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    want = structural_similarity(x, y, channel_axis=-1, data_range=1, **how)
    assert metrics.ssim(a, b) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("seed", range(50))
def test_ssim_with_a_border_is_that_of_torchmetrics(seed):
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = drawn(seed)
    want = float(structural_similarity_index_measure(*tensors(a, b), data_range=1.0))
    assert metrics.ssim_border(a, b) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("size", [(176, 176), (177, 203), (201, 181)])
@pytest.mark.parametrize("noise", [3, 60])
def test_ms_ssim_with_a_border_is_that_of_torchmetrics(size, noise):
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    rng = np.random.default_rng(noise)
    a = data.astronaut()[100 : 100 + size[0], 150 : 150 + size[1]].copy()
    b = np.clip(a + rng.normal(0, noise, a.shape), 0, 255).astype(np.uint8)
    for one, other in ((a, b), (a, 255 - a)):
        want = float(multiscale_structural_similarity_index_measure(*tensors(one, other), data_range=1.0))
        assert ms_ssim(one, other, border=True) == pytest.approx(want, abs=1e-6)


def test_ms_ssim_leaves_the_border_out():
    """A picture whose border alone is changed at the coarsest scale differs by the border; whole windows do not see
    mirrored pixels."""
    a = data.astronaut()[100:292, 150:342].copy()
    b = a.copy()
    b[:8] = 255 - b[:8]
    assert metrics.ms_ssim(a, a) == pytest.approx(1)
    assert ms_ssim(a, b, border=True) < metrics.ms_ssim(a, b) < 1
    assert metrics.ms_ssim(a[:175], b[:175]) is None


@pytest.mark.parametrize(("n", "m", "d"), [(40, 50, 3), (200, 150, 16), (10, 12, 16)])
def test_the_frechet_distance_is_that_of_scipys_root(n, m, d):
    """With fewer pictures than features the covariances are singular, and scipy's root is less exact."""
    rng = np.random.default_rng(n)
    a, b = rng.normal(0, 1, (n, d)), rng.normal(0.5, 2, (m, d)) @ rng.normal(0, 1, (d, d))
    cov_a, cov_b = (np.cov(x, rowvar=False) for x in (a, b))
    root = np.real(sqrtm(cov_a @ cov_b))
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    value = metrics.frechet(torch.from_numpy(a), torch.from_numpy(b))
    assert value == pytest.approx(want, rel=1e-9 if min(n, m) > d else 1e-4)

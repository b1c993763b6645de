"""FLIP has the values of its authors' package, flip-evaluator 1.7, measured once, and the properties of its
definition."""

import numpy as np
import pytest
from skimage import data

from iterinv.metrics import flip
from iterinv.metrics.flip import TO_XYZ, WHITE, flip_map


def pictures():
    """Return a photograph, and it noisy, inverted in tone, and moved by a pixel; and two of noise."""
    rng = np.random.default_rng(0)
    a = data.astronaut()[100:196, 150:262].copy()
    noisy = np.clip(a.astype(int) + rng.integers(-40, 41, a.shape), 0, 255).astype(np.uint8)
    one, other = (rng.integers(0, 256, (41, 33, 3), dtype=np.uint8) for _ in range(2))
    return {"noise": (a, noisy), "inverted": (a, 255 - a), "moved": (a, np.roll(a, 1, 1)), "random": (one, other)}


@pytest.mark.parametrize(
    ("name", "value"),
    [("noise", 0.1820240170), ("inverted", 0.9064697027), ("moved", 0.1390004456), ("random", 0.4562894999)],
)
def test_the_values_are_those_of_the_package(name, value):
    assert flip(*pictures()[name]) == pytest.approx(value, abs=5e-6)


def test_it_is_0_for_equal_pictures_symmetric_and_at_most_1():
    for a, b in pictures().values():
        there, back = flip_map(a, b), flip_map(b, a)
        assert flip(a, a) == 0
        assert there == pytest.approx(back, abs=1e-12)
        assert 0 <= there.min() <= there.max() <= 1
    green, blue = (np.zeros((8, 8, 3), np.uint8) + 255 * np.eye(3, dtype=np.uint8)[k] for k in (1, 2))
    assert flip(green, blue) == pytest.approx(1)
    black = np.zeros((8, 8, 3), np.uint8)
    assert flip(black, black + 255) == pytest.approx(0.95 + 0.05 * (100**0.7 - KNEE) / (MOST - KNEE))


def hyab_of_green_and_blue():
    """Compute the largest difference by scikit-image's L*a*b*, with Hunt's adjustment."""
    from skimage.color import xyz2lab

    primaries = np.eye(3)[[1, 2]][None] @ TO_XYZ.T / WHITE
    white = np.array([0.95047, 1.0, 1.08883])  # scikit-image's D65
    lab = xyz2lab(primaries * white)[0]
    lab[:, 1:] *= 0.01 * lab[:, :1]
    green, blue = lab
    return abs(green[0] - blue[0]) + np.hypot(*(green - blue)[1:])


MOST = hyab_of_green_and_blue() ** 0.7
KNEE = 0.4 * MOST


def test_a_nearer_viewer_sees_more_of_fine_noise():
    a, b = pictures()["noise"]
    assert flip_map(a, b, 20).mean() > flip_map(a, b, 67).mean() > flip_map(a, b, 200).mean()

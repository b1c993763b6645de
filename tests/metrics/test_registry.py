"""Every metric that can run here keeps the promises of the registry."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iterinv.embedded.scenes import Scene, render
from iterinv.images import to_uint8
from iterinv.metrics import metrics
from iterinv.metrics.registry import METRICS, USUAL, Metric

PAIRS = {name: metric for name, metric in metrics().items() if metric.function and metric.needs(None) is None}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name == "st-lpips-vgg" else name for name in PAIRS]
SIDE = 192


def scene(seed):
    return to_uint8(render(Scene.random(seed), SIDE)[None])


def inside():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[8:, :184] = True
    return mask


def test_the_registry_is_complete():
    assert set(USUAL) <= set(METRICS)
    assert len(PAIRS) >= 15
    for name, metric in METRICS.items():
        assert (metric.function is None) != (metric.features is None), name
        assert metric.range[0] < metric.range[1], name
        assert metric.about, name


@pytest.mark.parametrize("name", NAMES)
def test_equal_pictures_have_the_best_value_and_others_a_worse_one_in_the_range(name):
    metric, (a, b) = PAIRS[name], (scene(1), scene(2))
    least, most = metric.range
    best = least if metric.direction == "lower" else most
    if math.isinf(best):
        assert metric(a, a.copy()) is None  # equal pictures have no PSNR
    else:
        assert metric(a, a.copy()) == pytest.approx(best, abs=1e-6)
        assert abs(metric(a, b) - best) > 1e-4
    assert least <= metric(a, b) <= most


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_of_everything_changes_nothing_and_of_nothing_has_no_value(name):
    metric, (a, b) = PAIRS[name], (scene(1), scene(2))
    everywhere = np.ones((SIDE, SIDE), bool)
    assert metric(a, b, everywhere) == pytest.approx(metric(a, b), rel=1e-5)
    assert metric(a, b, ~everywhere) is None


@pytest.mark.parametrize("name", NAMES)
def test_what_changes_outside_a_mask_does_not_count_inside_it(name):
    metric, (a, b) = PAIRS[name], (scene(1), scene(2))
    changed = np.where(inside()[..., None], a, b)
    assert metric(a, changed, inside()) == metric(a, a, inside())
    assert metric(a, b, inside()) != metric(a, a, inside())


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_that_is_none_is_a_sentence(name):
    a = scene(1)
    for wrong in (np.ones((SIDE, SIDE + 1), bool), np.ones((SIDE, SIDE)), np.ones((SIDE, SIDE, 1), bool)):
        with pytest.raises(ValueError, match=r"a mask of shape .* is not .* bool"):
            PAIRS[name](a, a, wrong)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.sampled_from(["mse", "psnr", "ssim", "flip"])
)
def test_plain_metrics_are_symmetric_and_never_nan(seed, height, width, name):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, rng.integers(1, 257), (height, width, 3), dtype=np.uint8) for _ in range(2))
    mask = rng.random((height, width)) < 0.5
    for each in (None, mask):
        there = METRICS[name](a, b, each)
        assert there is None or math.isfinite(there)
        if name != "flip" or each is None:  # in a mask, FLIP looks at the reference outside it
            back = METRICS[name](b, a, each)
            assert there == (None if back is None else pytest.approx(back, abs=1e-9))


def test_mse_of_a_whole_is_that_of_its_two_parts():
    a, b, mask = scene(1), scene(2), inside()
    parts = METRICS["mse"](a, b, mask) * mask.mean() + METRICS["mse"](a, b, ~mask) * (~mask).mean()
    assert METRICS["mse"](a, b) == pytest.approx(parts)
    assert METRICS["mse-pie"](a, b, mask) == pytest.approx(METRICS["mse"](a, b, mask) * mask.mean())
    darker = METRICS["psnr"](a, b, mask) - 10 * np.log10(mask.mean())
    assert METRICS["psnr-pie"](a, b, mask) == pytest.approx(darker)


def test_a_metric_of_sets_takes_features():
    a = scene(1)
    assert METRICS["frechet-reader"].look(a).shape == (256,)
    with pytest.raises(TypeError, match="compares sets of pictures"):
        METRICS["frechet-reader"](a, a)
    with pytest.raises(TypeError, match="compares pairs of pictures"):
        Metric("", "lower", (0, 1), function=min).look(a)
    with pytest.raises(ValueError, match="a picture of 150x192 px is none that the reader takes: squares of 64 px"):
        METRICS["reader"](a[:, :150], a[:, :150])

"""The inspector finds broken places in pictures it never saw, and its training data are labelled rightly."""

import numpy as np
import pytest
import torch

from iterinv.embedded.inspector import CELLS, SIZE, WEIGHTS, Inspector, clean, inspect
from iterinv.embedded.scenes import Scene, render
from iterinv.embedded.train.inspector import DIFFERS, FAULTS, bent, broken, changed, drawn_as_by_networks, smooth_noise
from iterinv.images import from_uint8, to_uint8

SEEDS = 6_600_000 + np.arange(12)


@pytest.fixture(scope="module")
def pairs():
    """Return renders of scenes that training never draws, each before and after a change."""
    scenes = [Scene.random(int(seed)) for seed in SEEDS]
    return [[render(each, SIZE) for each in (scene, changed(scene, k))] for k, scene in enumerate(scenes)]


def large(cells):
    """Cells (32, 32) as pixels (256, 256)."""
    return cells.repeat_interleave(SIZE // CELLS, 0).repeat_interleave(SIZE // CELLS, 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_cells_are_where_the_picture_is_neither_of_the_two(pairs, fault):
    rng, marked = np.random.default_rng(0), 0
    for a, b in pairs:
        x, cells = broken(a, b, fault, rng)
        assert x.shape == a.shape
        neither = torch.minimum((x - a).abs().mean(0), (x - b).abs().mean(0)) > DIFFERS
        if fault != "mixed":  # there a seam is broken, on both of whose sides the picture is one of the two
            assert not bool((large(cells) & ~neighbours(neither)).any())
        marked += int(cells.sum())
    assert marked > 20


def neighbours(pixels):
    """Pixels that are set or lie within a cell of one that is."""
    return torch.nn.functional.max_pool2d(pixels.float()[None], 4 * SIZE // CELLS + 1, 1, 2 * SIZE // CELLS)[0] > 0


def test_two_equal_pictures_have_no_seam_and_no_ghost(pairs):
    rng = np.random.default_rng(0)
    for a, _ in pairs[:4]:
        for fault in ("mixed", "ghost"):
            x, cells = broken(a, a.clone(), fault, rng)
            assert not bool(cells.any())
            assert torch.allclose(x, a, atol=1e-5)


def test_a_changed_scene_differs_in_one_thing():
    for k in range(40):
        scene = Scene.random(k, k % 3)
        other = changed(scene, k)
        assert other == changed(scene, k)
        same = [getattr(scene, name) == getattr(other, name) for name in ("things", "floor", "wall")]
        assert same.count(False) <= 1
        assert len(scene.things) - len(other.things) in (0, 1)


def test_a_networks_good_picture_is_near_the_render(pairs):
    x = torch.stack([a for a, _ in pairs[:4]])
    y = drawn_as_by_networks(x, np.random.default_rng(0))
    assert y.abs().max() <= 1
    assert 0 < float((y - x).square().mean()) < 0.02
    assert smooth_noise(32, np.random.default_rng(0)).std() == pytest.approx(0.8, abs=0.3)


def test_bending_moves_pixels_by_about_its_amount():
    ramp = torch.linspace(-1, 1, 64).expand(8, 3, 64, 64)
    shift = (bent(ramp, 0.5, np.random.default_rng(0), 4) - ramp)[..., 8:-8] * 63 / 2
    assert float(shift.std()) == pytest.approx(0.5, rel=0.35)
    assert float(shift.mean()) == pytest.approx(0, abs=0.05)
    assert torch.allclose(bent(ramp, 0.0, np.random.default_rng(0), 4), ramp, atol=1e-5)


def test_it_takes_its_own_size_alone():
    assert Inspector()(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, CELLS, CELLS)
    for shape in ((1, 3, 64, 64), (3, SIZE, SIZE), (1, 1, SIZE, SIZE)):
        with pytest.raises(ValueError, match=r"the inspector takes \(batch, 3, 256, 256\)"):
            inspect(torch.zeros(shape))


def test_renders_are_clean_and_smears_are_not(pairs):
    """The shipped network calls no more than one of twelve renders broken; of wide smears it finds half and more."""
    assert sum(clean(from_uint8(to_uint8(a[None])))[0] for a, _ in pairs) >= 11
    assert WEIGHTS.stat().st_size < 3e6
    rng, right, of = np.random.default_rng(1), 0, 0
    for a, b in pairs:
        x, cells = broken(a, b, "blurred", rng)
        if cells.sum() >= 100:
            of, right = of + 1, right + (not clean(x[None])[0])
    assert of >= 3
    assert right >= 0.5 * of

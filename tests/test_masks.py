"""Masks that a user gives: files, boxes and polygons, grown, feathered and inverted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from iterinv.images import Canvas
from iterinv.masks import GivenMask, feathered, grown, resized, to_mask


def test_a_box_is_what_it_says():
    mask, notes = GivenMask(box=(3, 1, 4, 2)).drawn(8, 10)
    expected = np.zeros((8, 10))
    expected[1:3, 3:7] = 1
    assert (mask == expected).all()
    assert notes == []


def test_parts_are_united_and_the_union_is_inverted():
    union, _ = GivenMask(box=(0, 0, 4, 4), polygon=((6, 6), (9, 6), (9, 9), (6, 9))).drawn(10, 10)
    assert union.sum() == 32
    inverted, _ = GivenMask(box=(0, 0, 4, 4), polygon=((6, 6), (9, 6), (9, 9), (6, 9)), invert=True).drawn(10, 10)
    assert (union + inverted == 1).all()


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("grey", Image.fromarray(np.uint8([[0, 255, 51]] * 3).repeat(8, 0).repeat(8, 1))),
        ("16 bits", Image.fromarray(np.uint16([[0, 65535, 13107]] * 3).repeat(8, 0).repeat(8, 1))),
        (
            "alpha",
            Image.fromarray(np.uint8([[[255, 255, 255, a] for a in (0, 255, 51)]] * 3).repeat(8, 0).repeat(8, 1)),
        ),
        ("palette", Image.fromarray(np.uint8([[0, 255, 51]] * 3).repeat(8, 0).repeat(8, 1)).convert("P")),
    ],
)
def test_a_file_is_its_brightness_where_it_is_opaque(tmp_path, name, picture):
    picture.save(tmp_path / "mask.png")
    mask, _ = GivenMask(file=tmp_path / "mask.png").drawn(24, 24)
    np.testing.assert_allclose(mask[0, ::8], [0, 1, 0.2], atol=1e-6)


def test_a_mask_of_another_size_is_resized_and_noted(tmp_path):
    Image.fromarray(np.uint8([[0, 255], [0, 0]]).repeat(20, 0).repeat(20, 1)).save(tmp_path / "mask.png")
    mask, notes = GivenMask(file=tmp_path / "mask.png").drawn(10, 20)
    assert (mask == np.float32([[0, 1], [0, 0]]).repeat(5, 0).repeat(10, 1)).all()
    assert notes == ["the mask of 40x40 px is resized to the picture's 20x10"]
    assert GivenMask(box=(0, 0, 20, 10)).drawn(10, 20)[1] == ["the mask covers all of the picture"]


masks = st.builds(
    lambda seed: (np.random.default_rng(seed).random((12, 15)) < 0.3).astype(np.float32), st.integers(0, 1000)
)


@given(masks, st.integers(1, 4))
def test_growing_and_shrinking_are_each_others_dual(mask, pixels):
    large = grown(mask, pixels)
    assert (large >= mask).all()
    np.testing.assert_array_equal(grown(mask, -pixels), 1 - grown(1 - mask, pixels))
    if mask.any():
        y, x = np.argwhere(mask)[0]
        rows, columns = np.ogrid[:12, :15]
        assert (large[(rows - y) ** 2 + (columns - x) ** 2 <= pixels**2] == 1).all()


@given(masks, st.integers(1, 4))
def test_a_feathered_seam_lies_inside_the_mask(mask, pixels):
    soft = feathered(mask, pixels)
    assert (soft <= mask).all()
    assert ((soft > 0) == (mask > 0)).all()
    assert (feathered(np.ones((9, 9), np.float32), pixels) == 1).all()  # the edge of the picture is no seam


def test_a_feathered_edge_rises_evenly():
    mask = np.zeros((1, 12), np.float32)
    mask[:, 4:] = 1
    np.testing.assert_allclose(feathered(mask, 3)[0, 4:9], [0.25, 0.5, 0.75, 1, 1])


def test_python_takes_files_images_arrays_and_tensors(tmp_path):
    values = np.zeros((16, 16), np.uint8)
    values[:4] = 255
    Image.fromarray(values).save(tmp_path / "a.png")
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(values), values, values > 0]
    forms += [torch.from_numpy(values), torch.from_numpy(values / 255)[None, None]]
    for form in forms:
        assert (to_mask(form) == (values > 0)).all()
    with pytest.raises(TypeError, match="the mask is a int"):
        to_mask(5)
    with pytest.raises(ValueError, match=r"the mask is \(2, 16, 16\)"):
        to_mask(np.zeros((2, 16, 16)))
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        to_mask(np.full((4, 4), 2.0))


def test_a_mask_lies_over_the_square_as_its_picture_does():
    canvas = Canvas(np.zeros((8, 16, 3), np.uint8), (16, 16), -4, 0)
    mask = np.zeros((16, 32), np.float32)
    mask[4:8, 8:16] = 1
    square = canvas.cover(mask)
    assert square.shape == (1, 1, 16, 16)
    assert (canvas.place_mask(square) == 255 * resized(mask, 8, 16)).all()

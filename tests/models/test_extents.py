"""The rectangles that a cascade can work at, and its stages there."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import iterinv
import published
from iterinv import families
from iterinv.models.extents import LONGEST, at_extent, rectangle, unit_of
from iterinv.models.memory import Placement


@given(st.floats(1, LONGEST), st.integers(4, 64), st.sampled_from([1, 2, 8, 32, 64]), st.booleans())
def test_a_rectangle_has_whole_sides_the_squares_area_and_the_pictures_ratio(ratio, count, unit, upright):
    """From four units up the area is 0.75 to 1.5 of the square's, and no side is padded by more than half a unit."""
    short, side = 1000, count * unit
    long = min(round(short * ratio), LONGEST * short)
    height, width = rectangle(*((long, short) if upright else (short, long)), side, unit)
    assert height % unit == 0
    assert width % unit == 0
    assert 0.75 <= height * width / side**2 <= 1.5
    assert (height >= width) if upright else (width >= height)
    low, high = sorted((height, width))
    scale = min(low / short, high / long)
    assert low - short * scale <= unit / 2 + 1e-9
    assert high - long * scale <= unit / 2 + 1e-9


@pytest.mark.parametrize(
    ("model", "side"), [("sdxl", 1024), ("sd15", 512), ("sd21", 768), ("deepfloyd", 1024), ("embedded", 256)]
)
def test_the_rectangles_in_the_docs_are_those(model, side):
    page = (Path(__file__).parents[2] / "docs" / "own-size.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{model}` \| (\d+) \| (.*) \|$", page, re.MULTILINE)
    shown = [
        f"{w} \N{MULTIPLICATION SIGN} {h}"
        for h, w in (rectangle(b, a, side, int(row[0])) for a, b in ((4, 3), (3, 2), (16, 9), (2, 1)))
    ]
    assert row[1].split(" | ") == shown


def test_a_rectangle_lies_or_stands_as_the_picture_does_and_a_square_is_the_cascades():
    assert rectangle(9, 16, 1024, 32) == rectangle(16, 9, 1024, 32)[::-1] == (768, 1376)
    assert rectangle(5, 5, 100, 64) == (100, 100)


@pytest.mark.parametrize(("height", "width"), [(100, 2000), (2000, 100)])
def test_a_picture_of_20_to_1_is_refused(height, width):
    with pytest.raises(ValueError, match=f"{width}x{height} px is longer than 4 times its short side: cut it shorter"):
        rectangle(height, width, 512, 64)


def test_the_unit_is_whole_at_every_stage(tiny):
    """The tiny networks halve their states once, so stage I of 16 px takes multiples of 2, which are 8 at 64 px."""
    assert [stage.unit for stage in tiny.stages] == [2, 2, 2]
    assert unit_of(tiny.stages) == 8
    assert unit_of(iterinv.load().stages) == 32
    assert unit_of([families.stage(published.sdxl())]) == 32
    assert unit_of([families.stage(published.sd())]) == 64
    assert unit_of((tiny.stages[0], families.stage(published.x4(), 1, tiny.stages[0]))) == 32
    a, b = tiny.stages[0], replace(tiny.stages[1], size=24)  # 16 to 24: 3 px for 2
    assert unit_of((a, b)) == 6
    assert [stage.extent for stage in at_extent((a, b), (18, 24))] == [(12, 16), (18, 24)]


@pytest.mark.parametrize(("height", "width"), [(60, 64), (64, 0), (64, -8), (1, 1)])
def test_sides_that_are_not_whole_are_refused(tiny, height, width):
    with pytest.raises(ValueError, match=f"are {height} and {width} px; this cascade takes multiples of 8"):
        tiny.at(height, width)
    with pytest.raises(TypeError, match=r"height is 64\.0, a float"):
        tiny.at(64.0, 64)


def test_at_its_own_size_a_cascade_is_itself(tiny):
    square = tiny.at(48, 96).at(64, 64)
    assert square.fingerprint == tiny.fingerprint
    assert square.extent == (64, 64)
    assert [stage.rectangle for stage in square.stages] == [None] * 3
    assert [stage.shape for stage in tiny.at(48, 96).stages] == [(3, 12, 24), (3, 24, 48), (3, 48, 96)]


def test_stages_that_share_their_memory_and_those_that_moved_are_at_the_same_rectangle(tiny):
    assert tiny.at(48, 96).to("cpu").extent == (48, 96)
    stage = Placement("cpu", "staged").shared(families.stage(published.sdxl()))
    (at,) = at_extent([stage], (64, 96))
    assert at.condition("a")["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]]
    assert at.shape == (4, 8, 12)

"""Pairs of files, and the values, means and reports of what is measured."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from iterinv.embedded.scenes import Scene, render
from iterinv.evaluate.measure import choose
from iterinv.evaluate.pairs import pairs
from iterinv.images import read, to_uint8
from iterinv.metrics import METRICS, Metric, frechet, metrics
from iterinv.workbench import MeasureRequest, Note, Progress, Workbench

SIDE = 64


def save(path, seed, side=SIDE):
    """Write the picture of a scene."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_uint8(render(Scene.random(seed), side)[None])).save(path, quality=95)
    return path


@pytest.fixture
def folders(tmp_path):
    """Write folders with three partners each, one of another format, one equal, and some without a partner."""
    a, b = tmp_path / "a", tmp_path / "b"
    for name, there, here in (("x.png", 1, 2), ("deep/y.png", 3, 3), ("deep/z.png", 4, 5)):
        save(a / name, there)
        save(b / name.replace("z.png", "z.bmp"), here)
    save(a / "alone.png", 6)
    save(b / "deep" / "other.png", 6)
    (b / "deep" / "z.txt").write_text("no picture")
    return a, b


def measured(*request, **how):
    """Run a request; return the measurement and the events."""
    events = []
    return Workbench(events.append).measure(MeasureRequest(*request, **how)), events


def test_partners_have_the_same_path_with_or_without_their_ending(folders):
    a, b = folders
    matched, notes = pairs(a, b)
    assert [(each.name, each.picture) for each in matched] == [
        ("deep/y.png", b / "deep/y.png"),
        ("deep/z.png", b / "deep/z.bmp"),
        ("x.png", b / "x.png"),
    ]
    assert notes == [f"1 in {a} without a partner: alone.png", f"1 in {b} without a partner: deep/other.png"]
    save(b / "x.jpg", 1)  # the exact name comes first
    assert pairs(a, b)[0][2].picture == b / "x.png"
    save(b / "deep" / "z.jpg", 1)  # two files that could be meant are none
    assert [each.name for each in pairs(a, b)[0]] == ["deep/y.png", "x.png"]


def test_every_value_is_that_of_the_function(folders):
    a, b = folders
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:40, 8:40] = 200
    Image.fromarray(mask).save(a.parent / "mask.png")
    names = "mse", "psnr", "ssim", "flip", "exact-pixels"
    result, _ = measured(a, b, names, a.parent / "mask.png")
    assert result.regions == ("whole", "inside", "outside")
    row = result.rows[1]
    one, other = (read(each)[0] for each in (a / "deep/z.png", b / "deep/z.bmp"))
    inside = mask > 0
    for name in names:
        for region, where in (("whole", None), ("inside", inside), ("outside", ~inside)):
            assert row["values"][region][name] == metrics()[name](one, other, where)
    assert row["pixels"] == {"whole": 4096, "inside": 1024, "outside": 3072}


def test_a_mean_is_over_the_pictures_that_have_a_value(folders):
    a, b = folders
    result, _ = measured(a, b, ("psnr", "mse"))
    values = [row["values"]["whole"]["psnr"] for row in result.rows]
    assert values[0] is None  # y.png is equal to its partner
    assert result.mean("psnr", "whole") == (pytest.approx((values[1] + values[2]) / 2), 2)
    assert result.mean("mse", "whole")[1] == 3
    assert result.worst("psnr") == result.worst("mse") != "deep/y.png"


def test_a_report_is_plain_json_and_csv_has_every_value(folders):
    a, b = folders
    result, events = measured(a, b, ("psnr", "st-lpips", "frechet-reader"))
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    assert report["n"] == 3
    assert report["metrics"]["psnr"] == {
        "about": "peak signal-to-noise ratio, dB",
        "better": "higher",
        "range": [0.0, None],
        "unit": "dB",
    }
    assert report["means"]["whole"]["psnr"]["n"] == 2
    assert report["notes"] == [event.text for event in events if isinstance(event, Note)]
    lines = result.csv().splitlines()
    assert lines[0] == "picture,region,pixels,psnr,st-lpips"
    assert lines[1] == "deep/y.png,whole,4096,,0.0"
    assert [float(cell) for cell in lines[3].split(",")[3:]] == list(result.rows[2]["values"]["whole"].values())
    steps = [(event.done, event.total) for event in events if isinstance(event, Progress)]
    assert steps == [(k, 9) for k in range(1, 10)]


def test_a_metric_of_sets_is_the_frechet_distance_of_all_features(folders):
    import torch

    a, b = folders
    result, events = measured(a, b, ("frechet-reader",))
    sides = [
        torch.stack([metrics()["frechet-reader"].look(read(getattr(pair, side))[0]) for pair in pairs(a, b)[0]])
        for side in ("reference", "picture")
    ]
    assert result.sets == {"frechet-reader": pytest.approx(frechet(*sides))}
    assert result.report()["means"] == {"whole": {}}
    assert any("is of 3 pictures a side and 256 features" in event.text for event in events if isinstance(event, Note))
    with pytest.raises(ValueError, match="frechet-reader compares folders of two pictures or more: give two folders"):
        measured(a / "x.png", b / "x.png", ("frechet-reader",))
    for name in ("deep/y.png", "x.png"):
        Image.open(a / name).crop((0, 0, 64, 40)).save(a / name)
        Image.open(b / name).crop((0, 0, 64, 40)).save(b / name)
    with pytest.raises(ValueError, match="frechet-reader compares folders of two pictures or more, and it can take 1"):
        measured(a, b, ("frechet-reader",))


def test_masks_of_a_folder_are_partners_and_a_full_one_has_no_outside(folders):
    a, b = folders
    masks = a.parent / "masks"
    for k, pair in enumerate(pairs(a, b)[0]):
        (masks / pair.name).parent.mkdir(parents=True, exist_ok=True)
        mask = np.full((SIDE, SIDE), 255, np.uint8)
        mask[: 20 * k] = 0
        Image.fromarray(mask).save(masks / pair.name)
    result, events = measured(a, b, ("mse",), masks)
    assert [row["pixels"]["outside"] for row in result.rows] == [0, 20 * SIDE, 40 * SIDE]
    assert result.rows[0]["values"]["outside"]["mse"] is None
    assert result.mean("mse", "outside")[1] == 2
    assert any("so nothing is outside" in event.text for event in events if isinstance(event, Note))
    (masks / "x.png").unlink()
    with pytest.raises(ValueError, match=r"masks holds no mask for x.png: add it under the same path"):
        measured(a, b, ("mse",), masks)


def test_a_metric_that_cannot_take_a_picture_has_no_value_and_says_why(tmp_path):
    a, b = save(tmp_path / "a.png", 1), save(tmp_path / "b.png", 2)
    for path in (a, b):
        Image.open(path).crop((0, 0, 64, 40)).save(path)
    result, events = measured(a, b, ("reader", "mse"))
    assert result.rows[0]["values"]["whole"]["reader"] is None
    assert result.rows[0]["values"]["whole"]["mse"] > 0
    assert any("reader has no value: a picture of 64x40 px is none" in event.text for event in events[:1])


def test_pictures_are_resized_on_request_and_it_is_said(tmp_path):
    a, b = save(tmp_path / "a.png", 1), save(tmp_path / "b.png", 1, side=128)
    with pytest.raises(ValueError, match=r"a.png is 64x64 px and .*b.png is 128x128: files of one size are compared"):
        measured(a, b, ("psnr",))
    result, events = measured(a, b, ("psnr",), resize=True)
    assert result.rows[0]["values"]["whole"]["psnr"] > 25
    assert "b.png: resized from 128x128 to the reference's 64x64 px (Lanczos)" in [
        event.text for event in events if isinstance(event, Note)
    ]


def test_the_usual_metrics_are_those_that_can_run_here(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    chosen, left_out = choose(())
    assert list(chosen) == ["exact-pixels", "mse", "psnr", "ssim", "flip", "st-lpips"]
    assert list(left_out) == ["lpips-alex"]
    assert list(choose(("ssim", "mse", "ssim"))[0]) == ["ssim", "mse"]
    assert all(math.isfinite(metric.range[0]) for metric in chosen.values())


def test_prompts_are_given_or_lie_beside_the_pictures(tmp_path, monkeypatch):
    """Two metrics of a user's own count the letters of the prompts that they read."""
    a, b = save(tmp_path / "a.png", 1), save(tmp_path / "b.png", 2)

    def letters(reference, picture, mask, prompts):
        return len(prompts[0]) + 100 * len(prompts[1])

    for name, count in (("second", 1), ("both", 2)):
        monkeypatch.setitem(METRICS, name, Metric("", "higher", (0, math.inf), function=letters, prompts=count))
    with pytest.raises(ValueError, match=r"second compares .*b.png with words: give --to, or write them to .*b.txt"):
        measured(a, b, ("second",))
    (tmp_path / "b.txt").write_text(" a cube\n")
    assert measured(a, b, ("second",))[0].mean("second", "whole") == (600, 1)
    with pytest.raises(ValueError, match=r"both compares .*a.png with words: give --prompt"):
        measured(a, b, ("both",))
    assert measured(a, b, ("both",), prompts=("a sphere", None))[0].mean("both", "whole") == (608, 1)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"b.txt is not text in UTF-8: write the description again"):
        measured(a, b, ("second",))

"""Samples are scored by hand-made readings, interrupted folders are resumed, and distances have known values."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from iterinv.__main__ import command_line
from iterinv.embedded.evaluate import alignment as samples
from iterinv.embedded.reader import Reader, SceneAttributes
from iterinv.embedded.scenes import Scene, render
from iterinv.embedded.seeds import CAPTIONS, TRUE_PICTURES
from iterinv.embedded.train import data
from iterinv.images import to_uint8
from iterinv.steps import BDIA, DDIM


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    torch.manual_seed(0)
    network = Reader().eval().requires_grad_(False)
    monkeypatch.setattr("iterinv.embedded.reader.load", lambda: network)


def test_shares_are_of_what_is_asked(monkeypatch):
    scenes = [Scene.random(k, things=1 + k % 2) for k in range(40)]
    truths = [SceneAttributes.of(scene) for scene in scenes]
    pictures = np.zeros((40, 8, 8, 3), np.uint8)
    readings = iter(truths)
    monkeypatch.setattr(samples, "read", lambda x: [next(readings) for _ in x])
    assert samples.alignment(pictures, scenes) == dict.fromkeys((*samples.CAPTION_ATTRIBUTES, "all"), 1.0)

    one_less = [each._replace(things=each.things[:1]) for each in truths]  # the second of two is not seen
    readings = iter(one_less)
    shares = samples.alignment(pictures, scenes)
    assert (shares["count"], shares["all"], shares["floor"]) == (0.5, 0.5, 1.0)
    assert shares["color"] == pytest.approx(40 / 60)

    other = [each._replace(wall="pink" if each.wall != "pink" else "grey") for each in truths]
    readings = iter(other)
    shares = samples.alignment(pictures, scenes)
    assert (shares["wall"], shares["all"], shares["shape"]) == (0.0, 0.0, 1.0)


def test_true_pictures_are_at_the_floor_and_others_above(tmp_path):
    real = np.stack([to_uint8(render(Scene.random(CAPTIONS + k), 64)[None]) for k in range(12)])
    true = samples.distances(real, tmp_path)
    assert true["frechet"] == pytest.approx(true["frechet_floor"])
    assert samples.distances(255 - real, tmp_path)["frechet"] > true["frechet"]


def test_true_pictures_of_other_scenes_are_drawn_anew(tmp_path):
    drawn = np.array(data.scenes(tmp_path, 16, 3, TRUE_PICTURES))
    (file,) = tmp_path.iterdir()
    np.save(file, 255 - drawn)
    assert np.array_equal(data.scenes(tmp_path, 16, 3, TRUE_PICTURES), drawn)


def test_the_command_says_that_the_reader_sees_no_less_than_its_size(tiny_folder, tmp_path):
    words = ["evaluate", "samples", "--out", tmp_path, "--size", 32, "--model", tiny_folder]
    result = CliRunner().invoke(command_line(), [str(word) for word in words])
    assert result.exit_code == 2
    assert "samples are of 32 px; the reader sees 64 or more" in result.output
    assert not list(tmp_path.iterdir())


def test_samples_are_gone_on_with_and_those_of_another_way_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "BLOCK", 2)
    small = tiny.up_to(32)
    assert list(samples.draw(small, tmp_path / "a", 3, DDIM(), 3)) == [2, 3]
    assert samples.drawn(tmp_path / "a", 3).shape == (3, 32, 32, 3)
    before = (tmp_path / "a" / "00000.npy").stat().st_mtime_ns
    assert list(samples.draw(small, tmp_path / "a", 4, DDIM(), 3)) == [2, 4]
    assert (tmp_path / "a" / "00000.npy").stat().st_mtime_ns == before
    assert list(samples.draw(small, tmp_path / "b", 4, DDIM(), 3)) == [2, 4]
    assert np.array_equal(samples.drawn(tmp_path / "a", 4), samples.drawn(tmp_path / "b", 4))
    with pytest.raises(ValueError, match="another rule"):
        list(samples.draw(small, tmp_path / "a", 4, BDIA(), 3))


def test_prompts_are_drawn_together_as_apart(tiny):
    """Each prompt of a batch is independent: the first of the batch has the noise that it has alone."""
    prompts = ["a red cube on a tiled floor", "a blue cone on a plain floor"]
    both, first = (
        tiny.sample(prompts, 3, num_images_per_prompt=2)[-1],
        tiny.sample(prompts[0], 3, num_images_per_prompt=2)[-1],
    )
    assert both.shape == (4, 3, 64, 64)
    single = tiny.sample(prompts[:1], 3)[-1]
    assert torch.allclose(both[:1], single, atol=1e-4)
    assert not torch.allclose(both[2:], first, atol=1e-3)


def test_a_cascade_ends_at_a_size(tiny):
    assert [stage.size for stage in tiny.up_to(32).stages] == [16, 32]
    with pytest.raises(ValueError, match="no stage is of 48 px: the sizes are 16, 32, 64"):
        tiny.up_to(48)


def test_the_command_draws_and_tells(tiny_folder, tmp_path):
    words = ["evaluate", "samples", "--out", tmp_path, "--count", 3, "--steps", 3, "--sampler", "bdia", "--gamma", 0.5]
    result = CliRunner().invoke(command_line(), [str(word) for word in (*words, "--model", tiny_folder)])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "alignment.json").read_text())
    assert report.keys() >= {
        "color",
        "shape",
        "material",
        "size",
        "floor",
        "wall",
        "count",
        "all",
        "frechet",
        "frechet_floor",
    }
    assert report["true"].keys() == report["shuffled"].keys() == {*samples.CAPTION_ATTRIBUTES, "all"}
    assert report["steps"] == 3
    assert "BDIA(gamma=0.5" in report["rule"]
    assert "frechet" in result.output


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "another shape", "another dtype", "pickle", "gone"])
def test_a_block_that_cannot_be_read_is_drawn_again(tiny, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(samples, "BLOCK", 2)
    small = tiny.up_to(16)
    assert list(samples.draw(small, tmp_path, 4, DDIM(), 2)) == [2, 4]
    file, other = tmp_path / "00002.npy", (tmp_path / "00000.npy").stat().st_mtime_ns
    whole = file.read_bytes()
    if kind == "pickle":
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif kind.startswith("another"):
        np.save(file, np.zeros((2, 8, 8, 3), np.uint8) if "shape" in kind else np.zeros((2, 16, 16, 3)))
    elif kind == "gone":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "text": b"hello", "cut": whole[: len(whole) // 2]}[kind])
    assert list(samples.draw(small, tmp_path, 4, DDIM(), 2)) == [2, 4]
    assert file.read_bytes() == whole
    assert (tmp_path / "00000.npy").stat().st_mtime_ns == other


@pytest.mark.slow
def test_true_pictures_that_cannot_be_read_are_drawn_again(tmp_path):
    drawn = np.array(data.scenes(tmp_path, 16, 3))
    (file,) = tmp_path.iterdir()
    for broken in (b"", b"hello", file.read_bytes()[:200]):
        file.write_bytes(broken)
        assert (data.scenes(tmp_path, 16, 3) == drawn).all()


def test_guidance_that_is_no_number_is_a_sentence(tiny, tmp_path):
    with pytest.raises(ValueError, match="guidance_scale is nan; it is a finite number"):
        list(samples.draw(tiny.up_to(16), tmp_path, 2, DDIM(), 2, float("nan")))

"""The trainer runs at a size that takes seconds: every part, resuming, and the losses against their definitions."""

import json
import math

import numpy as np
import pytest
import torch
import yaml

import iterinv
from iterinv.embedded.scenes import Scene
from iterinv.embedded.seeds import HELD_OUT
from iterinv.embedded.train import RECIPE, read_recipe, train
from iterinv.embedded.train.data import PHOTOGRAPHS, photographs, scene, scenes
from iterinv.embedded.train.progress import Clock
from iterinv.embedded.train.stage import Batches, prediction_loss, variance_loss
from iterinv.models import folders
from iterinv.schedules import from_config


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    settings = read_recipe()
    settings["data"] = {"small": {"size": 16, "count": 24}, "large": {"size": 64, "count": 6}, "photographs": 0.5}
    settings["text"].update(width=32, layers=1, heads=2, feed_forward=32, minutes=0.03, batch=16)
    for stage, size, low, channels in zip(settings["stages"], (16, 32, 64), (None, 16, 32), (32, 32, 16), strict=True):
        stage.update(size=size, channels=[channels, 32], down=[stage["down"][0], stage["down"][-1]])
        phase = {"minutes": 0.025, "crop": min(size, 32), "batch": 4, "rate": 1e-3}
        stage.update(phases=[phase, {**phase, "crop": size, "batch": 2}], **({"low": low} if low else {}))
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.slow
def test_all_parts_make_a_cascade_that_inverts(recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match="iterinv train text"):
        train("I", tmp_path, recipe=recipe)
    train("text", tmp_path, recipe=recipe)
    with pytest.raises(FileNotFoundError, match="iterinv train I "):
        train("pack", tmp_path, recipe=recipe)
    for part in ("I", "II", "III"):
        folder = train(part, tmp_path, recipe=recipe)
        assert (folder / "checkpoint").is_dir()
        assert list(folder.glob("samples-*.png"))
    weights = train("pack", tmp_path, recipe=recipe)
    assert json.loads((weights / "cascade.json").read_text())["stages"] == ["stage1", "stage2", "stage3"]
    assert (weights / "recipe.yaml").read_text() == recipe.read_text()
    assert folders.damaged(weights) == []
    cascade = iterinv.load(str(weights))
    x = torch.zeros(1, 3, 64, 64)
    assert float((cascade.invert(x, "a red sphere").picture - x).abs().max()) < 1e-6


@pytest.mark.slow
def test_a_packed_cascade_is_gone_on_from(recipe, tmp_path):
    """Training continues with the last phase alone, and at a rate of zero it changes nothing."""
    still = read_recipe(recipe)
    for stage in still["stages"]:
        stage["phases"][0]["minutes"] = 9.0
        stage["phases"][1]["rate"] = 0.0
    path = tmp_path / "still.yaml"
    path.write_text(yaml.safe_dump(still))
    for part in ("text", "I", "II", "III"):
        train(part, tmp_path / "first", recipe=recipe)
    packed = train("pack", tmp_path / "first", recipe=recipe)
    for part in ("text", "I", "II", "III"):
        train(part, tmp_path / "second", recipe=path, weights=packed)
    again = train("pack", tmp_path / "second", recipe=path)
    assert iterinv.load(str(again)).fingerprint == iterinv.load(str(packed)).fingerprint


@pytest.mark.slow
def test_a_stopped_part_goes_on_from_its_checkpoint(recipe, tmp_path, capsys):
    train("text", tmp_path, recipe=recipe)
    train("I", tmp_path, minutes=0.05, recipe=recipe)
    first = {file.name for file in (tmp_path / "stage-I").glob("samples-*.png")}
    train("I", tmp_path, minutes=0.1, recipe=recipe)
    steps = sorted(int(file.stem.split("-")[1]) for file in (tmp_path / "stage-I").glob("samples-*.png"))
    assert len(first) == 1
    assert steps[-1] > steps[0]


def test_there_is_no_other_part(tmp_path):
    with pytest.raises(ValueError, match="the parts are text, I, II, III, pack"):
        train("IV", tmp_path)


def test_the_clock_stops_and_counts_over_runs():
    clock = Clock("test", [{"minutes": 0.002, "rate": 2.0}])
    steps = sum(1 for _ in clock)
    assert clock.step == steps > 0
    later = Clock("test", [{"minutes": 0.002, "rate": 2.0}])
    later.load_state_dict(clock.state_dict())
    assert list(later) == []
    assert Clock("test", [{"minutes": 1, "rate": 2.0}]).rate(warmup=100) == pytest.approx(0.02, rel=0.01)
    assert later.rate(1) == pytest.approx(0, abs=1e-3)


def test_each_phase_begins_at_its_own_rate():
    clock = Clock("test", [{"minutes": 1, "rate": 2.0}, {"minutes": 3, "rate": 0.5}])
    for spent, rate in ((0, 2.0), (30, 1.0), (60, 0.5), (150, 0.25), (240, 0.0)):
        clock.load_state_dict({"step": 500, "spent": spent})
        assert clock.rate(warmup=100) == pytest.approx(rate, abs=0.01)


def test_rendered_scenes_are_kept_on_disk(tmp_path):
    drawn = scenes(tmp_path, 8, 3)
    stamp = (tmp_path / "scenes-8-3.npy").stat().st_mtime_ns
    assert drawn.shape == (3, 8, 8, 3)
    assert (np.asarray(scenes(tmp_path, 8, 3)) == drawn).all()
    assert (tmp_path / "scenes-8-3.npy").stat().st_mtime_ns == stamp


def test_the_benchmarks_photographs_are_not_trained_on():
    names = {name for group in PHOTOGRAPHS.values() for name in group}
    assert not any(reserved in name for name in names for reserved in ("astronaut", "coffee", "chelsea"))
    for photo in photographs(64, (64,)):
        assert photo.shape[0] == 3
        assert min(photo.shape[1:]) == 64
        assert float(photo.abs().max()) <= 1


def test_low_resolution_pictures_lie_under_their_targets(tmp_path):
    """The target and the enlarged picture are cut at the same place: they agree, up to the detail that is lost."""
    settings = read_recipe()
    settings["data"] = {"small": {}, "large": {"size": 64, "count": 4}, "photographs": 0.0}
    x, large, words = Batches(settings, {"size": 64, "low": 32}, tmp_path, seed=0).draw(8, 24)
    assert x.shape == large.shape == (8, 3, 24, 24)
    assert len(words) == 8
    shifted = (x[..., 2:] - large[..., :-2]).square().mean()
    assert (x - large).square().mean() < shifted / 2


def test_crops_are_taken_where_most_is_to_be_learned(tmp_path):
    """A crop of many tries is further from its enlarged picture than a crop of one; with all places tried it is the
    furthest."""
    settings = read_recipe()
    settings["data"] = {"small": {}, "large": {"size": 64, "count": 4}, "photographs": 0.0}

    def missing(tries):
        x, large, _ = Batches(settings, {"size": 64, "low": 32}, tmp_path, seed=0).draw(8, 24, tries)
        return float((x - large).abs().mean())

    assert missing(1) < missing(4) < missing(64)


def test_low_resolution_pictures_may_be_blurred_and_cubes_come_more_often(tmp_path):
    settings = {"data": {"large": {"size": 32, "count": 12}, "photographs": 0.0}, "drop_caption": 0.0}
    stage = {"size": 32, "low": 16}
    _, sharp, words = Batches(settings, stage, tmp_path, seed=0).draw(64, 32)
    _, soft, same = Batches(settings, stage, tmp_path, seed=0).draw(64, 32, blur=1.0)
    assert words == same
    changed = (sharp - soft).abs().flatten(1).amax(1) > 1e-3
    assert 16 < int(changed.sum()) < 48  # these are half of them
    contrast = [y[changed].flatten(1).std(1) for y in (sharp, soft)]
    assert (contrast[1] < contrast[0]).all()
    *_, favoured = Batches(settings, stage, tmp_path, seed=0).draw(64, 32, cubes=8)
    assert sum("cube" in w for w in favoured) > 1.3 * sum("cube" in w for w in words) > 0


def test_some_tables_are_empty_in_training_and_none_elsewhere():
    counts = [len(scene(seed).things) for seed in range(480)]
    assert counts.count(0) == 40
    assert all(scene(HELD_OUT + seed) == Scene.random(HELD_OUT + seed) for seed in range(24))
    assert scene(3) == Scene.random(3)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["reader", "inspector"])
def test_the_judges_are_trained_and_gone_on_from(part, tmp_path):
    settings = read_recipe()
    settings["data"]["large"]["count"] = 3
    settings["reader"].update(count=4, batch=2)
    settings["inspector"].update(count=3, batch=2)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    file = train(part, tmp_path, 0.02, tmp_path / "recipe.yaml")
    again = train(part, tmp_path, 0.02, tmp_path / "recipe.yaml", weights=file)
    assert file == again == tmp_path / part / f"{part}.safetensors"


def test_the_variance_term_is_least_at_the_true_posterior():
    """With the noise known, the best interpolation is the one whose variance is the posterior's: v = -1."""
    table = torch.tensor(from_config({"beta_schedule": "squaredcos_cap_v2"}).alphas_cumprod)
    x0 = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    noise = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    for label in (10, 500):
        t = torch.tensor([label])
        x = table[t].sqrt() * x0 + (1 - table[t]).sqrt() * noise
        low, middle, high = (
            float(variance_loss(noise, torch.full_like(x, v), x0, x, t, table)) for v in (-1.0, 0.0, 1.0)
        )
        assert low == pytest.approx(0, abs=1e-4)
        assert low < middle < high
    assert float(variance_loss(noise, noise, x0, noise, torch.tensor([0]), table)) == 0


class _Out:
    def __init__(self, sample):
        self.sample = torch.cat([sample, -torch.ones_like(sample)], 1)


def _loss(network, table, **settings):
    """Return the loss on black pictures of a network (x, t) -> prediction."""
    example = (torch.zeros(64, 3, 8, 8), None, [""] * 64)
    return float(
        prediction_loss(lambda x, t, **_: _Out(network(x, t)), lambda words: {"text": None}, example, settings, table)
    )


def _blind(x, t):
    return torch.zeros_like(x)


def test_a_perfect_network_has_no_loss_but_its_variance():
    """The loss of predicting the noise itself is zero; of predicting nothing, the weighted mean square of the noise."""
    table = torch.tensor(from_config({"beta_schedule": "squaredcos_cap_v2"}).alphas_cumprod)

    def perfect(x, t):  # for black pictures the noise is the sample over sigma
        return x / (1 - table[t]).sqrt().reshape(-1, 1, 1, 1)

    settings = {"prediction": "epsilon", "snr_cap": math.inf, "weight_max": 1.0}
    assert _loss(perfect, table, **settings) == pytest.approx(0, abs=1e-4)
    assert _loss(_blind, table, **settings) == pytest.approx(1, abs=0.1)
    # Below SNR = cap / max the noise's error weighs max; above it, that of the picture weighs cap at every level.
    settings |= {"snr_cap": 2.0, "weight_max": 3.0}
    assert _loss(_blind, torch.linspace(0.12, 0.08, 1000), **settings) == pytest.approx(3, abs=0.1)
    assert _loss(_blind, torch.linspace(0.81, 0.79, 1000), **settings) == pytest.approx(2 / 4, abs=0.05)


def test_a_velocity_is_weighted_by_sigma():
    """The velocity of a black picture is alpha times its noise; of predicting nothing, the loss is the mean square of
    that times sigma."""
    table = torch.linspace(0.37, 0.35, 1000)

    def perfect(x, t):
        return x * (table[t] / (1 - table[t])).sqrt().reshape(-1, 1, 1, 1)

    assert _loss(perfect, table, prediction="v_prediction") == pytest.approx(0, abs=1e-3)
    assert _loss(_blind, table, prediction="v_prediction") == pytest.approx(0.36 * 0.8, abs=0.02)


def test_the_shipped_recipe_is_whole():
    settings = read_recipe(RECIPE)
    assert [stage["name"] for stage in settings["stages"]] == ["I", "II", "III"]
    assert [stage["size"] for stage in settings["stages"]] == [32, 64, 256]


def test_a_misspelt_setting_of_a_phase_is_named(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.read_text(encoding="utf-8").replace("blur: 0.8", "blurr: 0.8"), encoding="utf-8")
    with pytest.raises(ValueError, match="a phase of stage III sets 'blurr': a phase may set minutes, rate, batch"):
        read_recipe(recipe)


def test_a_folder_of_ones_own_is_not_made_anew_by_packing(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "own.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files, and would be made anew: move it"):
        train("pack", tmp_path)
    recipe = tmp_path / "weights" / "recipe.yaml"
    recipe.write_bytes(RECIPE.read_bytes())
    with pytest.raises(ValueError, match="which is made anew: give a copy of it that lies elsewhere"):
        train("pack", tmp_path, recipe=recipe)
    assert {file.name for file in (tmp_path / "weights").iterdir()} == {"own.txt", "recipe.yaml"}

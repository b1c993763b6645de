"""The benchmark's own parts are right: edits, regions, answers, Fréchet distances."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from iterinv.embedded.evaluate.tasks import KINDS, scene_edit
from iterinv.embedded.reader import QUESTIONS, WEIGHTS, Reader, SceneAttributes, answers, most_likely, read
from iterinv.embedded.scenes import OF_SCENE, OF_THING, TEMPLATES, Scene, caption, object_mask, render, things_in
from iterinv.embedded.train.reader import mirrored, spoiled
from iterinv.metrics import frechet


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_an_edit_changes_one_thing_and_its_words_and_is_the_same_again(kind, seed):
    edit = scene_edit(seed, kind)
    assert edit == scene_edit(seed, kind)
    assert edit.prompt != edit.to
    before, after = SceneAttributes.of(edit.source), SceneAttributes.of(edit.target)
    changed = {"recolour": "color", "reshape": "shape", "material": "material", "resize": "size"}.get(kind)
    if changed:
        differing = [(a, b) for a, b in zip(before.things, after.things, strict=True) if a != b]
        ((a, b),) = differing
        assert [name for name in a._fields if getattr(a, name) != getattr(b, name)] == [changed]
        assert before[1:4] == after[1:4]
    elif kind in OF_SCENE:
        assert before.things == after.things
        assert [name for name in OF_SCENE if getattr(before, name) != getattr(after, name)] == [kind]
    elif kind == "move":
        assert before[:4] == after[:4]
        assert {before.side, after.side} == {"left", "right"}
        assert f"on the {after.side} of a" in edit.to
    else:
        counts = {"remove": (2, 1), "add": (1, 2), "clear": (1, 0)}
        assert (len(before.things), len(after.things)) == counts[kind]
        assert set(before.things) >= set(after.things) or set(before.things) <= set(after.things)


def test_the_region_holds_the_thing_and_its_shadow():
    edit = scene_edit(3, "remove")
    region = edit.region(64)
    gone = next(k for k, thing in enumerate(edit.source.things) if thing not in edit.target.things)
    thing = object_mask(edit.source, 64, gone) > 0.5
    assert bool((region[thing] == 1).all())
    before, after = (render(scene, 64) for scene in (edit.source, edit.target))
    near = torch.nn.functional.max_pool2d(thing.float()[None], 5, 1, 2)[0] > 0  # the thing plus two pixels
    shadow = ((before - after).abs().amax(0) > 0.04) & ~near.reshape(64, 64)
    assert shadow.sum() > 10
    assert bool((region.reshape(64, 64)[shadow] == 1).all())
    assert region.sum() < 0.7 * region.numel()


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="there is no kind of edit 'teleport'"):
        scene_edit(0, "teleport")


def said(right):
    """Apply most_likely to scores that are highest at the right answers (questions,)."""
    pairs = zip(right.clamp_min(0), QUESTIONS.values(), strict=True)
    return most_likely([torch.nn.functional.one_hot(k[None], len(values)) for k, values in pairs])[0]


def test_right_answers_are_what_is_told_of_scores_that_hold_them():
    for seed in range(20):
        scene = Scene.random(seed, seed % 3)
        assert said(torch.tensor(answers(scene))) == SceneAttributes.of(scene)


def test_answers_about_mirrored_scenes():
    """The thing on the left moves to the right, and so does the lamp; two mirrorings change nothing."""
    for seed in range(30):
        scene = Scene.random(seed, seed % 3)
        right, truth = torch.tensor([answers(scene)]), SceneAttributes.of(scene)
        predicted = said(mirrored(right)[0])
        assert predicted.things == truth.things[::-1]
        assert predicted.light == {"left": "right", "right": "left", "front": "front"}[truth.light]
        assert predicted.side == {"left": "right", "right": "left"}.get(truth.side, truth.side)
        assert (predicted.floor, predicted.wall) == (truth.floor, truth.wall)
        assert torch.equal(mirrored(mirrored(right)), right)


def test_spoiled_pictures_are_near_what_they_were():
    x = torch.rand(8, 3, 64, 64) * 2 - 1
    y = spoiled(x, torch.Generator().manual_seed(0))
    assert y.shape == x.shape
    assert y.abs().max() <= 1
    assert 0 < float((y - x).square().mean()) < 0.2


def test_the_reader_answers_every_question():
    scores = Reader()(torch.zeros(2, 3, 64, 64))
    assert [each.shape for each in scores] == [(2, len(values)) for values in QUESTIONS.values()]
    assert len(QUESTIONS) == 2 + 2 * len(OF_THING) + len(OF_SCENE)


def test_the_shipped_reader_reads_renders_it_never_saw():
    scenes = [Scene.random(6_500_000 + k, k % 5 and None) for k in range(30)]
    right = {name: [] for name in ("count", "side", "shape", "color", "size", "floor", "wall", "light", "material")}
    for scene in scenes:
        (predicted,), truth = read(render(scene, 96)[None]), SceneAttributes.of(scene)
        right["count"].append(len(predicted.things) == len(truth.things))
        for name in ("side", "floor", "wall", "light"):
            right[name].append(getattr(predicted, name) == getattr(truth, name))
        for name in OF_THING:
            right[name] += [
                getattr(a, name) == getattr(b, name) for a, b in zip(predicted.things, truth.things, strict=False)
            ]
    shares = {name: np.mean(these) for name, these in right.items()}
    assert shares.pop("side") >= 0.8  # a thing may stand on the border of the middle
    assert shares.pop("material") >= 0.85
    assert min(shares.values()) >= 0.97, shares
    assert (WEIGHTS.stat().st_size) < 3e6


def test_only_square_pictures_of_its_size_or_more_are_read():
    for shape in ((1, 3, 32, 32), (1, 3, 64, 80), (3, 64, 64)):
        with pytest.raises(ValueError, match="the reader takes"):
            read(torch.zeros(shape))


def test_the_frechet_distance_is_scipys():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(200, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + k for k in (0, 1))
    (ca, cb), m = (np.cov(x.numpy().T) for x in (a, b)), (a.mean(0) - b.mean(0)).numpy()
    expected = m @ m + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-5)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="n of 2 or more"):
        frechet(a[:1], b)


@pytest.mark.parametrize("template", range(TEMPLATES))
def test_a_caption_names_its_things(template):
    for seed in range(20):
        scene = Scene.random(seed, seed % 3)
        named = things_in(caption(scene, template))
        assert len(named) == len(scene.things)
        assert all(words.split()[-1] == thing.shape for words, thing in zip(named, scene.things, strict=True))
        assert all(thing.color in words for words, thing in zip(named, scene.things, strict=True))

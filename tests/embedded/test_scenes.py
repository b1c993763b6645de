import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iterinv.embedded.scenes import (
    COLORS,
    FLOORS,
    LIGHTS,
    SHAPES,
    TEMPLATES,
    WALLS,
    Scene,
    Thing,
    caption,
    object_mask,
    render,
    vocabulary,
)

seeds = st.integers(0, 1_000_000)


@given(seeds)
def test_the_same_seed_is_the_same_scene_and_picture(seed):
    assert Scene.random(seed) == Scene.random(seed)
    assert hash(Scene.random(seed)) == hash(Scene.random(seed))


def test_pictures_are_pure_functions_of_scene_and_size():
    scene = Scene.random(11)
    assert torch.equal(render(scene, 48), render(scene, 48))
    assert not torch.equal(render(scene, 48), render(Scene.random(12), 48))
    assert render(scene, 48).shape == (3, 48, 48)
    assert float(render(scene, 48).abs().max()) <= 1


@settings(max_examples=8, deadline=None)
@given(seeds)
def test_a_small_picture_is_the_average_of_the_large_one(seed):
    scene = Scene.random(seed)  # the far rows of a checkered floor are finer than either sampling
    large = torch.nn.functional.interpolate(render(scene, 128)[None], (32, 32), mode="area")[0]
    assert float((render(scene, 32) - large).abs().mean()) < 0.05


@settings(max_examples=12, deadline=None)
@given(seeds, st.sampled_from(list(COLORS)))
def test_recolouring_changes_the_thing_and_nothing_else(seed, color):
    """Light does not bounce between things here, so outside the mask the truth of a recolouring is the picture
    itself."""
    scene = Scene.random(seed)
    changed = scene.with_(color=color)
    outside = object_mask(scene, 48)[0] == 0
    assert torch.equal(render(scene, 48)[:, outside], render(changed, 48)[:, outside])
    if color != scene.things[0].color:
        assert not torch.equal(render(scene, 48), render(changed, 48))


@settings(max_examples=12, deadline=None)
@given(seeds)
def test_masks_cover_what_is_seen(seed):
    scene = Scene.random(seed, things=2)
    first, second = (object_mask(scene, 48, k) for k in range(2))
    assert float((first + second).max()) <= 1 + 1e-6
    assert min(float(first.sum()), float(second.sum())) > 5
    columns = torch.arange(48.0)
    assert float((first.sum((0, 1)) * columns).sum() / first.sum()) < float(
        (second.sum((0, 1)) * columns).sum() / second.sum()
    )
    with pytest.raises(IndexError, match="2 thing"):
        object_mask(scene, 48, 2)


def test_with_changes_one_thing():
    scene = Scene.random(5, things=2)
    changed = scene.with_(1, shape="cone", floor="tiles")
    assert changed.things[0] == scene.things[0]
    assert changed.things[1].shape == "cone"
    assert changed.floor == "tiles"
    assert (changed.camera, changed.lamp, changed.grain) == (scene.camera, scene.lamp, scene.grain)
    with pytest.raises(TypeError):
        scene.with_(colour="red")
    with pytest.raises(IndexError):
        scene.with_(2, color="red")


def test_values_outside_the_world_are_refused():
    with pytest.raises(ValueError, match="color 'pink' is not one of red"):
        Scene.random(0).with_(color="pink")
    with pytest.raises(ValueError, match="floor 'grass'"):
        Scene.random(0).with_(floor="grass")
    thing = Thing("cube", "red", "matte", "small", 0.0, 0.0)
    with pytest.raises(ValueError, match="at most two things, not 3"):
        Scene((thing,) * 3, "plain", "grey", "left")


def test_every_value_is_drawn():
    scenes = [Scene.random(seed) for seed in range(400)]
    assert {scene.floor for scene in scenes} == set(FLOORS)
    assert {scene.wall for scene in scenes} == set(WALLS)
    assert {scene.light for scene in scenes} == set(LIGHTS)
    assert {thing.shape for scene in scenes for thing in scene.things} == set(SHAPES)
    assert {thing.color for scene in scenes for thing in scene.things} == set(COLORS)
    assert 0.25 < sum(len(scene.things) == 2 for scene in scenes) / 400 < 0.45


@given(seeds, st.integers(0, TEMPLATES - 1))
def test_captions_use_the_vocabulary_and_name_the_colours(seed, template):
    scene = Scene.random(seed)
    words = caption(scene, template).replace(",", "").split()
    assert set(words) <= set(vocabulary())
    assert all(thing.color in words and thing.shape in words for thing in scene.things)


def test_captions_read_well():
    scene = Scene.random(1).with_(color="orange")
    assert caption(scene) == "a large orange matte cube on a tiled floor in front of a teal wall"
    assert caption(scene, 2) == "a picture of an orange matte cube on a tiled floor in front of a teal wall"


def test_the_tokenizer_knows_every_word_as_one_piece():
    from iterinv.embedded.train.networks import tokenizer

    words = tokenizer(77)
    for word in vocabulary():
        assert words.tokenize(word) == [f"▁{word}"]

"""Advice on prompts and pictures that the embedded cascade cannot edit."""

import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from iterinv import load
from iterinv.embedded.advice import picture_advice, prompt_advice, unknown_words
from iterinv.embedded.scenes import Scene, render
from iterinv.embedded.seeds import HELD_OUT
from iterinv.images import Canvas, resize
from iterinv.presets import Defaults
from iterinv.workbench import checked_prompt

from conftest import call, refused

PROMPT = "a red sphere on a wooden floor"


def test_words_the_embedded_model_does_not_know_are_named():
    prompt = checked_prompt(" a red teapot on a wooden floor ", "--to")
    assert prompt == "a red teapot on a wooden floor"
    (advice,) = prompt_advice(prompt, "--to")
    assert "does not know 'teapot' (in --to)" in advice
    assert " sphere " in advice
    assert prompt_advice(PROMPT, "--to") == []
    assert prompt_advice("", "--to") == []
    for marks in ("...", "→", "\ufe0f", "(:1.3)"):
        assert prompt_advice(marks, "--to") == [
            "--to holds no words, so the embedded model reads it as an empty prompt"
        ]
    assert unknown_words("A red ball, on a GREEN sofa; sofa") == ["ball", "sofa"]


def test_two_things_of_one_description_are_noted():
    (twice,) = prompt_advice("the small red sphere to the left of the small red sphere on a tiled floor", "--prompt")
    assert "'small red sphere' twice" in twice
    (three,) = prompt_advice("a red sphere and a blue sphere and a red cube", "--to")
    assert "names 3 things" in three
    assert prompt_advice("a red sphere to the left of a large red sphere", "--to") == []


def test_a_cascade_carries_its_defaults_and_its_advice(tiny):
    embedded = load()
    assert embedded.defaults.sampling_steps == 10
    assert embedded.defaults.prompt_advice("a teapot", "--to")
    assert tiny.defaults == Defaults()
    assert tiny.defaults.prompt_advice("a teapot", "--to") == []
    assert embedded.up_to(64).defaults == embedded.defaults


def test_a_photograph_is_refused_for_editing_before_any_inverting(tmp_path, monkeypatch):
    """The first stage finds scenes likely, blurred and noised ones too, and photographs not."""
    cascade = load()
    for seed in range(4):
        scene = render(Scene.random(HELD_OUT + seed), 256)[None]
        noisy = (scene + 0.1 * torch.randn(scene.shape, generator=torch.Generator().manual_seed(seed))).clamp(-1, 1)
        for each in (scene, noisy, resize(resize(scene, (64, 64)), (256, 256))):
            assert picture_advice(cascade.stages, each) == ""
    photograph = Canvas.fit(astronaut(), (256, 256), "crop")[0]
    advice = picture_advice(cascade.stages, photograph.covered())
    assert "can be inverted exactly, but not edited by this model" in advice
    Image.fromarray(photograph.image).save(tmp_path / "a.png")
    monkeypatch.setattr("iterinv.cascade.Cascade.invert", lambda *_, **__: pytest.fail("a picture was inverted"))
    words = "edit", tmp_path / "a.png", "--prompt", "a red sphere", "--to", "a blue sphere", "--out", tmp_path / "out"
    refused("this picture is none", *words)
    with pytest.raises(pytest.fail.Exception, match="a picture was inverted"):
        call(*words, "--force")
    assert load().up_to(64).defaults.picture_advice(cascade.stages, photograph.covered()) == advice


def test_a_rectangle_that_the_model_does_not_know_is_refused_with_the_advice_to_pad():
    """The advice is of the picture at the rectangle: the sample drawn at one is known there, a photograph is not."""
    at = load().at(192, 352)
    drawn = at.sample("a red sphere on a wooden floor in front of a teal wall")[-1]
    assert picture_advice(at.stages, drawn) == ""
    photograph, _ = at.canvas(astronaut(), "crop")
    assert "pad it to a square" in picture_advice(at.stages, photograph.covered())

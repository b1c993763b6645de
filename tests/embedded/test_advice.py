from iterinv import load
from iterinv.embedded.advice import prompt_advice, unknown_words
from iterinv.presets import Defaults
from iterinv.workbench import checked_prompt

PROMPT = "a red sphere on a wooden floor"


def test_words_the_embedded_model_does_not_know_are_named():
    prompt = checked_prompt(" a red teapot on a wooden floor ", "--to")
    assert prompt == "a red teapot on a wooden floor"
    (advice,) = prompt_advice(prompt, "--to")
    assert "does not know 'teapot' (in --to)" in advice
    assert " sphere " in advice
    assert prompt_advice(PROMPT, "--to") == []
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

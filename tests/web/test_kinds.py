"""Drafts of target prompts are in the words that the embedded cascade knows."""

import numpy as np
import pytest

from iterinv.edits import EDITORS
from iterinv.embedded.scenes import Scene, caption, things_in, vocabulary
from iterinv.embedded.scenes.caption import words_in
from iterinv.web.kinds import KINDS, RECONSTRUCT
from iterinv.web.words import Meter, message, notes, problem, table
from iterinv.workbench import Note, Progress


@pytest.mark.parametrize("seed", range(80))
def test_drafts_are_captions_of_another_scene(seed):
    prompt = caption(Scene.random(seed))
    known = set(vocabulary())
    things = things_in(prompt)
    for name, kind in KINDS.items():
        target = kind.draft(prompt)
        assert kind.editor in EDITORS
        if name == RECONSTRUCT:
            assert target == ""
            continue
        assert target != prompt, name
        assert set(words_in(target)) <= known, target
        changed = {"Remove": len(things) - 1, "Add": len(things) + 1}.get(name, len(things))
        assert len(things_in(target)) == changed, (name, target)


@pytest.mark.parametrize(
    ("kind", "prompt", "target"),
    [
        ("Recolour", "a woman in an orange suit", "a woman in a blue suit"),
        ("Recolour", "an old blue car", "an old yellow car"),
        ("Change shape", "a red cube beside a blue cube", "a red sphere beside a blue cube"),
        ("Remove", "a red cube and a blue cone on a tiled floor", "a red cube on a tiled floor"),
        ("Remove", "a red cube on a tiled floor", "a tiled floor"),
        ("Add", "a red cube on a tiled floor", "a red cube to the left of a small green sphere on a tiled floor"),
        ("Background", "a cube in front of an orange wall", "a cube in front of a teal wall"),
        ("Recolour", "a photo of an old fox in the snow", "a photo of a blue old fox in the snow"),
        ("Recolour", "flowers in a vase", "blue flowers in a vase"),
        ("Change shape", "a woman with a hat", "a man with a hat"),
        ("Change shape", "a fluffy brown cow standing in a field", "a fluffy brown dog standing in a field"),
        ("Change shape", "an owl, at night", "a dog, at night"),
        ("Remove", "a woman wearing a hat in a park", "a woman in a park"),
        ("Remove", "a photo of a dog running in a park", "a park"),
        ("Add", "a cat on a sofa", "a cat and a red balloon on a sofa"),
        ("Add", "an owl, at night", "an owl and a red balloon, at night"),
        ("Background", "a cat on a sofa", "a cat on a beach"),
        ("Background", "a woman in a red dress on the beach", "a woman in a red dress in a forest"),
        ("Background", "two dogs", "two dogs on a beach"),
    ],
)
def test_drafts_read_well(kind, prompt, target):
    assert KINDS[kind].draft(prompt) == target


@pytest.mark.parametrize("name", KINDS)
def test_drafts_of_any_prompt_are_text(name):
    every = " ".join(vocabulary())
    for prompt in ("", every, "a cat on a sofa", "sphere", "on", "wall", "\x00 on a \U0001f600", "a " * 500):
        assert isinstance(KINDS[name].draft(prompt), str)


def test_the_time_left_is_that_of_the_steps_so_far(monkeypatch):
    clock = np.zeros(1)
    monkeypatch.setattr("iterinv.web.words.time.monotonic", lambda: float(clock[0]))
    meter = Meter("Inverting")
    for done in range(1, 6):
        clock[0] = done
        meter.add([Progress("I", "inverting", done, 20, done)])
    assert "5 of 20, 15 s left" in meter.html()
    meter.add([Progress("I", "editing", 3, None, 9), Note("a note"), Note("a note")])
    html = meter.html()
    assert "9 network calls" in html
    assert html.count("a note") == 1
    assert "left" not in Meter("Inverting").html("done")


def test_html_holds_no_text_as_it_is():
    hostile = "<img src=x onerror=alert(1)>"
    meter = Meter(hostile)
    meter.add([Note(hostile), Progress(hostile, hostile, 1, 2, 1)])
    for html in (
        meter.html(),
        problem(hostile),
        message(hostile),
        notes([hostile]),
        table(hostile, [hostile], [[hostile]]),
    ):
        assert "<img" not in html

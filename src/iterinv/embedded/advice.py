"""Advice on prompts for the embedded cascade, which knows one small world."""

from __future__ import annotations

import unicodedata

from iterinv.embedded.scenes import things_in, vocabulary
from iterinv.embedded.scenes.caption import words_in


def prompt_advice(prompt: str, name: str) -> list[str]:
    """Return advice on the parts of a prompt that the embedded cascade cannot draw; ``name`` is the message's name for
    it.

    It knows some words, scenes of one or two things, and two things only by different descriptions.
    """
    advice, unknown, things = [], unknown_words(prompt), things_in(prompt)
    if unknown:
        advice.append(
            f"the embedded model does not know {', '.join(map(repr, unknown))} (in {name}); the words it knows are: "
            + " ".join(vocabulary())
        )
    if len(things) > 2:
        advice.append(
            f"{name} names {len(things)} things; the embedded model's scenes hold one or two, and it cannot draw more"
        )
    if twice := next((thing for thing in things if things.count(thing) > 1), None):
        advice.append(
            f"{name} names a {twice!r} twice; only their places tell the two apart ('… to the left of …'), and "
            "an edit of one "
            "may change the other: describe them by different words if you can"
        )
    return advice


def unknown_words(prompt: str) -> list[str]:
    """The words and pictograms of a prompt that the embedded cascade was not trained on, in order, each once."""
    known, pictograms = set(vocabulary()), [each for each in prompt if unicodedata.category(each) == "So"]
    return list(dict.fromkeys(word for word in [*words_in(prompt), *pictograms] if word not in known))

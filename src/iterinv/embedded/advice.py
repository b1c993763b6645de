"""Advice on prompts and pictures for the embedded cascade, which knows one small world."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from iterinv.embedded.scenes import things_in, vocabulary
from iterinv.embedded.scenes.caption import words_in
from iterinv.guidance import unguided
from iterinv.images import resize
from iterinv.models import Stage
from iterinv.streams import draw_noise


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
    elif prompt.strip() and not words_in(prompt):
        advice.append(f"{name} holds no words, so the embedded model reads it as an empty prompt")
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


UNKNOWN = 0.018
"""The squared error of the clean picture that stage I predicts, above which it does not know a picture. Of 36 scenes
the largest was 0.0075; of 15 photographs and drawings the smallest 0.043, and of plain noise 0.035."""


@torch.no_grad()
def picture_advice(stages: Sequence[Stage], picture: Tensor) -> str:
    """Return a sentence for a picture (1, 3, h, w) in [-1, 1] that is no tabletop scene, by the likelihood that
    the first stage gives it; empty for one that the cascade knows."""
    stage = stages[0]
    level = (grid := stage.schedule.grid(20))[len(grid) // 2]
    x, field = resize(picture, stage.extent).to(stage.device).double(), unguided(stage.denoiser, stage.condition(""))
    error = 0.0
    for k in range(4):
        noise = draw_noise(x.shape[1:], [0], "known", k).to(x)
        error += float(((field(level.alpha * x + level.sigma * noise, level).x0 - x) ** 2).mean()) / 4
    if error < UNKNOWN:
        return ""
    if stage.rectangle is not None:
        return (
            "the embedded model was trained on squares alone and does not know this picture at a rectangle: it can be "
            "inverted exactly there, but not edited; pad it to a square (fit pad). --force edits it all the same"
        )
    return (
        "the embedded model draws tabletop scenes, and this picture is none: it can be inverted exactly, but not "
        "edited by this model. deepfloyd, sd15, sd21 and sdxl edit photographs (--model); --force edits it all the same"
    )


PICTOGRAMS = {"So", "Cn", "Co"}
"""Unicode's categories of pictograms, with those that Python's tables do not know yet and private ones."""


def unknown_words(prompt: str) -> list[str]:
    """The words and pictograms of a prompt that the embedded cascade was not trained on, in order, each once."""
    known, pictograms = set(vocabulary()), [each for each in prompt if unicodedata.category(each) in PICTOGRAMS]
    return list(dict.fromkeys(word for word in [*words_in(prompt), *pictograms] if word not in known))

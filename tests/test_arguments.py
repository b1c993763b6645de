"""Arguments of another kind, or outside their range, raise sentences that name them, everywhere in the public API."""

import math

import numpy as np
import pytest
import torch

import iterinv
from iterinv import edits, guidance, inverters, refine, roots, steps
from iterinv.methods import sampler
from iterinv.typed import Count, checked, from_json

from conftest import Hearing

PROMPT = "a red sphere"
ODD_NUMBERS = ("3", 2.5, None, True, [3], math.nan, -1, 0, 10**9)


@pytest.fixture(scope="module")
def small(tiny):
    return tiny.up_to(16)


@pytest.fixture(scope="module")
def inversion(small):
    return small.invert(np.zeros((16, 16, 3), np.uint8), PROMPT, num_inference_steps=2, observer=Hearing())


def said(name, call, *, kinds=(TypeError, ValueError)):
    """Return the sentence that a call raises, which names the argument."""
    with pytest.raises(kinds) as raised:
        call()
    text = str(raised.value)
    assert name in text, text
    assert len(text.split()) > 4, text
    return text


@pytest.mark.parametrize("odd", ODD_NUMBERS, ids=str)
def test_numbers_of_steps_pictures_and_the_like(small, odd):
    photo = np.zeros((16, 16, 3), np.uint8)
    said("num_inference_steps", lambda: iterinv.plan("bdia", odd)) if not isinstance(odd, int) or odd is True else None
    if odd is not None:
        said("step", lambda: small.invert(photo, PROMPT, num_inference_steps=odd))
        said("step", lambda: small.sample(PROMPT, odd))
    if odd != 10**9:
        said("num_images_per_prompt", lambda: small.sample(PROMPT, 2, num_images_per_prompt=odd))
        said("batch_size", lambda: small.sample(PROMPT, 2, batch_size=odd))
    said("size", lambda: small.up_to(odd))


@pytest.mark.parametrize("odd", ["3", [[1]], math.nan, math.inf, True, 1j, "x"], ids=str)
def test_guidance(small, odd):
    said("guidance", lambda: iterinv.plan("bdia", 3, odd))
    said("guidance", lambda: small.invert(np.zeros((16, 16, 3), np.uint8), PROMPT, guidance_scale=odd))
    said("guidance_scale", lambda: small.sample(PROMPT, 2, odd))
    said("scale", lambda: iterinv.CFG(odd))


@pytest.mark.parametrize("odd", ["3", 2.5, None, -1, 2**64, [1, "2"]], ids=str)
def test_seeds(small, odd):
    said("seed", lambda: small.sample(PROMPT, 2, seed=odd))
    photos = [np.zeros((16, 16, 3), np.uint8)] * 2
    said("seed", lambda: small.invert(photos, PROMPT, num_inference_steps=2, seed=odd))


@pytest.mark.parametrize("odd", [None, 5, b"a red sphere", ["a", 5], {"a": 1}, np.array(["a"])], ids=str)
def test_prompts(small, inversion, odd):
    photo = np.zeros((16, 16, 3), np.uint8)
    said("prompt", lambda: small.invert([photo, photo], odd, num_inference_steps=2))
    said("prompt", lambda: small.edit(inversion, odd))
    said("prompt", lambda: small.sample(odd, 2))


def test_methods_editors_rules_and_files(small, inversion):
    photo = np.zeros((16, 16, 3), np.uint8)
    for odd in (5, None, iterinv.BDIA(), ["bdia", 5], iterinv.Plan):
        said("method", lambda odd=odd: small.invert(photo, PROMPT, odd))
    for odd in (5, [1], iterinv.FlowEdit):
        said("editor", lambda odd=odd: small.edit(inversion, PROMPT, odd))
    for odd in (5, iterinv.DDIM, [iterinv.DDIM()]):
        said("rule", lambda odd=odd: small.sample(PROMPT, 2, rule=odd))
    said("detail", lambda: small.sample(PROMPT, 2, detail="x"))
    said("detail", lambda: small.sample(PROMPT, 2, detail=1.5))
    said("file", lambda: small.open(5))
    said("gamma", lambda: sampler("bdia", "x"))
    for odd in ("0", 1, -1, None):
        said("picture" if isinstance(odd, int) else "k is", lambda odd=odd: inversion.row(odd),
             kinds=(TypeError, IndexError))  # fmt: skip


PARTS = [
    steps.BDIA, steps.FixedPointBDIA, steps.BDIAHeun, steps.BDIADPMPP, steps.EDICT, steps.Rex, roots.FixedPoint,
    roots.Average, roots.GradientDescent, roots.Damped, roots.Anderson, inverters.Solve, inverters.Relax,
    refine.NullText, refine.Proximal, guidance.CFG, guidance.Proximal, edits.FlowEdit, edits.AdaptiveFlow,
    edits.Automatic, edits.Redraw, edits.FlowRedraw, edits.FromFlow, edits.DiffEdit, edits.PromptSwap, edits.Detail,
    edits.SDEdit, edits.RoundTrip, edits.HEditD, edits.HEditR, edits.FlowAlign, edits.Interpolation, edits.UniEdit,
    edits.PromptToPrompt, edits.PlugAndPlay, edits.MasaCtrl, edits.Pix2PixZero, edits.LEdits,
    edits.FromPrompts, edits.Given, iterinv.Plan,
]  # fmt: skip


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_setting_of_every_part(part):
    """The test passes a bare object, which is no valid setting."""
    for name in part.__dataclass_fields__:
        text = said(name, lambda name=name: part(**{name: object()}), kinds=TypeError)
        assert "object" in text


def test_numpys_numbers_are_numbers(small):
    how = iterinv.plan("bdia", np.int64(3), np.float32(1.5))
    assert (type(how.steps), type(how.guidance)) == (int, float)
    assert iterinv.FlowEdit(strength=np.float64(0.5), averages=np.int32(2)).averages == 2
    assert len(small.sample(PROMPT, np.int64(2), num_images_per_prompt=np.int8(2), seed=np.int64(3))[0]) == 2
    assert small.up_to(np.int64(16)).size == 16


def test_values_are_built_from_json_by_their_kind():
    assert from_json([1, 2], tuple[Count, ...], "x") == (1, 2)
    for value, words in (([0], r"x\[0\] is 0; it is 1 to 10000"), ([1.0], "a float"), (5, "it is a tuple")):
        with pytest.raises((TypeError, ValueError), match=words):
            from_json(value, tuple[Count, ...], "x")
    assert checked(torch.float32, torch.dtype, "x") is torch.float32


def test_samples_drawn_in_blocks_are_those_drawn_at_once(tiny):
    """Six pictures of two prompts are drawn in blocks of four, of one, and all at once; the network receives no larger
    batch."""
    small, batches = tiny.up_to(32), []
    prompts = ["a red cube", "a blue cone"]

    class Watching(Hearing):
        def on_step(self, stage, phase, done, total, timestep, state):
            batches.append(len(state[0]))

    at_once = small.sample(prompts, 3, 2.0, 3, batch_size=6, seed=5)
    for size in (4, 1):
        batches.clear()
        blocks = small.sample(prompts, 3, 2.0, 3, batch_size=size, seed=5, observer=Watching())
        assert max(batches) == size
        for a, b in zip(at_once, blocks, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    assert len(at_once[0]) == 6


def test_what_is_loaded_reopened_and_returned(small, inversion, tmp_path):
    photo = np.zeros((16, 16, 3), np.uint8)
    for name, value in {
        "dtype": "float32", "device": 5, "memory": 16, "noise_level": 2.5, "clean": "yes", "tiled": 1, "variant": 16,
        "revision": 1, "allow_pickle": "no", "local_files_only": None,
    }.items():  # fmt: skip
        said(name, lambda name=name, value=value: iterinv.load(**{name: value}), kinds=TypeError)
    said("list of stages", lambda: iterinv.load([]))
    said("observer", lambda: small.invert(photo, PROMPT, observer=5))
    said("callback_on_step_end", lambda: small.sample(PROMPT, 2, callback_on_step_end=5))
    said("generator", lambda: small.sample(PROMPT, 2, generator=[5]))
    said("output_type", lambda: small.edit(inversion, PROMPT, output_type="jpg"))
    said("output_type", lambda: small(PROMPT, 2, output_type=5))
    said("trajectory", lambda: inversion.save(tmp_path / "a", trajectory="yes"))
    said("cascade", lambda: iterinv.open(tmp_path / "a", 5))
    said("mask", lambda: iterinv.Given(torch.zeros(3)))
    for call in (small.rerun, lambda other: small.edit(other, PROMPT)):
        said("inversion", lambda call=call: call("a.safetensors"))

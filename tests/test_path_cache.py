"""States of one edit are kept beside an inversion file, and the next edit does not compute them again."""

import shutil

import pytest
import torch

from iterinv import path_cache
from iterinv.edits import PromptSwap
from iterinv.store import BadInversion
from iterinv.workbench import EditRequest, InvertRequest, Model, ReopenRequest, Workbench

from conftest import Hearing

PROMPT, TARGET = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"


@pytest.fixture
def saved(tiny, picture, tmp_path):
    tiny.invert(picture, PROMPT, num_inference_steps=6).save(tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def edited(tiny, saved, strength, keep=True):
    """Edit an inversion file, with its file of states; returns the inverting steps and the picture."""
    hearing, file = Hearing(), path_cache.place(saved)
    inversion = tiny.as_needed(tiny.open(saved), path=file, observer=hearing)
    edit = tiny.edit(inversion, TARGET, PromptSwap(strength=strength), observer=hearing)
    if keep:
        path_cache.save(file, inversion)
    return [(stage, done) for stage, phase, done, *_ in hearing.steps if phase == "inverting"], edit.pictures[-1]


def test_the_second_edit_inverts_nothing_and_a_deeper_one_begins_anew(tiny, saved):
    none = path_cache.place(saved)
    assert not none.exists()
    first, picture = edited(tiny, saved, 0.5)
    assert first
    second, again = edited(tiny, saved, 0.5)
    assert second == []
    assert torch.equal(picture, again)
    deeper, there = edited(tiny, saved, 0.9)
    assert len([stage for stage, _ in deeper if stage == deeper[0][0]]) >= 5
    none.unlink()
    _, alone = edited(tiny, saved, 0.9)
    assert torch.equal(there, alone)


def test_states_of_another_inversion_are_not_used(tiny, picture, saved, tmp_path):
    edited(tiny, saved, 0.5)
    tiny.invert(picture.flip(-1), PROMPT, num_inference_steps=6).save(tmp_path / "b.safetensors")
    shutil.copy(path_cache.place(saved), path_cache.place(tmp_path / "b.safetensors"))
    work, _ = edited(tiny, tmp_path / "b.safetensors", 0.5, keep=False)
    assert work


def test_a_damaged_file_is_a_sentence(tiny, saved):
    edited(tiny, saved, 0.5)
    file = path_cache.place(saved)
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    with pytest.raises(
        BadInversion,
        match=r"a\.path\.safetensors holds no states of an edit \(its checksum does not fit .*\): delete it",
    ):
        edited(tiny, saved, 0.5)


def test_a_method_whose_path_is_in_the_file_has_nothing_to_keep(tiny, picture, tmp_path):
    tiny.invert(picture, PROMPT, "ddim", 4).save(tmp_path / "d.safetensors")
    work, _ = edited(tiny, tmp_path / "d.safetensors", 0.5)
    assert work == []
    assert path_cache.place(tmp_path / "d.safetensors").stat().st_size < 1000
    assert edited(tiny, tmp_path / "d.safetensors", 0.5)[0] == []


def test_the_request_keeps_them_and_refuses_where_there_is_no_place(tiny_folder, picture, saved):
    model, source = Model(str(tiny_folder)), ReopenRequest(saved, Model(str(tiny_folder)))
    how = {"editor": "prompt-swap", "force": True}
    Workbench().edit(EditRequest(source, (TARGET,), keep_path=True, **how))
    assert path_cache.place(saved).exists()
    there = InvertRequest(picture, PROMPT, num_inference_steps=4, model=model)
    with pytest.raises(ValueError, match="kept beside an inversion file, and there is none: edit one of these"):
        Workbench().edit(EditRequest(there, (TARGET,), keep_path=True, **how))
    with pytest.raises(ValueError, match="leave out one of the two"):
        Workbench().edit(EditRequest(source, (TARGET,), keep_path=True, keep_inversion=True, **how))

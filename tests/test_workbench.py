"""All front ends call the workbench: they send requests, receive events and get the same bytes."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import iterinv
from iterinv.masks import GivenMask
from iterinv.workbench import (
    CompareRequest,
    EditRequest,
    InvertRequest,
    Model,
    Note,
    Progress,
    ReopenRequest,
    SampleRequest,
    Workbench,
)

PROMPT, TARGET = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    return path


def request(tiny_folder, picture, **settings):
    return InvertRequest(picture, PROMPT, num_inference_steps=4, model=Model(str(tiny_folder)), **settings)


def test_an_edit_emits_its_events_and_returns_its_result(tiny_folder, picture, tmp_path):
    events = []
    result = Workbench(events.append).edit(EditRequest(request(tiny_folder, picture), (TARGET,), keep_inversion=True))
    notes = [event.text for event in events if isinstance(event, Note)]
    steps = [event for event in events if isinstance(event, Progress) and event.phase != "network call"]
    calls = [event.calls for event in events if isinstance(event, Progress) and event.phase == "network call"]
    assert notes == result.notes == result.report()["notes"]
    assert "not square" in notes[0]
    assert {step.phase for step in steps} == {"inverting", "reconstructing", "editing"}
    assert calls == list(range(1, len(calls) + 1))
    report = result.write(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert np.array(Image.open(tmp_path / "edited.png")).shape == (48, 64, 3)


def test_an_edit_of_a_result_inverts_nothing_and_gives_the_same_bytes(tiny_folder, picture, tmp_path):
    source, phases = request(tiny_folder, picture), set()
    edit = EditRequest(source, (TARGET,), "prompt-swap", keep_inversion=True, mask=GivenMask(box=(4, 4, 40, 30)))
    for name in ("whole", "again"):
        (tmp_path / name).mkdir()
    Workbench().edit(edit).write(tmp_path / "whole")
    inverted = Workbench().invert(source)
    bench = Workbench(lambda event: isinstance(event, Progress) and phases.add(event.phase))
    again = bench.edit(edit, inverted)
    again.write(tmp_path / "again")
    assert phases == {"network call", "editing"}
    for name in ("edited.png", "mask.png", "reconstruction.png", "inversion.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert again.notes is bench.notes
    assert inverted.edits == ()
    for (name, one, other), stage in zip(inverted.stage_pictures, inverted.cascade.stages, strict=True):
        assert name == stage.name
        assert one.shape == (stage.size, stage.size, 3)
        assert (one == other).all()  # bdia gives every pixel back


def test_an_edit_of_a_result_is_refused_where_the_model_does_not_know_the_picture():
    source = InvertRequest(np.zeros((64, 64, 3), np.uint8), "a red sphere", num_inference_steps=2)
    inverted = Workbench().invert(source)
    with pytest.raises(ValueError, match="--force"):
        Workbench().edit(EditRequest(source, ("a blue sphere",), "sdedit"), inverted)


def test_a_report_calls_no_network(tiny_folder, picture, monkeypatch):
    result = Workbench().edit(
        EditRequest(
            request(tiny_folder / "stage1", picture, method="null-text", guidance_scale=3.0),
            (TARGET,),
            keep_inversion=True,
        )
    )
    monkeypatch.setattr("iterinv.models.unet.UNetDenoiser.__call__", lambda *_: pytest.fail("a network was called"))
    assert result.report()["stages"][0]["loss"]["guidance"] is not None


def test_work_stops_where_the_face_says_so(tiny_folder, picture):
    calls = []

    class Cancelled(Exception):
        pass

    def emit(event):
        calls.append(event)
        if isinstance(event, Progress) and event.calls == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        Workbench(emit).invert(request(tiny_folder, picture))
    assert calls[-1].calls == 3


def test_two_threads_use_one_cascade(tiny_folder, picture, tmp_path):
    """Each thread receives only its own events, and gets the result that one thread gets."""

    def work(seed):
        events = []
        result = Workbench(events.append).edit(
            EditRequest(request(tiny_folder, picture, seed=seed), (TARGET,), "diffedit")
        )
        return np.array(result.edits[0].images[0]), len(events), result.notes

    alone = [work(seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, range(2)))
    for a, b in zip(alone, together, strict=True):
        assert (a[0] == b[0]).all()
        assert a[1:] == b[1:]


def test_python_and_the_workbench_make_the_same_picture(tiny_folder, picture, tmp_path):
    result = Workbench().edit(EditRequest(request(tiny_folder, picture), (TARGET,)))
    cascade = iterinv.load(str(tiny_folder))
    with pytest.warns(UserWarning, match="not square"):
        inversion = cascade.invert(picture, PROMPT, num_inference_steps=4)
    assert (np.array(cascade.edit(inversion, TARGET).images[0]) == np.array(result.edits[0].images[0])).all()
    inversion.save(tmp_path / "a.safetensors")
    again = Workbench().edit(EditRequest(ReopenRequest(tmp_path / "a.safetensors", Model(str(tiny_folder))), (TARGET,)))
    assert (np.array(again.edits[0].images[0]) == np.array(result.edits[0].images[0])).all()


def test_comparing_and_sampling(tiny_folder, picture):
    bench = Workbench()
    rows = list(bench.compare(CompareRequest(request(tiny_folder, picture), ("bdia", "ddim"))))
    assert [row["method"] for row in rows] == ["bdia", "ddim"]
    pictures = bench.sample(SampleRequest(PROMPT, 2, 3, model=Model(str(tiny_folder))))
    assert [each.size for each in pictures] == [(64, 64)] * 2
    with pytest.raises(ValueError, match="there is no editor 'magic'"):
        bench.edit(EditRequest(request(tiny_folder, picture), (TARGET,), "magic"))
    with pytest.raises(ValueError, match="there is no precision 'int8'"):
        bench.sample(SampleRequest(PROMPT, model=Model(str(tiny_folder), dtype="int8")))


def test_everything_that_is_noted_is_in_the_report(tiny_folder, picture, monkeypatch):
    monkeypatch.setattr("iterinv.edits.automatic.clearness", lambda *_: (-1.0, 1.0))
    result = Workbench().edit(EditRequest(request(tiny_folder, picture), (TARGET,)))
    notes = result.report()["notes"]
    assert notes == result.notes
    assert any("not square" in note for note in notes)
    assert any("the network does not see the target prompt in the result" in note for note in notes)


def test_a_single_prompt_may_be_a_text(tiny_folder, picture):
    result = Workbench().edit(EditRequest(request(tiny_folder, picture), TARGET))
    assert [edit.prompts for edit in result.edits] == [(TARGET,)]
    with pytest.raises(ValueError, match="there is no target prompt"):
        Workbench().edit(EditRequest(request(tiny_folder, picture), ()))


def test_a_mask_is_in_pixels_of_the_picture_or_of_the_inversions_original(tiny_folder, picture, tmp_path):
    box = GivenMask(box=(0, 0, 20, 20))
    one = Workbench().edit(EditRequest(request(tiny_folder, picture), (TARGET,), mask=box))
    Workbench().invert(request(tiny_folder, picture)).inversion.save(tmp_path / "a.safetensors")
    source = ReopenRequest(tmp_path / "a.safetensors", Model(str(tiny_folder)))
    other = Workbench().edit(EditRequest(source, (TARGET,), mask=box))
    assert (np.array(one.edits[0].images[0]) == np.array(other.edits[0].images[0])).all()

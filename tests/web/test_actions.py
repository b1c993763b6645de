"""The page's actions, without a browser and without Gradio: the same bytes as the command line and Python, one
inversion for all edits, sentences for what cannot work, and cancelling."""

import copy
import gc
import io
import json
import shlex
import shutil
import struct
import threading
import zlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iterinv.web import actions, requests, views
from iterinv.web.job import Cancelled, Job
from iterinv.web.session import EDITS, SESSIONS, Place, Session, SharedModel
from iterinv.workbench import InvertRequest, Progress, Workbench

from conftest import build, call, refused

PROMPT, TO = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"
SETTINGS = ("bdia", 3, 1.0, 0, "pad")
OWN = ("", "", "", requests.WORDS, (0, 0, 0, 0), None, False)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """Return the file of a picture of 48 x 80 px, which the tiny cascade works on at 64."""
    path = tmp_path_factory.mktemp("photo") / "my photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def session(tiny_folder, tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    return Session(Place(folder, {"tiny": SharedModel(str(tiny_folder))}))


def run(action):
    """Run an action to its end, and return the last values of the parts and all statuses."""
    values, statuses = {}, []
    for update in action:
        values |= update
        statuses += [update["status"]] if "status" in update else []
    return values, statuses


def inverted(session, photo, prompt=PROMPT, settings=SETTINGS):
    values, statuses = run(actions.invert(session, str(photo), prompt, "tiny", *settings))
    assert session.result is not None, statuses[-1]
    return values


def edited(session, editor, *settings):
    values, statuses = run(actions.edit(session, TO, editor, *(settings or OWN)))
    assert values.get("edited_file"), statuses[-1]
    return values, statuses


def sentence(action, words):
    """Assert that an action says a sentence with these words, and nothing of the server's folders."""
    values, statuses = run(action)
    assert 'role="alert"' in statuses[-1], statuses[-1]
    assert words in statuses[-1]
    assert "/tmp" not in statuses[-1]
    return values


def brushed(height, width):
    """Return the file of a layer that was painted on, of another size than the picture."""
    layer = np.zeros((height, width, 4), np.uint8)
    layer[height // 4 : height // 2, width // 4 :] = 255
    return _png(layer)


def _png(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    "settings",
    [
        ("0.7", "", "1", requests.WORDS, (0, 0, 0, 0), None, True),
        ("1", "2", "", requests.BOX, (10, 8, 40, 30), None, True),
        ("1", "", "", requests.BRUSH, (0, 0, 0, 0), brushed(96, 160), True),
    ],
)
def test_page_command_line_and_python_give_the_same_bytes(session, photo, tmp_path, monkeypatch, settings):
    inverted(session, photo)
    values, _ = edited(session, "sdedit", *settings)
    (entry,) = session.edits
    shutil.copy(photo, tmp_path / photo.name)
    if values["painted_file"]:
        shutil.copy(values["painted_file"], tmp_path)
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(values["command"])
    assert program == "iterinv"
    result = call(*words)
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert (np.array(Image.open(out / "edited.png")) != np.array(Image.open(photo))).any()
    for name in ("edited.png", "mask.png"):
        assert (out / name).read_bytes() == (entry.folder / name).read_bytes(), name
    (reconstruction,) = session.folder.glob("inversion-*/reconstruction.png")
    assert (pixels(out / "reconstruction.png") == pixels(reconstruction)).all()  # its settings name another command
    assert (out / "inversion.safetensors").read_bytes() == _folder_of(session, "inversion", "inversion.safetensors")
    (ours,), (theirs,) = (json.loads((each / "report.json").read_text())["edits"] for each in (entry.folder, out))
    assert ours == theirs
    exec(values["python"], {})
    assert (pixels(tmp_path / "edited.png") == pixels(entry.folder / "edited.png")).all()


def pixels(file):
    return np.array(Image.open(file))


def _folder_of(session, prefix, name):
    (file,) = session.folder.glob(f"{prefix}-*/{name}")
    return file.read_bytes()


def test_a_downloaded_inversion_is_reopened_and_edited_as_it_was(session, photo, tmp_path, monkeypatch):
    values = inverted(session, photo)
    edited(session, "prompt-swap")
    other = copy.deepcopy(session)
    file = shutil.copy(values["inversion_file"], tmp_path / "inversion.safetensors")
    again, _ = run(actions.reopen(other, str(file), "tiny"))
    assert "Every pixel comes back." in again["report"]
    edited(other, "prompt-swap")
    assert (other.edits[0].picture == session.edits[0].picture).all()
    monkeypatch.chdir(tmp_path)
    result = call(*shlex.split(other.edits[0].command)[1:])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "edited.png").read_bytes() == (other.edits[0].folder / "edited.png").read_bytes()
    exec(other.edits[0].python, {})
    assert (pixels(tmp_path / "edited.png") == pixels(other.edits[0].folder / "edited.png")).all()


def test_edits_reuse_the_inversion(session, photo, monkeypatch):
    inversions = []
    own = Workbench.invert
    monkeypatch.setattr(Workbench, "invert", lambda self, *a: inversions.append(a) or own(self, *a))
    inverted(session, photo)
    for editor in ("prompt-swap", "round-trip"):  # which follow the inverted path
        _, statuses = edited(session, editor)
        assert not any("inverting" in each or "reconstructing" in each for each in statuses)
    run(actions.sweep(session, TO, "prompt-swap", "0.5,1", "", "", False))
    assert len(inversions) == 1


def test_stages_report_and_region_are_shown(session, photo):
    values = inverted(session, photo)
    assert "Every pixel comes back." in values["report"]
    assert [name for _, name in values["stage"].properties["choices"]] == ["whole picture", "I", "II", "III"]
    for stage, side in (("I", 256), ("II", 256), ("III", 256)):
        one, other = views.show_stage(session, stage)["slider"]
        assert one == other  # one file, since every pixel comes back
        assert Image.open(one).size == (side, side)
    values, _ = edited(session, "sdedit", "1", "", "", requests.BOX, (20, 12, 40, 24), None, True)
    before, after = (np.array(Image.open(each)) for each in values["after"])
    inside = (np.array(Image.open(values["region"])) != before).any(-1)
    changed = np.array(Image.open(values["difference"])) > 0
    assert ((before != after).any(-1) == changed).all()
    assert changed.any()
    assert inside[changed].all()
    assert 0 < inside.mean() < 1


def test_history_shows_an_edit_again_and_undoes_the_latest(session, photo):
    inverted(session, photo)
    for strength in ("0.4", "0.7", "1"):
        edited(session, "sdedit", strength, *OWN[1:])
    pictures = [each.picture for each in session.edits]
    values = actions.choose(session, 0)
    assert len(values["gallery"]) == 3
    assert "--strength 0.4" in values["command"]
    gone = session.edits[2].folder
    values = actions.undo(session)
    assert len(values["gallery"]) == 2
    assert "--strength 0.7" in values["command"]
    assert (session.edits[1].picture == pictures[1]).all()
    assert not gone.exists()
    actions.undo(session)
    values = actions.undo(session)
    assert values["after"] is None
    assert values["edited_file"] is None
    assert actions.undo(session)["gallery"] == []
    inverted(session, photo, "another prompt")
    assert session.edits == []


def test_methods_are_compared_row_by_row(session, photo):
    values, _ = run(actions.compare(session, str(photo), PROMPT, "tiny", 3, 1.0, 0, "pad", ["bdia", "ddim"]))
    assert values["compare_table"].count("<tr>") == 3
    assert "bdia" in values["compare_table"]
    assert Image.open(values["compare_plot"]).size[0] > 500
    sentence(actions.compare(session, str(photo), PROMPT, "tiny", 3, 1.0, 0, "pad", []), "no method is chosen")


def test_a_sweep_is_the_sheet_of_its_commands(session, photo, tmp_path, monkeypatch):
    inverted(session, photo)
    values, _ = run(actions.sweep(session, TO, "sdedit", "0.5,1", "", "0,1", True))
    cells = json.loads(Path(values["sweep_file"]).read_text())["cells"]
    assert [each["settings"] for each in cells] == [
        {"strength": strength, "seed": seed} for strength in (0.5, 1.0) for seed in (0, 1)
    ]
    assert values["commands"].splitlines() == [each["command"] for each in cells]
    assert Image.open(values["sheet"]).size[1] > 3 * 48
    assert str(session.place.folder) not in values["commands"]
    sentence(actions.sweep(session, TO, "sdedit", "", "", ",".join(map(str, range(99))), True), "at most 60")
    sentence(actions.sweep(session, TO, "sdedit", "a", "", "", True), "finite numbers with commas")


def measured(session, names, sources, uploads=(None, None, None), resize=False):
    action = actions.measure(session, sources, [file and str(file) for file in uploads], names, resize, PROMPT, TO)
    values, statuses = run(action)
    assert "measured" in values, statuses[-1]
    return values


def test_an_edit_is_measured_as_the_command_line_does(session, photo, tmp_path, monkeypatch):
    inverted(session, photo)
    edited(session, "sdedit", "1", "", "", requests.BOX, (10, 8, 40, 30), None, True)
    sources = "the picture", "edit 1", "region of edit 1"
    values = measured(session, ["psnr", "flip", "exact-pixels"], sources)
    report = json.loads(Path(values["measured_json"]).read_text())
    (row,) = report["pictures"]
    assert row["values"]["outside"] == {"psnr": None, "flip": 0.0, "exact-pixels": 1.0}
    assert row["values"]["inside"]["flip"] > 0
    for words in ("psnr", "higher", "0 to inf", "equal", "outside"):
        assert f">{words}<" in values["measured"]
    shutil.copy(photo, tmp_path)
    shutil.copy(session.edits[0].folder / "edited.png", tmp_path / "edit-1.png")
    shutil.copy(session.edits[0].folder / "mask.png", tmp_path / "region-of-edit-1.png")
    monkeypatch.chdir(tmp_path)
    result = call(*shlex.split(values["measured_command"])[1:], "--json", "--csv", "here.csv")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == report
    assert (tmp_path / "here.csv").read_text() == Path(values["measured_csv"]).read_text()


def test_the_map_is_black_where_no_difference_is_seen(session, photo, tmp_path):
    inverted(session, photo)
    values = measured(session, ["mse"], ("the picture", "the reconstruction at the model's size", "none"), resize=True)
    assert np.array(Image.open(values["flip"])).max() > 0
    picture = np.array(Image.open(photo))
    picture[:, 40:] = 0
    Image.fromarray(picture).save(tmp_path / photo.name)
    values = measured(session, ["mse"], ("the picture", "a file", "none"), (None, tmp_path / photo.name, None))
    assert "'other-my photo.png'" in values["measured_command"]
    seen = np.array(Image.open(values["flip"])).max(-1) > 8
    assert seen[:, seen.shape[1] * 3 // 4 :].all()
    assert not seen[:, : seen.shape[1] // 8].any()


def test_what_can_be_measured_follows_the_history(session, photo):
    choices = views.measurable(session)
    assert choices["reference"].properties == {"choices": ["a file"], "value": "a file"}
    assert choices["reference_file"].properties["visible"]
    choices = inverted(session, photo)
    assert choices["compared"].properties["value"] == "the reconstruction at the model's size"
    assert choices["reference"].properties["value"] == "the picture at the model's size"
    edited(session, "sdedit")
    choices, _ = edited(session, "sdedit")
    assert choices["compared"].properties["choices"][-3:] == ["edit 1", "edit 2", "a file"]
    assert choices["compared"].properties["value"] == "edit 2"
    assert choices["reference"].properties["value"] == "the picture"
    assert choices["within"].properties["choices"] == ["none", "region of edit 1", "region of edit 2", "a file"]
    assert "edit 2" not in actions.undo(session)["compared"].properties["choices"]


def test_a_measurement_that_cannot_work_is_a_sentence(session, photo, tmp_path, capsys):
    def refuse(words, names, sources, uploads=(None, None, None)):
        sentence(actions.measure(session, sources, uploads, names, False, "", ""), words)

    both = str(photo), str(photo), None
    refuse("the reference is missing", ["mse"], ("the picture", "a file", "none"), both)
    refuse("the picture is missing", ["mse"], ("a file", "a file", "none"), (str(photo), None, None))
    refuse("the mask is missing", ["mse"], ("a file", "a file", "a file"), both)
    refuse("no metric is chosen", [], ("a file", "a file", "none"), both)
    refuse("no metric &#x27;lpips-alexa&#x27;", ["lpips-alexa"], ("a file", "a file", "none"), both)
    other = tmp_path / "other.png"
    other.write_bytes(_png(np.zeros((20, 20, 3), np.uint8)))
    refuse("--resize", ["mse"], ("a file", "a file", "none"), (str(photo), str(other), None))
    refuse("black all over", ["mse"], ("a file", "a file", "a file"), (str(photo), str(photo), str(other)))
    assert "Traceback" not in capsys.readouterr().err


def test_metrics_that_cannot_run_are_left_out_with_the_reason():
    here, left_out = requests.offered()
    assert {"psnr", "ssim", "flip", "reader"} <= set(here)
    assert not set(here) & set(left_out)
    assert not [name for name in (*here, *left_out) if name.startswith("frechet")]
    assert all(reason for reason in left_out.values())


def test_the_path_is_shown_from_the_noise_to_the_picture(session, photo):
    values = inverted(session, photo, settings=("bdia", 12, 1.0, 0, "pad"))
    captions = [caption for _, caption in values["path"]]
    assert len(captions) == views.FRAMES
    assert (captions[0], captions[-1]) == ("noise", "clean")
    assert values["noise_picture"] == values["path"][0][0]
    assert values["noise"].count("<svg") == 1
    assert "stage III" in values["noise"]
    for k, stage in enumerate(session.result.cascade.stages):
        states = views.frames(session.result, k)
        canvas = views.images.resize(session.result.inversion.canvases[0].covered(), stage.extent)
        assert (states[-1][0] == views.images.to_uint8(canvas)).all()
        inversion = session.result.inversion.stages[k]
        noisy = inversion.noise / (inversion.grid[0].alpha + 2 * inversion.grid[0].sigma)
        assert (states[0][0] == views.images.to_uint8(noisy)).all()
    few = inverted(session, photo, settings=("bdia", 2, 1.0, 0, "pad"))
    assert [caption for _, caption in few["path"]][::2] == ["noise", "clean"]


def huge():
    """Return a PNG file whose header says 100,000 x 100,000 px."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


FILES = {
    "words.png": b"this is no picture",
    "empty.png": b"",
    "huge.png": huge(),
    "cut.png": _png(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))[:900],
    "page.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "small.png": _png(np.zeros((4, 4, 3), np.uint8)),
    "script.png": b"<script>alert(1)</script>",
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_picture_is_a_sentence(session, photo, capsys, name):
    file = session.place.folder / "0a1b" / name
    file.parent.mkdir()
    file.write_bytes(FILES[name])
    sentence(actions.invert(session, str(file), PROMPT, "tiny", *SETTINGS), name)
    assert session.result is None
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "data", [b"", b"no inversion", struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"{}", b"\x80\x04K\x01."]
)
def test_a_hostile_inversion_file_is_a_sentence(session, capsys, data):
    file = session.place.folder / "inversion.safetensors"
    file.write_bytes(data)
    sentence(actions.reopen(session, str(file), "tiny"), "inversion.safetensors")
    assert "Traceback" not in capsys.readouterr().err


def test_an_inversion_of_another_model_is_a_sentence(session, photo, tmp_path):
    values = inverted(session, photo)
    session.place.models["other"] = SharedModel(str(build(tmp_path / "other", seed=1)))
    sentence(actions.reopen(session, values["inversion_file"], "other"), "load that one, or invert the picture again")


def test_an_inversion_that_cannot_work_is_a_sentence(session, photo, capsys):
    sentence(actions.edit(session, TO, "sdedit", *OWN), "there is no inversion")
    sentence(actions.sweep(session, TO, "sdedit", "", "", "", True), "there is no inversion")
    sentence(actions.invert(session, None, PROMPT, "tiny", *SETTINGS), "there is no picture")
    sentence(actions.reopen(session, None, "tiny"), "there is no inversion file")
    sentence(actions.invert(session, str(photo), PROMPT, "/etc", *SETTINGS), "this server has no model")
    sentence(actions.invert(session, str(photo), "a" * 3000, "tiny", *SETTINGS), "3000 characters")
    sentence(actions.invert(session, str(photo), PROMPT, "tiny", "no", 3, 1.0, 0, "pad"), "no")
    assert "Traceback" not in capsys.readouterr().err


def test_an_edit_that_cannot_work_is_a_sentence(session, photo, capsys):
    inverted(session, photo)
    sentence(actions.edit(session, "", "sdedit", *OWN), "the target prompt is empty")
    sentence(actions.edit(session, PROMPT, "sdedit", *OWN), "nothing is asked to change")
    sentence(actions.edit(session, TO, "nobody", *OWN), "there is no editor")
    sentence(actions.edit(session, TO, "sdedit", "much", *OWN[1:]), "the strength is")
    sentence(actions.edit(session, TO, "sdedit", "", "", "-1", *OWN[3:]), "the seed is")
    sentence(actions.edit(session, TO, "sdedit", "", "nan", *OWN[2:]), "the guidance is")
    sentence(actions.edit(session, TO, "sdedit", *OWN[:3], requests.BRUSH, (), None, True), "nothing is brushed")
    sentence(actions.edit(session, TO, "sdedit", *OWN[:3], requests.BRUSH, (), huge(), True), "region.png")
    sentence(actions.edit(session, TO, "sdedit", *OWN[:3], requests.BOX, (70, 0, 64, 64), None, True), "outside")
    sentence(actions.edit(session, TO, "sdedit", *OWN[:3], requests.BOX, (None,) * 4, None, True), "at least 1 x 1")
    assert session.edits == []
    assert "Traceback" not in capsys.readouterr().err


def test_work_stops_before_the_network_call_at_which_it_is_cancelled(photo, tiny_folder):
    stop, benches = threading.Event(), []

    def work(bench):
        emit = bench.emit

        def at_the_seventh_call(event):
            if isinstance(event, Progress) and event.phase == "network call" and event.calls == 7:
                stop.set()
            emit(event)

        bench.emit = at_the_seventh_call
        benches.append(bench)
        return bench.invert(InvertRequest(photo, PROMPT, model=SharedModel(str(tiny_folder))))

    job = Job(work, stop)
    for _ in job:
        pass
    with pytest.raises(Cancelled):
        job.result()
    assert benches[0].calls == 7  # the seventh was announced, and not made


def tensors():
    gc.collect()
    return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())


def test_work_that_fails_leaves_no_memory(session, photo):
    inverted(session, photo)
    before = tensors()

    def work(bench):
        emit = bench.emit

        def fail_at_the_hundredth_call(event):
            if isinstance(event, Progress) and event.calls == 100:
                raise ArithmeticError("the state is not finite")
            emit(event)

        bench.emit = fail_at_the_hundredth_call
        return bench.invert(InvertRequest(photo, PROMPT, num_inference_steps=40, model=session.source.model))

    job = Job(work, threading.Event())
    for _ in job:
        pass
    with pytest.raises(ArithmeticError, match="not finite"):
        job.result()
    assert tensors() <= before


def test_cancelled_work_leaves_the_earlier_inversion_and_no_memory(session, photo):
    inverted(session, photo)
    earlier, before = session.result, tensors()
    work = actions.invert(session, str(photo), PROMPT, "tiny", "bdia", 150, 1.0, 0, "pad")
    for update in work:
        if "stage I" in update.get("status", ""):
            break
    actions.cancel(session)
    values, statuses = run(work)
    assert "Cancelled" in statuses[-1]
    assert "slider" not in values
    assert session.result is earlier
    assert tensors() <= before
    edited(session, "sdedit")


def test_work_ends_where_the_page_is_closed(session, photo):
    before = set(threading.enumerate())
    work = actions.invert(session, str(photo), PROMPT, "tiny", "bdia", 150, 1.0, 0, "pad")
    for update in work:
        if "stage I" in update.get("status", ""):
            break
    work.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()
    assert session.result is None


def test_visitors_share_nothing(session, photo):
    inverted(session, photo)
    edited(session, "sdedit")
    other = copy.deepcopy(session)
    assert (other.result, other.source, other.edits) == (None, None, [])
    assert other.folder != session.folder
    inverted(other, photo, "something else")
    assert session.source.prompt == PROMPT
    other.close()
    assert not other._folder.exists()
    assert session.edits[0].folder.is_dir()
    assert actions.choose(session, 0)["edited_file"]


def test_the_visitor_of_longest_ago_loses_the_inversion_first(session, photo):
    inverted(session, photo)
    others = [copy.deepcopy(session) for _ in range(SESSIONS)]
    for other in others[:-1]:
        other.begin()
    assert session.result is not None
    others[-1].begin()
    assert session.result is None
    sentence(actions.edit(session, TO, "sdedit", *OWN), "there is no inversion")
    session.place.close()
    assert all(other.stop.is_set() for other in others)


def test_files_of_earlier_work_are_removed(session, photo, tmp_path):
    upload = shutil.copy(photo, tmp_path / "upload.png")
    inverted(session, upload)
    edited(session, "sdedit")
    upload.unlink()
    edited(session, "sdedit")  # from the session's own copy
    for _ in range(2):
        run(actions.sweep(session, TO, "sdedit", "1", "", "", True))
    kinds = sorted(each.name.split("-")[0] for each in session.folder.iterdir())
    assert kinds == ["edit", "edit", "inversion", "shown", "sweep"]
    inverted(session, photo)
    assert sorted(each.name.split("-")[0] for each in session.folder.iterdir()) == ["inversion", "shown"]


def test_a_picture_that_is_shown_is_written_once(session, photo):
    values = inverted(session, photo)
    edited(session, "sdedit")
    files = {*values["slider"], *actions.choose(session, 0)["after"]}
    before = {file: Path(file).stat().st_mtime_ns for file in files}
    assert views.to_paint_on(session) in files
    actions.choose(session, 0)
    views.show_stage(session, None)
    assert {file: Path(file).stat().st_mtime_ns for file in files} == before


def test_history_is_bounded(session, photo):
    inverted(session, photo)
    edited(session, "sdedit")
    (entry,) = session.edits
    for number in range(EDITS + 3):
        session.add(replace(entry, number=number, folder=session.new_folder("edit")))
    assert len(session.edits) == EDITS
    assert len(list(session.folder.glob("edit-*"))) == EDITS


@pytest.mark.skipif(find_spec("gradio") is not None, reason="gradio is installed")
def test_a_missing_gradio_is_a_sentence_with_its_command():
    refused("pip install 'iterinv[web]'", "serve")


def test_text_of_visitors_is_escaped(session, photo):
    hostile = "<script>alert(1)</script> & 'sphere'"
    inverted(session, photo, hostile)
    values, _ = edited(session, "sdedit")
    run(actions.edit(session, hostile + ", blue", "sdedit", *OWN))
    values = actions.choose(session, 1)
    assert "<script>" not in values["edit_report"]
    assert "&lt;script&gt;" in values["edit_report"]
    assert shlex.split(values["command"])[4] == hostile

"""Evaluations are killed, cut off, continued and refused. The rows of a run that was stopped are those of one that was
not, byte for byte."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import iterinv
from iterinv import estimates
from iterinv.evaluate import measures
from iterinv.evaluate.rows import RESULTS, TIMINGS, Key, rows, sort
from iterinv.evaluate.run import evaluate
from iterinv.evaluate.worker import Evaluation, Job, Worker
from iterinv.files import CannotWrite
from iterinv.images import to_uint8
from iterinv.metrics import psnr
from iterinv.workbench import Model

from conftest import call, refused

DATA = "scene-edit:wall,recolour"


@pytest.fixture(scope="module")
def evaluation(tiny_folder):
    names = ("bdia", "direct"), ("prompt-swap",), ("psnr", "ssim", "mse", "leakage", "ghost")
    return Evaluation(DATA, Model(str(tiny_folder)).load, *names, steps=2, size=32, count=2, threads=1)


@pytest.fixture(scope="module")
def whole(evaluation, tmp_path_factory):
    """Return the folder of a run that was not stopped."""
    folder = tmp_path_factory.mktemp("whole")
    list(evaluate(evaluation, folder))
    return folder


def words(tiny_folder, out, *more):
    options = {"--data": DATA, "--methods": "bdia,direct", "--editors": "prompt-swap", "--steps": 2, "--size": 32}
    options |= {"--metrics": "psnr,ssim,mse,leakage,ghost", "--count": 2, "--threads": 1, "--model": tiny_folder}
    flat = [str(word) for pair in options.items() for word in pair]
    return ["evaluate", *flat, "--out", str(out), *map(str, more)]


def test_every_task_method_and_editor_has_a_row(evaluation, whole):
    every = list(rows(whole))
    assert [Key.of(row) for row in every] == sorted(Key.of(row) for row in every)
    assert len(every) == 2 * 2 * 2
    kinds = {row["task"]: row["kind"] for row in every}
    assert sorted(kinds.values()) == ["recolour", "wall"]
    for row in every:
        assert row["error"] is None
        parts = ("source", "outside", "truth", "inside")
        names = [f"{name}_{part}" for name in ("psnr", "ssim", "mse") for part in parts] + ["leakage", "ghost"]
        assert list(row["metrics"]) == (names if row["editor"] else ["psnr", "ssim", "mse"])
        assert set(row) == {"task", "kind", "method", "editor", "picture", "metrics", "calls", "error"}
    seconds = [json.loads(line) for line in (whole / TIMINGS).read_text().splitlines()]
    assert sorted(Key.of(each) for each in seconds) == sorted(Key.of(row) for row in every)


def test_the_figures_are_those_of_the_pictures(evaluation, whole):
    """The measures are computed again from the pictures that were kept and the rendered answers."""
    worker = Worker(evaluation)
    for row in rows(whole):
        task = worker.dataset.make(list(worker.dataset.keys).index(row["task"]), 32)
        name = row["method"] + (f"+{row['editor']}" if row["editor"] else "")
        kept = {
            name: np.asarray(Image.open(whole / "pictures" / row["task"] / f"{name}.png")) for name in ("source", name)
        }
        assert np.array_equal(kept["source"], task.picture)
        inside, now = task.mask > 0, kept[name]
        if row["editor"] is None:
            assert row["metrics"]["psnr"] == psnr(task.picture, now)
            continue
        assert row["metrics"]["psnr_outside"] == psnr(task.picture, now, ~inside)
        assert row["metrics"]["psnr_inside"] == psnr(task.truth, now, inside)
        square = (task.truth.astype(float) - now)[inside] ** 2 / 255**2
        assert row["metrics"]["mse_inside"] == pytest.approx(square.mean())
        change = np.abs(task.picture.astype(int) - now).sum(-1)
        expected = change[~inside].sum() / change.sum() if change.any() else None
        assert row["metrics"]["leakage"] == pytest.approx(expected)


def test_network_calls_are_those_of_the_report_and_of_an_observer(evaluation, tiny, whole):
    from conftest import Hearing

    worker, by_key = Worker(evaluation), {Key.of(row): row for row in rows(whole)}
    task, cascade = worker.dataset.make(0, 32), tiny.up_to(32)
    for method in evaluation.methods:
        inversion = cascade.invert(task.picture, task.prompt, method, 2, observer=Hearing())
        forward = sum(stage.report.forward for stage in inversion.stages)
        assert by_key[task.key, method, ""]["calls"] == {"forward": forward, "backward": 0}
        hearing = Hearing()
        cascade.edit(inversion, task.target, "prompt-swap", observer=hearing)
        # Guidance evaluates the network twice a call at the first stage, and once above it.
        calls = by_key[task.key, method, "prompt-swap"]["calls"]
        assert len(hearing.calls) <= calls["forward"] <= 2 * len(hearing.calls)
        assert calls["backward"] == 0


def test_backward_calls_are_counted(tiny_folder, tmp_path):
    how = Evaluation("scenes", Model(str(tiny_folder)).load, ("iterinv",), steps=2, size=16, count=1)
    list(evaluate(how, tmp_path))
    (row,) = rows(tmp_path)
    assert row["calls"]["backward"] > 0


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tiny_folder, whole, tmp_path):
    """Each run is killed once its first row of this run is there, or earlier; processes take turns with one."""
    draw, killed = random.Random(0), 0
    for k in range(4):
        command = [sys.executable, "-m", "iterinv", *words(tiny_folder, tmp_path, "--processes", 1 + k % 2)]
        before = (tmp_path / RESULTS).stat().st_size if (tmp_path / RESULTS).exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (
            not (tmp_path / RESULTS).exists() or (tmp_path / RESULTS).stat().st_size == before
        ):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    subprocess.run([sys.executable, "-m", "iterinv", *words(tiny_folder, tmp_path)], check=True, capture_output=True)
    assert (tmp_path / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()
    assert pictures(tmp_path) == pictures(whole)


def pictures(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.png"))}


def test_a_run_that_is_killed_in_a_child_goes_on(evaluation, whole, tmp_path):
    """The child kills itself after a drawn number of rows, in the midst of a line."""
    stop = random.Random(1).randrange(1, 7)
    child = os.fork()
    if child == 0:
        try:
            for k, _ in enumerate(evaluate(evaluation, tmp_path)):
                if k == stop:
                    with open(tmp_path / RESULTS, "ab") as file:
                        file.write(b'{"task": "scene-edit/wall/22')
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    progress = list(evaluate(evaluation, tmp_path))
    assert (progress[0].done, progress[0].total, len(progress)) == (stop, 8, 9 - stop)
    assert (tmp_path / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()
    assert pictures(tmp_path) == pictures(whole)


@pytest.mark.parametrize("cut", ["newline", "half", "other", "twice"])
def test_lines_that_are_damaged_are_done_again(evaluation, whole, tmp_path, cut):
    full = (whole / RESULTS).read_bytes()
    lines = full.splitlines(keepends=True)
    damaged = {
        "newline": full[:-1],
        "half": full[: -len(lines[-1]) // 2],
        "other": b"".join([*lines[:3], b'{"task": 3}\n', b"null\n", b"\xff\n", *lines[4:]]),
        "twice": full + lines[0] + lines[5],
    }[cut]
    (tmp_path / "settings.json").write_bytes((whole / "settings.json").read_bytes())
    (tmp_path / RESULTS).write_bytes(damaged)
    progress = list(evaluate(replace(evaluation), tmp_path))
    assert len(progress) == (1 if cut == "twice" else 2)
    assert (tmp_path / RESULTS).read_bytes() == full


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(evaluation, whole, tmp_path):
    list(evaluate(evaluation, tmp_path, processes=2))
    assert (tmp_path / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()
    manifests = [json.loads((folder / "manifest.json").read_bytes()) for folder in (whole, tmp_path)]
    unlike = {key for key in manifests[0] if manifests[0][key] != manifests[1][key]}
    assert unlike == {"processes"}


def test_a_run_may_be_continued_with_more_tasks(evaluation, whole, tmp_path):
    list(evaluate(replace(evaluation, count=1), tmp_path))
    assert [each.done for each in evaluate(evaluation, tmp_path)] == [4, 5, 6, 7, 8]
    assert (tmp_path / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()


def test_other_settings_are_refused_with_the_difference(evaluation, whole):
    before = (whole / RESULTS).read_bytes()
    for change, words in (
        ({"steps": 3}, r"another steps \(2 there, 3 now\)"),
        ({"metrics": ("psnr",)}, r"another metrics \(psnr,ssim,mse,leakage,ghost there, psnr now\)"),
        (
            {"size": 16, "seed": 4},
            r"another model \(.* there, .* now\), px \(32 there, 16 now\), seed \(0 there, 4 now\)",
        ),
        ({"give_mask": True}, r"another give_mask \(false there, true now\)"),
        ({"data": "scenes", "editors": ()}, "another content .* dataset .* editors"),
    ):
        with pytest.raises(ValueError, match=words):
            list(evaluate(replace(evaluation, **change), whole))
    assert (whole / RESULTS).read_bytes() == before


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_picture_that_fails_is_a_row_with_the_reason(tiny_folder, tmp_path, processes):
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (40, 30), "red").save(data / "good.png")
    (data / "bad.png").write_bytes(b"no picture")
    rows_ = [{"file": name, "prompt": "a cat", "target": "a dog"} for name in ("bad.png", "good.png")]
    (data / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows_)))
    how = Evaluation(str(data), Model(str(tiny_folder)).load, ("bdia",), ("prompt-swap",), steps=2, size=16, threads=1)
    list(evaluate(how, tmp_path / "out", processes))
    bad, bad_edit, good, good_edit = rows(tmp_path / "out")
    assert bad["error"] == bad_edit["error"]
    assert "bad.png" in bad["error"]
    assert bad["metrics"] is bad["calls"] is bad_edit["metrics"] is None
    assert good["error"] is good_edit["error"] is None
    assert good["metrics"]["mse"] == 0
    assert next(evaluate(how, tmp_path / "out")).done == 4


def test_a_true_answer_and_a_mask_of_the_pictures_own_size_are_brought_to_the_models(tiny_folder, tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a.png", "truth.png"):
        Image.fromarray(generator.integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / name)
    mask = np.zeros((48, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    row = {"file": "a.png", "prompt": "a cat", "target": "a dog", "mask": "mask.png", "truth": "truth.png"}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row))
    how = Evaluation(str(tmp_path), Model(str(tiny_folder)).load, ("bdia",), ("prompt-swap",), steps=2, size=32)
    list(evaluate(replace(how, give_mask=True), tmp_path / "out"))
    kept = tmp_path / "out" / "pictures" / "a.png"
    source, edited, truth = (
        np.asarray(Image.open(kept / f"{name}.png")) for name in ("source", "bdia+prompt-swap", "truth")
    )
    assert source.shape == truth.shape == (24, 32, 3)
    inside = np.zeros((24, 32), bool)
    inside[:, :16] = True
    _, edit = rows(tmp_path / "out")
    assert edit["metrics"]["psnr_inside"] == psnr(truth, edited, inside)
    assert edit["metrics"]["mse_outside"] == 0  # the editor was given the mask


def test_metrics_of_an_edit_are_limited_to_their_parts():
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 256, (2, 32, 32, 3), np.uint8)
    inside = np.zeros((32, 32), bool)
    inside[8:20, 4:30] = True
    values = measures.of_edit(["mse", "exact-pixels", "max-abs", "st-lpips"], a, b, inside)
    assert values["mse_outside"] == pytest.approx(((a.astype(float) - b)[~inside] ** 2).mean() / 255**2)
    only_inside = np.where(inside[..., None], b, a)
    values = measures.of_edit(["mse", "exact-pixels", "max-abs", "st-lpips"], a, only_inside, inside)
    assert values["mse_outside"] == values["st-lpips_outside"] == values["max-abs_outside"] == 0
    assert values["exact-pixels_outside"] == 1
    assert values["st-lpips_source"] > 0
    everywhere = measures.of_edit(["psnr", "mse"], a, b, np.ones((32, 32), bool))
    assert everywhere["psnr_outside"] is everywhere["mse_outside"] is None
    assert measures.better("psnr_inside") == "higher"
    assert measures.better("st-lpips_truth") == measures.better("leakage") == "lower"
    assert measures.better("psnr_source") == measures.better("sharpness") == ""


def test_each_stage_may_have_its_own_method_and_guidance(evaluation, tiny, tmp_path):
    how = replace(evaluation, methods=("ddim:bdia",), editors=(), guidance=(3.0, 1.0), count=1)
    list(evaluate(how, tmp_path))
    ((row,), worker) = list(rows(tmp_path)), Worker(how)
    task = worker.dataset.make(0, 32)
    inversion = tiny.up_to(32).invert(task.picture, task.prompt, ["ddim", "bdia"], 2, [3.0, 1.0])
    assert row["metrics"]["psnr"] == psnr(task.picture, to_uint8(inversion.picture))
    assert row["calls"]["forward"] == sum(stage.report.forward for stage in inversion.stages)
    assert next(evaluate(how, tmp_path)).done == 1  # the settings are read again as they were written
    with pytest.raises(ValueError, match="ddim:bdia:bdia: 3 methods or guidance scales for 2 stages"):
        next(evaluate(replace(how, methods=("ddim:bdia:bdia",), guidance=1.0), tmp_path / "b"))
    with pytest.raises(ValueError, match="there is no method 'magic'"):
        next(evaluate(replace(how, methods=("ddim:magic",), guidance=1.0), tmp_path / "c"))


def test_a_budget_sets_the_steps_of_each_method(evaluation, tiny, tmp_path):
    methods = ("bdia", "ddim", "edict", "iterinv")
    how = replace(evaluation, methods=methods, editors=(), count=1, budget=70, metrics=("mse",))
    list(evaluate(how, tmp_path))
    steps = json.loads((tmp_path / "settings.json").read_text())["steps"]
    # bdia: 2N - 1 calls a stage; ddim: 2N; edict: 4N; iterinv: 21 forward and backward a level, and N forward
    assert steps == {"bdia": "35,35", "ddim": "35,35", "edict": "17,17", "iterinv": "1,1"}
    for row in rows(tmp_path):
        assert row["error"] is None
        work = row["calls"]["forward"] + 2 * row["calls"]["backward"]
        assert work <= 2 * 70
        assert row["method"] != "ddim" or work == 2 * 70
    assert next(evaluate(how, tmp_path)).done == len(methods)
    with pytest.raises(ValueError, match="iterinv: iterinv takes 64 calls in 1 step"):
        next(evaluate(replace(how, budget=20), tmp_path / "b"))
    with pytest.raises(ValueError, match=r"another budget \(70 there, 300 now\)"):
        next(evaluate(replace(how, budget=300), tmp_path))


def test_names_that_there_are_not_are_refused_before_a_model_loads(evaluation, tmp_path):
    def load():
        raise AssertionError("a model is loaded")

    for change, words in (
        ({"methods": ("magic",)}, "there is no method 'magic'"),
        ({"editors": ("magic",)}, "there is no editor 'magic'"),
        ({"metrics": ("magic",)}, "there is no metric 'magic'"),
        ({"metrics": ()}, "there are no metrics"),
        ({"methods": ("bdia", "bdia")}, "the method bdia is given twice"),
        ({"data": "scenes"}, "nothing to edit"),
        ({"data": "nothing"}, "there is no dataset nothing"),
        ({"fit": "stretch"}, "fit 'stretch'"),
    ):
        with pytest.raises(ValueError, match=words):
            list(evaluate(replace(evaluation, load=load, **change), tmp_path / "out"))
    with pytest.raises(ValueError, match="processes is 0"):
        list(evaluate(replace(evaluation, load=load), tmp_path / "out", 0))
    assert not (tmp_path / "out").exists()


def test_two_runs_do_not_write_to_one_folder(evaluation, tmp_path):
    first = evaluate(evaluation, tmp_path)
    next(first)
    with pytest.raises(OSError, match="another run is writing"):
        next(evaluate(evaluation, tmp_path))
    first.close()
    next(evaluate(evaluation, tmp_path))


@pytest.mark.slow
def test_a_process_that_ends_is_a_sentence(evaluation, tmp_path):
    from iterinv.evaluate.workers import Workers

    with Workers(evaluation, 2) as workers:
        workers.facts()
        for process, _ in workers.pairs:
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(OSError, match=r"a process of this evaluation ended \(exit code -9\)"):
            list(workers.rows(iter([Job(0, "bdia", (None,))])))
    assert all(process.exitcode == -9 for process, _ in workers.pairs)


@pytest.mark.slow
def test_what_a_process_refuses_is_raised_here(evaluation):
    from iterinv.evaluate.workers import Workers

    with pytest.raises(ValueError, match="no stage is of 77 px"), Workers(replace(evaluation, size=77), 2) as workers:
        workers.facts()


def test_a_model_that_cannot_be_loaded_leaves_no_folder(evaluation, tmp_path):
    how = replace(evaluation, load=Model(str(tmp_path / "none")).load)
    with pytest.raises(FileNotFoundError):
        next(evaluate(how, tmp_path / "a" / "b"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_sentence(evaluation, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot be written"):
        list(evaluate(evaluation, tmp_path / "file" / "out"))


def test_sorting_leaves_an_empty_folder_alone(tmp_path):
    sort(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_rows_and_a_report(tiny_folder, whole, tmp_path):
    result = call(*words(tiny_folder, tmp_path))
    assert result.exit_code == 0, result.output
    assert (tmp_path / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()
    assert "rows 8 of 8, 0 s left" in result.output
    assert "bdia + prompt-swap" in result.output
    assert {"report.html", "report.md", "manifest.json"} <= {each.name for each in tmp_path.iterdir()}
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    assert manifest["load_name"] == str(tiny_folder)
    assert manifest["threads"] == 1
    refused("another steps (2 there, 3 now)", *(3 if word == "2" else word for word in words(tiny_folder, tmp_path)))


def test_run_may_be_left_out_and_other_commands_may_not():
    for leading in (["evaluate"], ["evaluate", "run"]):
        result = call(*leading, "--data", "scenes", "--out", "x", "--methods", "magic")
        assert result.exit_code == 2
        assert "there is no method 'magic'" in result.output
    assert "Compare samples" in call("evaluate", "--help").output
    assert "is given twice" in call("evaluate", "--data", "a", "--data", "b", "--out", "x").output
    assert call("evaluate", "--out", "x").exit_code == 2


def test_seconds_set_a_budget_that_a_run_keeps_when_it_goes_on(made, tiny_folder, tmp_path, monkeypatch):
    """The machine is twice as fast when the run goes on."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes((made / "photo.png").read_bytes())
    (data / "a.txt").write_text("a red sphere")
    words = "evaluate", "--data", data, "--model", tiny_folder, "--methods", "bdia,ddim", "--metrics", "mse"
    words = *words, "--threads", 1, "--out", tmp_path / "out"
    monkeypatch.setattr(estimates, "_seconds", lambda stage: 0.5)
    result = call(*words, "--seconds", 24)
    assert result.exit_code == 0, result.output
    before = json.loads((tmp_path / "out" / "settings.json").read_text())
    calls = 24 / 0.5 / len(iterinv.load(tiny_folder).stages)
    assert (before["seconds"], before["budget"]) == (24, int(calls))
    monkeypatch.setattr(estimates, "_seconds", lambda stage: 0.25)
    assert call(*words, "--seconds", 24).exit_code == 0
    assert json.loads((tmp_path / "out" / "settings.json").read_text()) == before
    refused("another budget", *words, "--seconds", 20)
    refused("give it or --budget", *words, "--seconds", 24, "--budget", 9)
    refused("one call of each stage takes", *words[:-1], tmp_path / "b", "--seconds", 0.1)

"""Both faces of one job: the console script as a user runs it, and `iterinv.app` as a front end calls it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from iterinv import app, store
from iterinv.cascade import Plan
from iterinv.cli import app as command
from iterinv.edits import DiffEdit
from iterinv.images import Frame

PROMPT, TO = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"
FILES = {
    "original.png", "reconstruction.png", "edited.png", "mask.png", "comparison.png", "report.json", "inversion.safetensors",
}  # fmt: skip


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def done(tiny_folder, photo, tmp_path_factory):
    out = tmp_path_factory.mktemp("done")
    result = call("edit", photo, "--prompt", PROMPT, "--to", TO, "--out", out, "--steps", 5, "--model", tiny_folder)
    assert result.exit_code == 0, result.output
    return out, result


def call(*words):
    return CliRunner().invoke(command, [str(word) for word in words])


def refused(words, *args):
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split()), result.output
    assert "Traceback" not in result.output


def test_edit_writes_its_seven_files_and_a_short_report(done):
    out, result = done
    assert {file.name for file in out.iterdir()} == FILES
    assert all(os.stat(file).st_mode & 0o444 == 0o444 for file in out.iterdir())
    assert "reconstruction: exact, 100.00% of pixels equal" in result.output
    sizes = {name: Image.open(out / f"{name}.png").size for name in ("original", "reconstruction", "edited", "mask")}
    assert set(sizes.values()) == {(64, 48)}
    original, again = (np.array(Image.open(out / f"{name}.png")) for name in ("original", "reconstruction"))
    assert (original == again).all()


def test_the_background_of_an_edit_is_the_pictures_own(done):
    out, _ = done
    original, edited, mask = (np.array(Image.open(out / f"{name}.png")) for name in ("original", "edited", "mask"))
    assert (original[mask == 0] == edited[mask == 0]).all()
    told = json.loads((out / "report.json").read_text())["edit"]
    assert told["background_exact_pixels"] == 1.0
    assert told["mask"] == pytest.approx((mask > 0).mean())


def test_the_report_has_the_keys_that_other_tools_rely_on(done):
    told = json.loads((done[0] / "report.json").read_text())
    for key in ("method", "steps", "guidance", "stages", "reconstruction", "seconds", "peak_memory_mb", "versions", "seed"):
        assert key in told
    assert (told["method"], told["steps"], told["guidance"], told["seed"]) == ("bdia", 5, 1.0, 0)
    assert [s["size"] for s in told["stages"]] == [16, 32, 64]
    for stage in told["stages"]:
        assert stage["network_calls"] == {"forward": 9, "backward": 0}
        assert set(stage["terminal_noise"]) == {"mean", "std", "kurtosis", "autocorrelation"}
        assert stage["seconds"] >= 0
        assert stage["residual_max"] < 1e-9
        assert stage["reconstruction"]["exact_pixels"] == 1.0
    assert told["reconstruction"] == {"mse": 0.0, "psnr": None, "ssim": 1.0, "max_abs_8bit": 0, "exact_pixels": 1.0}
    assert 100 < told["peak_memory_mb"] < 20_000
    assert set(told["versions"]) >= {"iterinv", "torch", "diffusers", "transformers"}


def test_three_commands_do_what_one_does_with_equal_bytes(done, tiny_folder, photo, tmp_path):
    one, _ = done
    model = ("--model", tiny_folder)
    a, b, c = (tmp_path / name for name in "abc")
    assert call("invert", photo, "--prompt", PROMPT, "--steps", 5, "--out", a, *model).exit_code == 0
    assert call("reconstruct", a / "inversion.safetensors", "--out", b, *model).exit_code == 0
    assert call("edit", "--inversion", a / "inversion.safetensors", "--to", TO, "--out", c, *model).exit_code == 0
    assert {file.name for file in a.iterdir()} == {"original.png", "inversion.safetensors", "report.json"}
    assert {file.name for file in b.iterdir()} == {"original.png", "reconstruction.png", "report.json"}
    assert {file.name for file in c.iterdir()} == FILES
    for folder in (a, b, c):
        for file in folder.iterdir():
            if file.name != "report.json":
                assert file.read_bytes() == (one / file.name).read_bytes(), file


def test_the_command_line_and_the_library_make_the_same_bytes(done, tiny, photo):
    out, _ = done
    frame, _ = Frame.fit(np.array(Image.open(photo)), 64)
    inversion = tiny.invert(frame.square(), PROMPT, Plan.of("bdia", 5))
    edited = tiny.edit(inversion, TO, DiffEdit())
    assert (frame.place(edited.pictures[-1]) == np.array(Image.open(out / "edited.png"))).all()
    again = store.open_(out / "inversion.safetensors", tiny)
    assert (again.inversion.stages[2].state[0] == inversion.stages[2].state[0]).all()


@pytest.mark.parametrize("method", ["ddim", "iterinv"])
def test_other_methods_by_name(tiny_folder, photo, tmp_path, method):
    words = "invert", photo, "--prompt", PROMPT, "--steps", 4, "--method", method, "--out", tmp_path, "--model", tiny_folder
    assert call(*words).exit_code == 0
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["method"] == method
    if method == "ddim":  # one fixed-point iteration measures no error, and loses this picture
        assert told["reconstruction"]["exact_pixels"] < 1
        assert told["reconstruction"]["psnr"] is not None
        assert told["stages"][0]["root_error_max"] is None
    else:
        assert told["stages"][0]["root_error_max"] < 1e-3


def test_prompt_swap_has_no_mask(tiny_folder, done, tmp_path):
    file = done[0] / "inversion.safetensors"
    words = "edit", "--inversion", file, "--to", TO, "--out", tmp_path, "--editor", "prompt-swap", "--strength", 0.5
    assert call(*words, "--model", tiny_folder).exit_code == 0
    assert (np.array(Image.open(tmp_path / "mask.png")) == 255).all()
    told = json.loads((tmp_path / "report.json").read_text())["edit"]
    assert (told["editor"], told["strength"]) == ("PromptSwap", 0.5)
    assert "mask" not in told


def test_sample_draws(tiny_folder, tmp_path):
    result = call("sample", PROMPT, "--steps", 3, "--count", 2, "--out", tmp_path, "--model", tiny_folder)
    assert result.exit_code == 0
    assert [Image.open(tmp_path / f"sample-{k}.png").size for k in range(2)] == [(64, 64)] * 2


def test_bad_input_is_a_sentence_and_nothing_is_written(tiny_folder, photo, done, tmp_path):
    out, model = tmp_path / "out", ("--model", tiny_folder)
    prompts = "--prompt", PROMPT, "--to", TO, "--out", out
    refused("there is no file", "edit", tmp_path / "none.png", *prompts, *model)
    (tmp_path / "text.png").write_text("hello")
    refused("not a picture that Pillow can read", "edit", tmp_path / "text.png", *prompts, *model)
    refused("--prompt is empty", "edit", photo, "--prompt", "  ", "--to", TO, "--out", out, *model)
    refused("--to is empty", "edit", photo, "--prompt", PROMPT, "--to", "", "--out", out, *model)
    refused("--prompt is missing", "edit", photo, "--to", TO, "--out", out, *model)
    refused("give a picture to edit, or an inversion", "edit", "--to", TO, "--out", out, *model)
    file = done[0] / "inversion.safetensors"
    refused("give a picture to edit, or an inversion", "edit", photo, "--inversion", file, *prompts, *model)
    refused("there is no method 'edict'", "edit", photo, *prompts, "--method", "edict", *model)
    refused("there is no editor 'magic'", "edit", photo, *prompts, "--editor", "magic", *model)
    refused("strength is 2.0", "edit", photo, *prompts, "--strength", 2, *model)
    refused("not one of pad, crop", "edit", photo, *prompts, "--fit", "stretch", *model)
    refused("2000 steps do not fit", "edit", photo, *prompts, "--steps", 2000, *model)
    refused("holds no cascade.json", "edit", photo, *prompts, "--model", tmp_path)
    refused("truncated or not an inversion", "reconstruct", photo, "--out", out, *model)
    refused("the prompt is empty", "sample", " ", "--out", out, *model)
    refused("there is no part 'IV'", "train", "IV", "--out", tmp_path / "train")
    assert not out.exists()


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_work(tiny_folder, photo, tmp_path):
    (tmp_path / "file").write_text("in the way")
    began = time.monotonic()
    words = "edit", photo, "--prompt", PROMPT, "--to", TO, "--out", tmp_path / "file" / "out", "--model", tiny_folder
    refused("cannot be written", *words)
    assert time.monotonic() - began < 5
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_failure_leaves_an_existing_folder_as_it_was(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")

    def work():
        with app.outputs(tmp_path) as staging:
            (staging / "half.png").write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        work()
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]


def test_ctrl_c_in_the_middle_says_so_and_leaves_nothing(tiny_folder, photo, tmp_path):
    out = tmp_path / "out"
    words = "edit", photo, "--prompt", PROMPT, "--to", TO, "--out", out, "--model", tiny_folder, "--steps", 500
    process = subprocess.Popen([script(), *map(str, words)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not out.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; nothing was written" in told
    assert "Traceback" not in told
    assert not out.exists()


def test_words_the_embedded_model_does_not_know_are_named(capsys):
    notes = []
    assert app.check_prompt(" a red teapot on a wooden floor ", "--to", notes.append) == "a red teapot on a wooden floor"
    assert "does not know 'teapot' (in --to)" in notes[0]
    assert " sphere " in notes[0]
    app.check_prompt(PROMPT, "--to", notes.append)
    assert len(notes) == 1


def test_the_words_that_change_nothing_are_noted(tiny_folder, done, tmp_path):
    result = call(
        "edit", "--inversion", done[0] / "inversion.safetensors", "--to", PROMPT, "--out", tmp_path, "--model", tiny_folder
    )
    assert result.exit_code == 0
    assert "nothing is asked to change" in result.output


def script():
    return str(Path(sys.executable).with_name("iterinv"))


def test_help_and_import_load_nothing_heavy():
    """Timed nowhere, but what makes it quick is checked: no heavy library is imported on the way."""
    code = (
        "import sys, iterinv, iterinv.cli\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'skimage', 'gradio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    shown = subprocess.run([script(), "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("edit", "invert", "reconstruct", "sample", "train"):
        assert name in shown


def test_public_names_are_there():
    import iterinv

    for name in iterinv.__all__:
        assert getattr(iterinv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = iterinv.nothing

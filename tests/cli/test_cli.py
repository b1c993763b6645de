"""The command line runs as a user calls it, and in this process."""

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

import iterinv
from iterinv import workbench
from iterinv.images import to_uint8
from iterinv.inverters import Solve
from iterinv.methods import METHODS, plan, sampler
from iterinv.outputs import outputs
from iterinv.roots import Anderson
from iterinv.steps import BDIA, RULES, BDIAHeun

from conftest import call, refused

PROMPT, TO = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"
FILES = {name for name in workbench.FILES if not name.startswith(("compare.", "sweep."))}
SHOWN = ("original", "edited", "mask", "comparison")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def done(tiny_folder, photo, tmp_path_factory):
    out = tmp_path_factory.mktemp("done")
    words = "edit", photo, "--prompt", PROMPT, "--to", TO, "--out", out, "--steps", 5, "--keep-inversion"
    result = call(*words, "--model", tiny_folder)
    assert result.exit_code == 0, result.output
    return out, result


def pixels(file):
    return np.array(Image.open(file))


def test_edit_writes_its_seven_files_and_a_short_report(done):
    out, result = done
    assert {file.name for file in out.iterdir()} == {
        "original.png",
        "reconstruction.png",
        "edited.png",
        "mask.png",
        "comparison.png",
        "report.json",
        "inversion.safetensors",
    }
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
    report = json.loads((out / "report.json").read_text())["edits"][0]
    assert report["background_exact_pixels"] == 1.0
    assert report["mask"] == pytest.approx((mask > 0).mean())


def test_the_report_has_the_keys_that_other_tools_rely_on(done):
    report = json.loads((done[0] / "report.json").read_text())
    for key in (
        "method",
        "steps",
        "guidance",
        "stages",
        "reconstruction",
        "seconds",
        "peak_memory_mb",
        "versions",
        "seed",
    ):
        assert key in report
    assert (report["method"], report["steps"], report["guidance"], report["seed"]) == ("bdia", 5, 1.0, 0)
    assert [s["size"] for s in report["stages"]] == [16, 32, 64]
    for stage in report["stages"]:
        assert stage["network_calls"] == {"forward": 9, "backward": 0}
        assert set(stage["terminal_noise"]) == {"mean", "std", "kurtosis", "autocorrelation"}
        assert stage["seconds"] >= 0
        assert stage["residual_max"] < 1e-9
        assert stage["reconstruction"]["exact_pixels"] == 1.0
    assert report["reconstruction"] == {"mse": 0.0, "psnr": None, "ssim": 1.0, "max_abs_8bit": 0, "exact_pixels": 1.0}
    assert 100 < report["peak_memory_mb"] < 20_000
    assert set(report["versions"]) >= {"iterinv", "torch", "diffusers", "transformers"}


@pytest.mark.parametrize("method", ["bdia", "bdia-fixed", "iterinv-anderson", "null-text", "direct", "edit-friendly"])
def test_three_commands_do_what_one_does_with_equal_pixels_and_an_equal_inversion(tiny_folder, photo, tmp_path, method):
    model, how = ("--model", tiny_folder), ("--prompt", PROMPT, "--steps", 5, "--method", method)
    one, a, b, c = (tmp_path / name for name in ("one", *"abc"))
    edit = "--to", TO, "--editor", "diffedit", "--keep-inversion"
    assert call("edit", photo, *edit, "--out", one, *how, *model).exit_code == 0
    assert call("invert", photo, "--out", a, *how, *model).exit_code == 0
    assert call("reconstruct", a / "inversion.safetensors", "--out", b, *model).exit_code == 0
    assert call("edit", "--inversion", a / "inversion.safetensors", *edit, "--out", c, *model).exit_code == 0
    assert {file.name for file in a.iterdir()} == {"original.png", "inversion.safetensors", "report.json"}
    assert {file.name for file in b.iterdir()} == {"original.png", "reconstruction.png", "report.json"}
    assert {file.name for file in c.iterdir()} == FILES
    for folder in (a, b, c):
        for file in folder.iterdir():
            if file.suffix == ".png":  # whose settings name the command
                assert (pixels(file) == pixels(one / file.name)).all(), file
            elif file.name != "report.json":
                assert file.read_bytes() == (one / file.name).read_bytes(), file


def test_an_edit_inverts_as_deep_as_its_editor_needs(tiny_folder, photo, done, tmp_path):
    """The default editor needs fewer levels above stage I than there are."""
    words = "--to", TO, "--out", tmp_path, "--model", tiny_folder
    result = call("edit", photo, "--prompt", PROMPT, "--steps", 5, *words)
    assert result.exit_code == 0, result.output
    assert {file.name for file in tmp_path.iterdir()} == {f"{n}.png" for n in SHOWN} | {"report.json"}
    report = json.loads((tmp_path / "report.json").read_text())
    first, *others = (stage["depth"] for stage in report["stages"])
    assert all(depth < 5 for depth in others)
    assert not {"reconstruction", "why"} & set(report)
    assert f"{first} of 5" in result.output
    assert (pixels(tmp_path / "edited.png") == pixels(done[0] / "edited.png")).all()
    again = call("edit", "--inversion", done[0] / "inversion.safetensors", *words)
    assert again.exit_code == 0, again.output
    assert (pixels(tmp_path / "edited.png") == pixels(done[0] / "edited.png")).all()


def test_several_edits_share_one_inversion(tiny_folder, photo, done, tmp_path):
    how = "--prompt", PROMPT, "--steps", 5, "--model", tiny_folder, "--out", tmp_path
    assert call("edit", photo, "--to", TO, "--to", "a red cube", *how).exit_code == 0
    numbered = {f"{name}-{k}.png" for name in ("edited", "mask") for k in (1, 2)}
    assert {file.name for file in tmp_path.iterdir()} == numbered | {"original.png", "comparison.png", "report.json"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert [edit["to"] for edit in report["edits"]] == [TO, "a red cube"]
    assert report["stages"][0]["network_calls"]["forward"] <= 5  # two inversions would be twice as many
    assert (pixels(tmp_path / "edited-1.png") == pixels(done[0] / "edited.png")).all()


def test_the_command_line_and_the_library_make_the_same_bytes(done, tiny, photo):
    out, _ = done
    inversion = tiny.invert(photo, PROMPT, plan("bdia", 5))
    edited = tiny.edit(inversion, TO)
    assert (np.array(edited.images[0]) == np.array(Image.open(out / "edited.png"))).all()
    again = tiny.open(out / "inversion.safetensors")
    assert (again.stages[2].state[0] == inversion.stages[2].state[0]).all()


@pytest.mark.parametrize("method", ["ddim", "iterinv-anderson"])
def test_other_methods_by_name(tiny_folder, photo, tmp_path, method):
    words = (
        "invert",
        photo,
        "--prompt",
        PROMPT,
        "--steps",
        4,
        "--method",
        method,
        "--out",
        tmp_path,
        "--model",
        tiny_folder,
    )
    assert call(*words).exit_code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["method"] == method
    if method == "ddim":  # one fixed-point iteration measures no error, and loses this picture
        assert report["reconstruction"]["exact_pixels"] < 1
        assert report["reconstruction"]["psnr"] is not None
        assert report["stages"][0]["root_error_max"] is None
    else:
        assert report["stages"][0]["root_error_max"] < 1e-3


def test_prompt_swap_has_no_mask(tiny_folder, done, tmp_path):
    file = done[0] / "inversion.safetensors"
    words = "edit", "--inversion", file, "--to", TO, "--out", tmp_path, "--editor", "prompt-swap", "--strength", 0.5
    assert call(*words, "--model", tiny_folder).exit_code == 0
    assert (np.array(Image.open(tmp_path / "mask.png")) == 255).all()
    report = json.loads((tmp_path / "report.json").read_text())["edits"][0]
    assert (report["editor"], report["strength"]) == ("PromptSwap", 0.6)  # of five steps, three
    assert "mask" not in report


def test_sample_draws(tiny_folder, tmp_path):
    result = call("sample", PROMPT, "--steps", 3, "--count", 2, "--out", tmp_path, "--model", tiny_folder)
    assert result.exit_code == 0
    assert [Image.open(tmp_path / f"sample-{k}.png").size for k in range(2)] == [(64, 64)] * 2


@pytest.mark.parametrize("name", RULES)
def test_every_rule_samples_what_the_library_samples(tiny_folder, tmp_path, name):
    first = tiny_folder / "stage1"
    result = call("sample", PROMPT, "--steps", 4, "--sampler", name, "--out", tmp_path, "--model", first)
    assert result.exit_code == 0, result.output
    (picture,) = iterinv.load(str(first)).sample(PROMPT, 4, rule=name)
    assert picture.std() > 0.05
    assert (np.array(Image.open(tmp_path / "sample-0.png")) == to_uint8(picture)).all()


def test_a_sampler_has_its_gamma():
    assert sampler("bdia", 0.5) == BDIA(0.5)
    assert sampler("bdia", 0.0) == RULES["ddim"]
    assert sampler("bdia-heun", 0.0) == BDIAHeun(0.0)
    for name, gamma, message in (
        ("euler", None, "no sampler"),
        ("ddim", 0.5, "has no gamma"),
        ("bdia", 1.5, "between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler(name, gamma)


def test_bad_input_is_a_sentence_and_nothing_is_written(tiny_folder, photo, done, tmp_path):
    out, model = tmp_path / "out", ("--model", tiny_folder)
    prompts = "--prompt", PROMPT, "--to", TO, "--out", out
    refused("there is no file", "edit", tmp_path / "none.png", *prompts, *model)
    (tmp_path / "text.png").write_text("hello")
    refused("not a picture that can be read here", "edit", tmp_path / "text.png", *prompts, *model)
    refused("the target prompt is empty", "edit", photo, "--prompt", PROMPT, "--to", "", "--out", out, *model)
    refused("the target prompt is empty", "edit", photo, "--prompt", PROMPT, "--to", " \u200b", "--out", out, *model)
    refused("--prompt is missing", "edit", photo, "--to", TO, "--out", out, *model)
    refused("give a picture to edit, or an inversion", "edit", "--to", TO, "--out", out, *model)
    file = done[0] / "inversion.safetensors"
    refused("give a picture to edit, or an inversion", "edit", photo, "--inversion", file, *prompts, *model)
    refused("there is no method 'magic'", "edit", photo, *prompts, "--method", "magic", *model)
    refused("there is no editor 'magic'", "edit", photo, *prompts, "--editor", "magic", *model)
    refused("strength is 2.0", "edit", photo, *prompts, "--strength", 2, *model)
    refused("not one of pad, crop", "edit", photo, *prompts, "--fit", "stretch", *model)
    refused("2000 steps do not fit", "edit", photo, *prompts, "--steps", 2000, *model)
    refused("holds no cascade.json", "edit", photo, *prompts, "--model", tmp_path)
    refused("truncated or not an inversion", "reconstruct", photo, "--out", out, *model)
    refused("there is no part 'IV'", "train", "IV", "--out", tmp_path / "train")
    refused("minutes is -1", "train", "text", "--minutes", -1, "--out", tmp_path / "train")
    refused("guidance is nan", "edit", photo, *prompts, "--edit-guidance", "nan", *model)
    refused("guidance is inf", "invert", photo, "--prompt", PROMPT, "--guidance", "inf", "--out", out, *model)
    refused("is not text in UTF-8", "invert", photo, "--prompt", "a red \udcff", "--out", out, *model)
    refused("Invalid value for '--seed'", "invert", photo, "--prompt", PROMPT, "--seed", -1, "--out", out, *model)
    reopened = "edit", "--inversion", file, "--to", TO, "--out", out, *model
    refused("--num-inference-steps --fit: an inversion has its own", *reopened, "--steps", 9, "--fit", "pad")
    refused("--prompt: an inversion has its own", *reopened, "--prompt", PROMPT)
    assert not out.exists()


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_work(tiny_folder, photo, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("iterinv.requests.load", lambda *_, **__: pytest.fail("a model was loaded"))
    words = "edit", photo, "--prompt", PROMPT, "--to", TO, "--out", tmp_path / "file" / "out", "--model", tiny_folder
    refused("cannot be written", *words)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_failure_leaves_an_existing_folder_as_it_was(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")

    def work():
        with outputs(tmp_path) as staging:
            (staging / "half.png").write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        work()
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]


def test_moving_into_place_is_all_or_nothing(tmp_path):
    """A folder stands in the way of the last file: the first files are not moved, or they are moved back."""
    (tmp_path / "a.png").write_text("old")

    def move():
        with outputs(tmp_path) as staging:
            for name in ("a.png", "b.png", "z.json"):
                (staging / name).write_text("new")

    (tmp_path / "z.json").mkdir()
    with pytest.raises(OSError, match=r"z\.json is a folder"):
        move()
    assert (tmp_path / "a.png").read_text() == "old"
    (tmp_path / "z.json").rmdir()

    replace, moved = Path.replace, []

    def stop_at_the_second(self, target):
        moved.append(self.name)
        if len(moved) == 3:  # the old a.png moves aside, the new one in, and then
            raise KeyboardInterrupt
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            move()
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_text() == "old"
    move()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(
        ("a.png", "b.png", "z.json"), "new"
    )


def test_folders_made_on_the_way_are_removed_again(tmp_path):
    def fail():
        with outputs(tmp_path / "a" / "b" / "c"):
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("after", [1, 2])
def test_stopped_while_folders_are_made_they_are_removed_again(tmp_path, monkeypatch, after):
    """Ctrl-C arrives as soon as the output folder exists, and as soon as the staging folder in it exists."""
    mkdir, made = Path.mkdir, []

    def stop(self, *args, **kwargs):
        mkdir(self, *args, **kwargs)
        made.append(self)
        if len(made) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", stop)
    with pytest.raises(KeyboardInterrupt), outputs(tmp_path / "out"):
        pass
    assert len(made) == after
    assert not list(tmp_path.iterdir())


def test_the_picture_itself_is_not_replaced(tiny_folder, tmp_path):
    Image.new("RGB", (200, 300)).save(tmp_path / "original.png")
    before = (tmp_path / "original.png").read_bytes()
    words = "invert", tmp_path / "original.png", "--prompt", PROMPT, "--out", tmp_path, "--model", tiny_folder
    refused("a result would replace", *words)
    assert (tmp_path / "original.png").read_bytes() == before


def test_what_an_earlier_run_left_is_told(tiny_folder, photo, tmp_path):
    (tmp_path / "edited.png").write_text("of another picture")
    result = call("invert", photo, "--prompt", PROMPT, "--steps", 2, "--out", tmp_path, "--model", tiny_folder)
    assert result.exit_code == 0
    assert "also holds edited.png of an earlier run" in " ".join(result.output.split())


def test_a_solver_that_did_not_arrive_is_told(tiny_folder, photo, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "iterinv-anderson", METHODS["iterinv-anderson"]._replace(inverter=Solve(Anderson(2))))
    how = "--prompt", PROMPT, "--steps", 2, "--method", "iterinv-anderson", "--out", tmp_path, "--model", tiny_folder
    assert "not to 1e-05; take more steps" in " ".join(call("invert", photo, *how).output.split())


def test_a_picture_that_is_cropped_is_judged_by_what_was_worked_on(tiny_folder, tmp_path):
    path = tmp_path / "long.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 80, 3), dtype=np.uint8)).save(path)
    words = (
        "invert",
        path,
        "--prompt",
        PROMPT,
        "--steps",
        2,
        "--method",
        "ddim",
        "--fit",
        "crop",
        "--out",
        tmp_path / "out",
    )
    assert call(*words, "--model", tiny_folder).exit_code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["reconstruction"] == report["stages"][-1]["reconstruction"]


@pytest.mark.parametrize(("number", "wait"), [(signal.SIGINT, 0.15), (signal.SIGTERM, 4.0)])
def test_stopped_at_any_moment_it_says_so_and_leaves_nothing(tiny_folder, photo, tmp_path, number, wait):
    """The signal arrives while the script imports, loads or works."""
    out, begun = tmp_path / "out", tmp_path / "begun"
    words = "edit", photo, "--prompt", PROMPT, "--to", TO, "--out", out, "--model", tiny_folder, "--steps", 500
    code = (
        f"import iterinv.__main__ as m, pathlib, sys; sys.argv[1:] = {[str(word) for word in words]!r}; "
        f"s = m._stop; m.signal.signal(m.signal.SIGINT, s); m.signal.signal(m.signal.SIGTERM, s); "
        f"pathlib.Path({str(begun)!r}).touch(); m.main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not begun.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(wait)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "iterinv: stopped; no file was left half-written" in stderr
    assert "Traceback" not in stderr
    assert not out.exists()


def test_words_that_ask_for_no_change_are_refused_before_any_work(tiny_folder, photo, done, tmp_path, monkeypatch):
    words = "--to", PROMPT.upper(), "--out", tmp_path / "out", "--model", tiny_folder
    refused("nothing is asked to change", "edit", "--inversion", done[0] / "inversion.safetensors", *words)
    monkeypatch.setattr("iterinv.requests.load", lambda *_, **__: pytest.fail("a model was loaded"))
    refused("nothing is asked to change", "edit", photo, "--prompt", PROMPT, *words)


def test_a_mask_of_ones_own_limits_the_edit(tiny_folder, photo, tmp_path):
    """The picture of 64 x 48 px is as large as the model works, so a mask's pixel is a pixel of the result."""
    how = "--prompt", PROMPT, "--to", TO, "--steps", 4, "--editor", "redraw", "--model", tiny_folder
    drawn = np.zeros((96, 128), np.uint8)
    drawn[20:60, 40:80] = 255
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    for k, (words, inside) in enumerate(
        (
            (("--box", "20,10,20,20"), np.s_[10:30, 20:40]),
            (("--polygon", "20,10 39,10 39,29 20,29"), np.s_[10:30, 20:40]),
            (("--mask", tmp_path / "drawn.png"), np.s_[10:30, 20:40]),
            (("--box", "22,12,16,16", "--grow", 2), np.s_[10:30, 20:40]),
        )
    ):
        out = tmp_path / str(k)
        result = call("edit", photo, *how, *words, "--out", out)
        assert result.exit_code == 0, result.output
        assert ("the mask of 128x96 px is resized to the picture's 64x48" in result.output) == ("--mask" in words)
        original, edited, mask = (np.array(Image.open(out / f"{name}.png")) for name in ("original", "edited", "mask"))
        outside = np.ones((48, 64), bool)
        outside[inside] = False
        assert (original[outside] == edited[outside]).all()
        assert (mask[outside] == 0).all()
        assert (original != edited).any()


def test_masks_that_cannot_be_are_sentences_before_any_work(tiny_folder, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("iterinv.requests.load", lambda *_, **__: pytest.fail("a model was loaded"))
    words = "edit", photo, "--prompt", PROMPT, "--to", TO, "--out", tmp_path / "out", "--model", tiny_folder
    Image.new("L", (64, 48)).save(tmp_path / "empty.png")
    refused("the mask is empty", *words, "--mask", tmp_path / "empty.png")
    refused("there is no file", *words, "--mask", tmp_path / "none.png")
    refused("reaches outside the picture of 64x48", *words, "--box", "50,10,20,20")
    refused("takes 4 whole numbers", *words, "--box", "50,10,20")
    refused("at least 1 x 1", *words, "--box", "50,10,0,5")
    refused("has 2 corners", *words, "--polygon", "1,1 5,5")
    refused("there is no mask to invert", *words, "--feather", 3)
    assert not (tmp_path / "out").exists()


def script():
    return str(Path(sys.executable).with_name("iterinv"))


def test_help_and_import_load_nothing_heavy():
    """The test measures no time: it checks that no heavy library is imported."""
    code = (
        "import sys, iterinv, iterinv.__main__\n"
        "iterinv.__main__.command_line()\n"
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


def test_the_recipe_of_iterinvs_paper_is_one_command(tiny_folder, photo, tmp_path):
    """Null-text inversion under guidance at the first stage, IterInv's descent at the second, and DiffEdit."""
    words = ["edit", photo, "--prompt", PROMPT, "--to", "a blue cube", "--model", tiny_folder]
    words += ["--out", tmp_path / "out", "--keep-inversion"]
    words += ["--method", "null-text,iterinv,bdia", "--guidance-scale", "3,1,1", "--steps", "2", "--editor", "diffedit"]
    result = call(*words)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["method"] == ["null-text", "iterinv", "bdia"]
    assert report["guidance"] == [3, 1, 1]
    assert report["steps"] == 2

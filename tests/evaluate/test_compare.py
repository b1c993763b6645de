"""`iterinv compare` gives the same table by the library and by the command line."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from iterinv.__main__ import command_line
from iterinv.cascade import Cascade
from iterinv.evaluate.compare import compare, front, plot, work
from iterinv.methods import METHODS
from iterinv.steps.run import NotFinite

PROMPT = "a red sphere on a wooden floor"
KEYS = {
    "method",
    "psnr",
    "exact_pixels",
    "network_calls",
    "seconds",
    "peak_memory_mb",
    "terminal_noise",
    "stages",
    "why",
}


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path


def test_the_command_prints_plots_and_writes_one_table(tiny_folder, tiny, photo, tmp_path):
    names = ["bdia", "ddim", "iterinv"]
    words = ["compare", photo, "--prompt", PROMPT, "--steps", 3, "--methods", "bdia, ddim,iterinv", "--out", tmp_path]
    result = CliRunner().invoke(command_line(), [str(word) for word in (*words, "--model", tiny_folder / "stage1")])
    assert result.exit_code == 0, result.output
    assert {file.name for file in tmp_path.iterdir()} == {"compare.json", "compare.png"}
    report = json.loads((tmp_path / "compare.json").read_text())
    assert [row["method"] for row in report["methods"]] == names
    assert all(set(row) == KEYS for row in report["methods"])
    assert all(name in result.output for name in names)
    for row, again in zip(report["methods"], compare(Cascade(tiny.stages[:1]), photo, PROMPT, names, 3), strict=True):
        for key in ("psnr", "exact_pixels", "network_calls", "terminal_noise"):
            assert row[key] == again[key]
    exact, lossy, published = report["methods"]
    assert exact["psnr"] is None
    assert lossy["psnr"] < 60
    assert exact["network_calls"] == {"forward": 5, "backward": 0}
    assert published["network_calls"] == {"forward": 3 * 21 + 3, "backward": 3 * 21}
    assert np.array(Image.open(tmp_path / "compare.png")).std() > 10


def test_a_method_that_there_is_not_is_refused_before_any_work(tiny_folder, photo, tmp_path):
    words = [
        "compare",
        photo,
        "--prompt",
        PROMPT,
        "--methods",
        "bdia,magic",
        "--out",
        tmp_path / "out",
        "--model",
        tiny_folder,
    ]
    result = CliRunner().invoke(command_line(), [str(word) for word in words])
    assert result.exit_code == 2
    assert "there is no method 'magic'" in result.output
    assert not (tmp_path / "out").exists()


def test_a_method_that_cannot_work_here_is_refused_before_any_work(tiny, photo, monkeypatch):
    monkeypatch.setattr("iterinv.cascade.Cascade.invert", lambda *_, **__: pytest.fail("work was done"))
    with pytest.raises(ValueError, match="undoing 300 steps of EDICT"):
        next(compare(tiny, photo, PROMPT, ["bdia", "edict"], 300))


def test_a_method_that_fails_has_its_row_and_ends_nothing(tiny_folder, photo, tmp_path, monkeypatch):
    real = Cascade.invert

    def broken(self, picture, prompt, plan, **rest):
        if plan.method == "ddim":
            raise NotFinite("stage I by ddim: not finite")
        return real(self, picture, prompt, plan, **rest)

    monkeypatch.setattr("iterinv.cascade.Cascade.invert", broken)
    words = ["compare", photo, "--prompt", PROMPT, "--steps", 3, "--methods", "ddim,bdia", "--out", tmp_path]
    result = CliRunner().invoke(command_line(), [str(word) for word in (*words, "--model", tiny_folder)])
    assert result.exit_code == 0, result.output
    failed, fine = json.loads((tmp_path / "compare.json").read_text())["methods"]
    assert set(failed) == KEYS
    assert (failed["psnr"], failed["stages"], failed["why"]) == (None, [], "stage I by ddim: not finite")
    assert fine["exact_pixels"] == 1.0
    assert "ddim: stage I by ddim: not finite" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_methods_are_listed():
    _, _, *lines = CliRunner().invoke(command_line(), ["methods"]).output.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(METHODS)


def row(name, psnr, forward, backward=0):
    return {
        "method": name,
        "psnr": psnr,
        "network_calls": {"forward": forward, "backward": backward},
        "terminal_noise": {"std": 1.0},
    }


def test_the_front_is_what_none_beats_in_both(tmp_path):
    rows = [
        row("a", 30.0, 10),
        row("b", 25.0, 12),
        row("c", 50.0, 30, 10),
        row("d", None, 60),
        row("e", None, 90),
        row("f", None, 60),
    ]
    assert [work(each) for each in rows] == [10, 12, 50, 60, 90, 60]
    assert front(rows) == ["a", "c", "d", "f"]
    plot(rows, tmp_path / "plot.png", "made up")
    assert Image.open(tmp_path / "plot.png").size[0] > 800

"""Pictures carry their settings; ``iterinv info`` prints them, and its command makes the same picture again."""

import json
import shlex
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

import iterinv
from iterinv.commands import command_of
from iterinv.images import save
from iterinv.provenance import read_settings
from iterinv.requests import InvertRequest, Model

from conftest import call, refused

PROMPT, TO = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"


def pixels(file):
    return np.array(Image.open(file))


PICTURES = {
    "edit/edited.png": "an edited picture",
    "edit/mask.png": "the region of an edit",
    "edit/original.png": "the picture at the model's size",
    "edit/reconstruction.png": "a reconstruction",
    "edit/comparison.png": "a comparison of pictures",
    "sample/sample-0.png": "a sample",
    "sample/sample-1.png": "a sample",
    "compare/compare.png": "a comparison of methods",
    "sweep/sweep.png": "a sheet of edits",
}


def test_every_picture_of_a_command_carries_settings_without_a_path(made, one_stage):
    written = {str(file.relative_to(made)) for file in made.glob("*/*.png") if not file.parent.name.startswith("run")}
    assert written == set(PICTURES)
    for name, what in PICTURES.items():
        settings = read_settings(made / name)
        assert settings["what"] == what
        assert settings["weights"]
        assert set(settings["versions"]) == {"iterinv", "torch"}
        text = json.dumps(settings)
        for private in (str(made), str(one_stage.parent), "/tmp", "seconds", "memory_mb"):
            assert private not in text, name
    edited = read_settings(made / "edit" / "edited.png")
    assert (edited["method"], edited["steps"], edited["prompt"], edited["seed"]) == ("bdia", 3, PROMPT, 0)
    assert (edited["picture"], edited["model"], edited["fit"]) == ("photo.png", "stage1", "pad")
    assert edited["edit"]["to"] == TO
    assert edited["reconstruction"]["exact_pixels"] == 1
    assert len(read_settings(made / "sweep" / "sweep.png")["cells"]) == 2
    assert [row["method"] for row in read_settings(made / "compare" / "compare.png")["methods"]] == ["bdia", "ddim"]


@pytest.mark.parametrize("name", ["edit/edited.png", "edit/reconstruction.png", "sample/sample-1.png"])
def test_the_commands_in_a_picture_make_it_again(made, one_stage, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes((made / "photo.png").read_bytes())
    (tmp_path / "stage1").symlink_to(one_stage)
    for command in read_settings(made / name)["commands"]:
        result = call(*shlex.split(command)[1:])
        assert result.exit_code == 0, result.output
    again = tmp_path / "out" / name.partition("/")[2]
    assert (pixels(again) == pixels(made / name)).all()
    if name != "edit/reconstruction.png":
        assert again.read_bytes() == (made / name).read_bytes()


def test_info_says_how_a_picture_was_made(made):
    result = call("info", made / "edit" / "edited.png")
    assert result.exit_code == 0, result.output
    said = {line[:12].strip(): line[13:] for line in result.stdout.splitlines()}
    assert (said["what"], said["method"], said["steps"], said["prompt"]) == ("an edited picture", "bdia", "3", PROMPT)
    assert said["edited to"] == TO
    assert said["editor"].startswith("PromptSwap, ")
    assert said["fidelity"] == "reconstruction exact, 100.00% of pixels equal"
    assert "iterinv edit photo.png --prompt" in result.stdout
    assert "exact" in call("info", made / "compare" / "compare.png").stdout
    assert call("info", made / "sweep" / "sweep.png").stdout.count("iterinv edit") == 2


def test_info_says_how_an_inversion_was_made_without_a_model(made, monkeypatch):
    monkeypatch.setattr("iterinv.requests.load", lambda *_, **__: pytest.fail("a model was loaded"))
    result = call("info", made / "edit" / "inversion.safetensors", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["what"], facts["method"], facts["steps"], facts["guidance"]) == ("an inversion", "bdia", 3, 1)
    assert (facts["prompts"], facts["seeds"], facts["fit"]) == ([PROMPT], [0], "pad")
    assert facts["worked_at"] == {"height": 16, "width": 16}
    assert facts["stages"][0]["network_calls"] == {"forward": 5, "backward": 0}
    assert facts["stages"][0]["exact"]
    assert facts["commands"] == [
        f"iterinv invert PICTURE --prompt '{PROMPT}' --num-inference-steps 3 --out out",
        "iterinv reconstruct inversion.safetensors --out out",
    ]
    shown = call("info", made / "edit" / "inversion.safetensors").stdout
    assert "stage I: an exact method, 5 + 0 network calls" in " ".join(shown.split())


def test_files_without_settings_are_answered_by_a_sentence(made, tmp_path):
    refused("there is no file", "info", tmp_path / "none.png")
    refused("there is no file", "info", tmp_path)
    refused("photo.png holds no settings", "info", made / "photo.png")
    refused("truncated or not an inversion", "info", made / "photo.txt")


FORGED = [
    {"commands": ["rm -rf ~", "iterinv edit a.png; rm -rf ~", "iterinv 'x", 5, ["iterinv"]]},
    {"what": {"a": [1, {"b": 2}]}, "method": [[["x"]]], "stages": 3, "cells": [1, {"commands": "iterinv"}]},
    {"what": "\x1b[2J\x9b\u202e", "prompt": "a\r\nfile         other.png", "edit": {"to": "\x07", "\x1b": "\x1b"}},
    {"reconstruction": {"exact_pixels": "all"}, "edits": [1, {"mask": "x"}], "methods": [{"psnr": "\x1b"}, 2]},
    {"versions": [1], "edit": {"mask": 0.5, "background_exact_pixels": "\x1b"}, "fidelity": {"a": 1}},
    {"prompt": "x" * 100_000, "seed": 10**400, "steps": 1e300},
]


@pytest.mark.parametrize("settings", FORGED, ids=range(len(FORGED)))
def test_forged_settings_are_printed_as_text_and_run_nothing(tmp_path, settings):
    save(np.zeros((4, 4), np.uint8), tmp_path / "a.png", settings)
    for more in ((), ("--json",)):
        result = call("info", tmp_path / "a.png", *more)
        assert result.exit_code == 0, (result.output, result.exception)
        assert not set("\x1b\x9b\x07\r\u202e") & set(result.output)
        assert len(result.output) < 5000 or more
        assert "; rm" not in result.output.replace("'a.png;' rm", "")
    lines = call("info", tmp_path / "a.png").stdout.splitlines()
    assert [line for line in lines if line.startswith("file ")] == ["file         a.png"]


def test_every_setting_of_loading_is_an_option_that_the_command_of_a_picture_repeats(
    made, tiny_folder, tmp_path, monkeypatch
):
    """A cascade that is loaded otherwise makes another picture."""
    model = Model(
        "other", "cuda", "float16", "16gb", True, "fp16", "folder", noise_level=30, distilled_guidance=2.5, tiled=True
    )
    assert all(getattr(model, each.name) != each.default for each in fields(Model))
    command = command_of(InvertRequest("photo.png", PROMPT, model=model), "out")
    loaded = []
    monkeypatch.setattr(Model, "load", lambda self: loaded.append(self) or iterinv.load(tiny_folder))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes((made / "photo.png").read_bytes())
    result = call(*shlex.split(command)[1:], "--num-inference-steps", 2)
    assert result.exit_code == 0, result.output
    assert loaded[0] == model

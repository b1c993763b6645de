"""``--dry-run`` says how many network calls a command takes, and leaves no trace."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from iterinv import estimates
from iterinv.cascade import Cascade
from iterinv.edits import EDITORS
from iterinv.models import CountingDenoiser
from iterinv.requests import EditRequest, InvertRequest, Model
from iterinv.workbench import Workbench

from conftest import call, refused

PROMPT, TO = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"


def calls_of(result):
    assert result.exit_code == 0, result.output
    return [(stage["forward"], stage["backward"]) for stage in json.loads(result.stdout)["stages"]]


@pytest.mark.parametrize(
    "how", [(), ("--guidance", 2), ("-m", "ddim"), ("-m", "edict"), ("-m", "null-text"), ("--fit", "aspect")]
)
def test_the_calls_of_an_inversion_are_those_of_its_report(made, tiny_folder, tmp_path, how):
    words = "invert", made / "photo.png", "-p", PROMPT, "-n", 3, *how, "--out", tmp_path / "out"
    words = *words, "--model", tiny_folder, "--json"
    dry = call(*words, "--dry-run")
    assert not (tmp_path / "out").exists()
    report = json.loads(call(*words).stdout)
    assert calls_of(dry) == [tuple(stage["network_calls"].values()) for stage in report["stages"]]
    estimate = json.loads(dry.stdout)
    assert estimate["dry_run"]
    assert estimate["missing"] == []
    assert estimate["seconds"] == pytest.approx(sum(stage["seconds"] for stage in estimate["stages"]))
    assert all(stage["seconds_per_call"] > 0 for stage in estimate["stages"])


@pytest.mark.parametrize("name", EDITORS)
def test_the_calls_of_an_edit_are_those_that_it_makes(tiny, made, monkeypatch, name):
    """At the first stage; whether the stages above are drawn anew depends on the picture."""
    counter = CountingDenoiser(tiny.stages[0].denoiser)
    cascade = Cascade((replace(tiny.stages[0], denoiser=counter),))
    monkeypatch.setattr(Model, "load", lambda self: cascade)
    request = EditRequest(InvertRequest(made / "photo.png", PROMPT, num_inference_steps=4), (TO,), name, size="model")
    Workbench().edit(request)
    made_calls = counter.forward
    monkeypatch.setattr(Model, "load", lambda self: Cascade(tiny.stages[:1]))
    (stage,) = estimates.estimate(request).stages
    if name in estimates.DECIDING:
        assert stage.forward >= made_calls
    else:
        assert stage.forward == made_calls


def test_every_command_with_a_dry_run_writes_nothing(made, one_stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo, how = made / "photo.png", ("--model", one_stage, "--dry-run", "--json")
    prompts = "-p", PROMPT, "-n", 2
    counts = {
        "sweep": calls_of(call("sweep", photo, *prompts, "-t", TO, "--editor", "sdedit", "--edit-seed", "0,1", *how)),
        "one": calls_of(call("edit", photo, *prompts, "-t", TO, "--editor", "sdedit", *how)),
        "compare": calls_of(call("compare", photo, *prompts, "--methods", "bdia,ddim", *how)),
        "sample": calls_of(call("sample", PROMPT, "-n", 3, "--guidance", 1, "--count", 2, *how)),
        "evaluate": calls_of(call("evaluate", "--data", "scene-edit", "--count", 4, "-n", 2, "--out", "out", *how)),
    }
    assert counts["sweep"][0][0] == 2 * counts["one"][0][0]
    assert counts["sample"] == [(6, 0)]
    assert counts["evaluate"] == [(4 * 3, 0)]
    inversion = made / "edit" / "inversion.safetensors"
    before = sorted(inversion.parent.iterdir())
    words = "edit", "--inversion", inversion, "-t", TO, "--editor", "prompt-swap", "--keep-path", "--size", "model"
    assert calls_of(call(*words, *how))[0][0] > 0
    assert sorted(inversion.parent.iterdir()) == before
    assert list(Path().iterdir()) == []


def test_weights_that_are_not_here_are_not_fetched(made, monkeypatch):
    monkeypatch.setattr("iterinv.presets.index_in_cache", lambda name: None)
    photo = made / "photo.png"
    result = call("edit", photo, "-p", PROMPT, "-t", TO, "--model", "sd15", "--editor", "prompt-to-prompt", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5 would have to be fetched" in " ".join(result.stdout.split())
    assert "Nothing was written." in result.stdout
    dry = json.loads(call("invert", photo, "-p", PROMPT, "--model", "deepfloyd-m", "--dry-run", "--json").stdout)
    assert [(stage["size"], stage["forward"]) for stage in dry["stages"]] == [(64, 39), (256, 39), (1024, 39)]
    assert dry["seconds"] is None
    inversion = made / "edit" / "inversion.safetensors"
    refused("known only with the weights", "edit", "-i", inversion, "-t", TO, "--model", "sd15", "--dry-run")


def test_what_is_wrong_is_said_by_a_dry_run_too(made, one_stage, tmp_path):
    photo, how = made / "photo.png", ("--model", one_stage, "--dry-run")
    refused("there is no file", "invert", tmp_path / "none.png", "-p", PROMPT, *how)
    refused("nothing is asked to change", "edit", photo, "-p", PROMPT, "-t", PROMPT, *how)
    refused("there is no method 'magic'", "compare", photo, "-p", PROMPT, "--methods", "magic", *how)
    refused("there is no sampler 'magic'", "sample", PROMPT, "--sampler", "magic", *how)
    refused("reaches outside the picture", "edit", photo, "-p", PROMPT, "-t", TO, "--box", "0,0,99,99", *how)

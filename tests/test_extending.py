"""A user's own rule, root finder, editor, family and metric take one file and one name each, and work everywhere."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from iterinv.__main__ import command_line
from iterinv.edits import EDITORS
from iterinv.families import FAMILIES
from iterinv.methods import METHODS, plan
from iterinv.metrics import METRICS
from iterinv.models.toy import arc, gaussian, gaussian_flow
from iterinv.roots import FixedPoint, rms
from iterinv.steps import RULES
from iterinv.steps.run import run

EXTENDING = Path(__file__).parents[1] / "examples" / "extending"


@pytest.fixture
def example(tiny_folder, tmp_path, monkeypatch, capsys):
    """Run an example; return its names and its output, and remove its entries from the lists afterwards."""
    monkeypatch.chdir(tmp_path)
    lists = RULES, METHODS, EDITORS, METRICS
    before = [*map(dict, lists), list(FAMILIES)]

    def run_it(name):
        monkeypatch.setattr(sys, "argv", [name, str(tiny_folder)])
        names = runpy.run_path(str(EXTENDING / f"{name}.py"), run_name="__main__")
        return names, capsys.readouterr().out

    yield run_it
    for listed, original in zip(lists, before[:4], strict=True):
        listed.clear()
        listed.update(original)
    FAMILIES[:] = before[4]


def called(*words):
    return CliRunner().invoke(command_line(), [str(word) for word in words]).output


@pytest.mark.filterwarnings("ignore:.*")
def test_a_rule(example, tiny_folder, tmp_path):
    _, output = example("rule")
    assert "sampled 64 px by ab2" in output
    assert "ab2" in called("samplers")
    assert "1 picture(s)" in called("sample", "a cube", "--sampler", "ab2", "--out", tmp_path, "--model", tiny_folder)
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth, errors = gaussian_flow(x, arc(1)[0], arc(1)[-1]), []
    for n in (64, 128, 256):
        *_, state = run(RULES["ab2"], gaussian(), (x,), arc(n))
        errors.append(float((state[0] - truth).abs().max()))
    assert -np.polyfit(np.log([64, 128, 256]), np.log(errors), 1)[0] == pytest.approx(2, abs=0.2)


@pytest.mark.filterwarnings("ignore:.*")
def test_a_root_finder(example, tiny, tmp_path):
    names, output = example("root_finder")
    assert "by iterinv-aitken" in output
    assert "Aitken" in called("methods")
    assert tiny.open(tmp_path / "aitken.safetensors").stages[0].plan == plan("iterinv-aitken", 10)

    def residual(u):
        return u - 0.5 * torch.cos(u)

    start = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(1, 40)
    errors = [float(rms(residual(find(residual, start).value)).max()) for find in (names["Aitken"](4), FixedPoint(9))]
    assert errors[0] < 1e-3 * errors[1]


@pytest.mark.filterwarnings("ignore:.*")
def test_an_editor(example, tiny):
    _, output = example("editor")
    assert "edited" in output
    assert "left-half" in called("editors")
    inversion = tiny.invert(torch.zeros(1, 3, 64, 64), "a red sphere", num_inference_steps=4)
    edit = tiny.edit(inversion, "a blue cube", "left-half")
    assert torch.equal(edit.pictures[0][..., 8:], inversion.stages[0].picture.clamp(-1, 1)[..., 8:])
    assert not torch.equal(edit.pictures[0][..., :8], inversion.stages[0].picture.clamp(-1, 1)[..., :8])


def test_a_family(example):
    _, output = example("family")
    assert "from alpha 0.0" in output
    assert float(output.split("error ")[1].split(",")[0]) < 1e-4


def test_a_metric(example, tmp_path):
    names, output = example("metric")
    chroma = names["chroma"]
    assert "8-bit steps of colour" in output
    assert "chroma" in called("measure", "--list")
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 256, (16, 16, 1), dtype=np.uint8), 3, -1)
    assert chroma(grey, 255 - grey) == pytest.approx(0, abs=1e-9)
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 30
    assert chroma(np.zeros_like(red), red) == pytest.approx(np.sqrt((20**2 + 10**2 + 10**2) / 3))
    half = np.zeros((16, 16), bool)
    assert chroma(grey, red, half) is None
    half[:4] = True
    assert chroma(np.zeros_like(red), red, half) == pytest.approx(chroma(np.zeros_like(red), red))
    for name, picture in (("a", grey), ("b", red)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    assert "chroma" in called("measure", tmp_path / "a.png", tmp_path / "b.png", "--metric", "chroma")

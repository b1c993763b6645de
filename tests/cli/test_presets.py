"""``iterinv presets`` states what :mod:`iterinv.costs` computes, and how to get weights."""

import json

import pytest
import torch

from iterinv import costs
from iterinv.plans import Plan
from iterinv.presets import presets

from conftest import call, refused

QUICK = ("embedded", "sd15")


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in presets() if name not in QUICK)]
)
def test_sizes_and_memory_are_those_that_costs_computes(name):
    preset = presets()[name]
    assert preset.licence
    if name == "terrain":
        assert (preset.weights, preset.memory) == (0, (0, 0))
        return
    stages = costs.costs(name, Plan(), torch.float16)
    assert preset.pixels == tuple(stage.size for stage in stages)
    whole = {stage.source: stage.weights + stage.codec_weights + stage.text_weights for stage in stages}
    assert preset.weights == sum(whole.values())
    assert preset.memory == pytest.approx([costs.peak(stages, mode) for mode in ("resident", "layered")], rel=0.02)


def test_what_is_not_here_is_listed_with_the_command_that_gets_it(monkeypatch):
    monkeypatch.setattr("iterinv.presets.index_in_cache", lambda name: None)
    listed = json.loads(call("presets", "--json").stdout)["presets"]
    assert list(listed) == list(presets())
    assert listed["embedded"]["missing"] == listed["embedded"]["get"] == []
    assert listed["sd15"]["get"] == ["type: hf download stable-diffusion-v1-5/stable-diffusion-v1-5"]
    assert listed["deepfloyd"]["gated"]
    assert not listed["sdxl"]["gated"]
    one = call("presets", "deepfloyd").stdout
    assert one.count("accept the licence at") == 2
    lines = {line.split()[0]: line for line in call("presets").stdout.splitlines() if line.strip()}
    assert {"embedded", "sd15", "terrain"} <= set(lines)
    assert " no " in lines["sd15"]
    assert " yes " in lines["embedded"]


def test_an_unknown_preset_is_refused():
    refused("there is no preset 'magic': the presets are deepfloyd", "presets", "magic")

"""What the doctor finds: of a well cascade, of one that is not the same twice, and of weights that are not there."""

import torch
from typer.testing import CliRunner

import published
from iterinv.cli import app as command
from iterinv.doctor import findings


def test_a_well_cascade_is_well_in_float32(tiny_folder):
    told = CliRunner().invoke(command, ["doctor", "--model", str(tiny_folder)])
    assert told.exit_code == 0, told.output
    for words in (
        "torch 2",
        "deepfloyd-m",
        "not here: DeepFloyd/IF-I-M",
        "stage I, float32     the same noise twice",
        "every pixel",
    ):
        assert words in told.output


def test_a_network_that_is_not_the_same_twice_is_ill():
    pipe = published.sd()

    def restless(module, told, out):
        out.sample.add_(1e-3 * torch.randn_like(out.sample))

    pipe.unet.register_forward_hook(restless)
    found = {each.said.split(";")[0]: each.well for each in findings(pipe) if each.about == "stage I, float32"}
    assert found == {"NOT the same noise twice": False, "NOT every pixel comes back": False}


def test_what_overflows_and_what_is_missing_is_ill():
    pipe = published.sd()
    pipe.unet.conv_out.bias.data.fill_(torch.inf)
    assert "gives NaN or infinity" in next(each.said for each in findings(pipe) if each.well is False)
    told = CliRunner().invoke(command, ["doctor", "--model", "no/thing"])
    assert told.exit_code == 1
    assert "hf download no/thing" in told.output
    assert (
        any(each.about == "cuda" and each.well is False for each in findings("no/thing", "cuda")) or torch.cuda.is_available()
    )

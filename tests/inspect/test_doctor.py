"""The doctor checks a sound cascade, one that does not predict the same twice, and missing weights."""

import hashlib
import shutil
import sys

import pytest
import torch
from typer.testing import CliRunner

import published
from iterinv.__main__ import command_line
from iterinv.embedded import FOLDER
from iterinv.inspect.doctor import findings
from iterinv.manifest import peak_memory
from iterinv.models import folders


def test_a_well_cascade_is_well_in_float32(tiny_folder):
    result = CliRunner().invoke(command_line(), ["doctor", "--model", str(tiny_folder)])
    assert result.exit_code == 0, result.output
    for words in (
        "torch 2",
        "deepfloyd-m",
        "not here: DeepFloyd/IF-I-M",
        "stage I, float32     the same noise twice",
        "every pixel",
    ):
        assert words in result.output


def test_a_network_that_is_not_the_same_twice_is_ill():
    pipe = published.sd()

    def restless(module, arguments, out):
        out.sample.add_(1e-3 * torch.randn_like(out.sample))

    pipe.unet.register_forward_hook(restless)
    verdicts = {each.said.split(";")[0]: each.well for each in findings(pipe) if each.about == "stage I, float32"}
    assert verdicts == {"NOT the same noise twice": False, "NOT every pixel comes back": False}


def test_what_overflows_and_what_is_missing_is_ill():
    pipe = published.sd()
    pipe.unet.conv_out.bias.data.fill_(torch.inf)
    assert "gives NaN or infinity" in next(each.said for each in findings(pipe) if each.well is False)
    result = CliRunner().invoke(command_line(), ["doctor", "--model", "no/thing"])
    assert result.exit_code == 1
    assert "hf download no/thing" in result.output
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="there is no device 'cuda' here"):
            next(findings("no/thing", "cuda"))


def test_weights_other_than_their_hashes_are_told_of(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "cascade")
    folders.seal(folder)
    sound = next(each.well for each in findings(folder) if each.about == "weights")
    (folder / "stage2" / "unet" / "config.json").unlink()
    with (folder / "stage1" / "unet" / "diffusion_pytorch_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    said = next(each for each in findings(folder) if each.about == "weights")
    assert (sound, said.well) == (True, False)
    assert "stage1/unet/diffusion_pytorch_model.safetensors, stage2/unet/config.json damaged or missing" in said.said
    assert folders.damaged(FOLDER) == []


def test_the_hubs_cache_is_checked_by_its_names(tmp_path, monkeypatch):
    """The cache names large files by their own hash, small files not."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    for name, content in (("model_index.json", b"{}"), ("good.safetensors", b"good"), ("bad.safetensors", b"bad")):
        blob = blobs / (hashlib.sha256(content).hexdigest() if "safe" in name else "0" * 40)
        blob.write_bytes(b"worse" if content == b"bad" else content)
        (snapshot / name).symlink_to(blob)
    monkeypatch.setattr("iterinv.inspect.doctor.index_in_cache", lambda name: snapshot / "model_index.json")
    for model in ("sd15", "someone/picture@v2"):
        said = next(each for each in findings(model) if each.about == "weights")
        assert "bad.safetensors damaged" in said.said
        assert "good" not in said.said


def test_memory_of_a_block_is_its_own():
    """Earlier work does not count: its pages are given back, and the kernel's mark is reset."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux lets a process reset its peak")
    with peak_memory() as large:
        torch.ones(100_000_000).sum()
    with peak_memory() as small:
        torch.ones(1_000_000).sum()
    assert large() - small() > 300

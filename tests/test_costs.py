"""The computed cost of a cascade agrees with the published sizes and with measured memory and calls."""

import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

import iterinv
from iterinv import costs
from iterinv.__main__ import command_line
from iterinv.families import PUBLISHED
from iterinv.methods import plan

STATED = {  # the parameters that their makers state, and for SD and SDXL those of the public weights
    "DeepFloyd/IF-I-M-v1.0": 400e6,
    "DeepFloyd/IF-I-L-v1.0": 900e6,
    "DeepFloyd/IF-I-XL-v1.0": 4.3e9,
    "DeepFloyd/IF-II-M-v1.0": 450e6,
    "DeepFloyd/IF-II-L-v1.0": 1.2e9,
    "stabilityai/stable-diffusion-x4-upscaler": 473e6,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": 859.5e6,
    "stabilityai/stable-diffusion-2-1": 865.9e6,
    "stabilityai/stable-diffusion-xl-base-1.0": 2567e6,
    "stabilityai/stable-diffusion-3.5-medium": 2.47e9,  # of which 0.23e9 are stored positions
    "black-forest-labs/FLUX.1-dev": 11.9e9,
    "black-forest-labs/FLUX.1-schnell": 11.9e9,
}


def count(network):
    return sum(x.numel() for x in network.state_dict().values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_the_size_that_is_stated(name):
    with torch.device("meta"):
        made = PUBLISHED[name]
        network = made.network()
        assert count(network) == pytest.approx(STATED[name], rel=0.1)
        for each in (network, made.vae()) if made.vae else (network,):  # as costs.Attention counts it
            used = {type(processor).__name__ for processor in each.attn_processors.values()}
            assert used <= {"AttnProcessor2_0", "AttnAddedKVProcessor2_0", "JointAttnProcessor2_0", "FluxAttnProcessor"}
        if name.startswith("DeepFloyd"):
            assert count(made.texts[0]()) == pytest.approx(4.7e9, rel=0.1)


def test_what_is_held_is_what_lives_at_once():
    """Three tensors of 4 kB are made, of which at most two live at a time; a view is not another tensor."""
    with costs.PeakMemory() as memory:
        x = torch.ones(1000)
        y = x + 1
        z = y.reshape(10, 100)
        del x
        y = z.reshape(-1) * 2
    assert memory.peak == 8000
    assert memory.now == 8000
    del y, z
    assert memory.now == 0


def test_attention_is_counted_and_its_matrix_not_held():
    q, k = (torch.empty(1, 2, n, 8, device="meta") for n in (64, 77))
    with costs.PeakMemory() as memory, costs.Attention() as attention:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, k)
    assert out.shape == q.shape
    assert attention.flops == 2 * 2 * 2 * 64 * 77 * 8
    assert memory.peak == 4 * q.numel()


def test_attentions_matrix_is_not_held_here_either():
    """The head is as wide as an autoencoder's, where the matrix would be 64 MiB: hence no attention is sliced."""
    code = """
import resource, torch
from torch.nn.functional import scaled_dot_product_attention
held = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
q = torch.randn(1, 1, 4096, 512)
scaled_dot_product_attention(q[:, :, :512], q[:, :, :512], q[:, :, :512])
before = held()
scaled_dot_product_attention(q, q, q)
print(held() - before)
"""
    extra = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert extra * (1 if sys.platform == "darwin" else 1024) < 32 * 2**20


def test_a_folders_cost_is_what_its_weights_and_an_inversion_show(tiny, tiny_folder, picture):
    for method, guidance in (("bdia", 1.0), ("ddim", 1.0), ("iterinv", 1.0), ("edict", 3.0)):
        how = plan(method, 4, guidance)
        stage_costs = costs.costs(tiny_folder, how)
        done = tiny.invert(picture, "a red sphere", how)
        for cost, stage, each in zip(stage_costs, tiny.stages, done.stages, strict=True):
            assert (cost.size, cost.forward, cost.backward) == (stage.size, each.report.forward, each.report.backward)
            assert cost.parameters == count(stage.denoiser.unet)
            assert cost.weights == 4 * cost.parameters
            assert 0 < cost.layer < cost.weights
            assert cost.flops > 2 * cost.parameters
    half = costs.costs(tiny_folder, plan("bdia", 4), torch.float16)
    assert [cost.weights for cost in half] == [2 * cost.parameters for cost in half]
    peaks = [costs.peak(stage_costs, mode) for mode in costs.MODES]
    assert peaks == sorted(peaks, reverse=True)


def test_the_command_says_it_without_weights():
    result = CliRunner().invoke(command_line(), ["cost", "deepfloyd-m", "--method", "ddim"])
    assert result.exit_code == 0, result.output
    for words in ("IF-I-M-v1.0", "4,762 M", "its autoencoder", "with a layer at a time", "GFLOP/s"):
        assert words in result.output
    result = CliRunner().invoke(command_line(), ["cost", "nothing"])
    assert result.exit_code != 0
    assert "the cost of nothing is not known" in result.output
    result = CliRunner().invoke(command_line(), ["cost", "--dtype", "int8"])
    assert "there is no precision 'int8' for networks" in result.output


def test_what_stages_given_one_by_one_cost_is_not_known(tiny_folder):
    with pytest.raises(FileNotFoundError, match="only for preset names and local folders: leave `memory` out"):
        iterinv.load([tiny_folder], memory="16gb")


def test_a_device_that_is_not_there_is_a_sentence():
    result = CliRunner().invoke(command_line(), ["cost", "embedded", "--device", "gpu"])
    assert result.exit_code == 2
    assert "there is no device 'gpu' here: take cpu" in result.output

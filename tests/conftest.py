"""The fixtures make a tiny cascade of real diffusers classes with random weights, in folders like the shipped ones."""

import json
from pathlib import Path

import pytest
import torch

from iterinv.observer import Observer

torch.set_num_threads(1)

RECIPE = {
    "text": {"width": 32, "heads": 2, "feed_forward": 32, "layers": 1, "tokens": 77},
    "stages": [
        {
            "name": "I",
            "size": 16,
            "channels": [32, 32],
            "mid": "UNetMidBlock2DSimpleCrossAttn",
            "prediction": "epsilon",
            "sample_max": 1.5,
            "down": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        },
        {
            "name": "II",
            "size": 32,
            "low": 16,
            "channels": [32, 32],
            "mid": "UNetMidBlock2DSimpleCrossAttn",
            "prediction": "epsilon",
            "sample_max": 1.0,
            "down": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        },
        {
            "name": "III",
            "size": 64,
            "low": 32,
            "channels": [16, 32],
            "mid": None,
            "prediction": "epsilon",
            "sample_max": 1.0,
            "down": ["ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"],
        },
    ],
}


def result(work):
    """Run a generator to its end and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


class Hearing(Observer):
    """An observer that records every event."""

    def __init__(self):
        self.steps, self.calls, self.notes = [], [], []

    def on_step(self, stage, phase, done, total, timestep, state):
        self.steps.append((stage, phase, done, total, timestep))

    def on_call(self, stage):
        self.calls.append(stage)

    def on_note(self, text):
        self.notes.append(text)


def field_of(stage, condition, scale=1.0, denoiser=None):
    """Return the field of a condition under guidance away from the empty prompt."""
    from iterinv.guidance import CFG

    return CFG(scale)(denoiser or stage.denoiser, condition, stage.with_prompt(condition, None))


def draw(shape, seed):
    """Return unit noise of a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(folder: Path, seed: int = 0) -> Path:
    from iterinv.embedded.train import networks

    torch.manual_seed(seed)
    words = networks.tokenizer(77)
    text = words, networks.text_encoder(RECIPE, len(words))
    for k, stage in enumerate(RECIPE["stages"]):
        network = networks.unet(RECIPE, stage)
        network.conv_out.weight.data *= 0.2  # a trained field is smoother than a random one
        networks.save_stage(folder / f"stage{k + 1}", network, stage, None if stage.get("low") else text)
    (folder / "cascade.json").write_text(json.dumps({"stages": ["stage1", "stage2", "stage3"], "noise_level": 100}))
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    from iterinv.cascade import load

    return load(str(tiny_folder))


@pytest.fixture
def picture():
    """Return a picture (1, 3, 64, 64) of 8-bit values in [-1, 1]."""
    from iterinv.embedded.scenes import Scene, render
    from iterinv.images import from_uint8, to_uint8

    return from_uint8(to_uint8(render(Scene.random(3), 64)[None]))


@pytest.fixture
def first(tiny):
    """Return the first stage of the tiny cascade, as a cascade."""
    from iterinv.cascade import Cascade

    return Cascade(tiny.stages[:1])


def call(*words):
    """Run the command line in this process."""
    from typer.testing import CliRunner

    from iterinv.__main__ import command_line

    return CliRunner().invoke(command_line(), [str(word) for word in words])


def refused(words, *command):
    """Assert that a command is refused by a sentence with these words, and exit code 2."""
    result = call(*command)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split()), result.output
    assert "Traceback" not in result.output


@pytest.fixture(scope="session")
def one_stage(tiny_folder):
    """Return the folder of the first stage of the tiny cascade, of 16 px."""
    return tiny_folder / "stage1"


@pytest.fixture(scope="session")
def made(one_stage, tmp_path_factory):
    """Return a folder with a picture of 16 px, its edit with the inversion, a sample, a comparison, a sweep, and two
    evaluations."""
    folder = tmp_path_factory.mktemp("made")
    import numpy as np
    from PIL import Image

    prompt, to = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    Image.fromarray(255 - pixels).save(folder / "other.png")
    (folder / "photo.txt").write_text(prompt)
    model = "--model", one_stage
    how = folder / "photo.png", "--prompt", prompt, "--steps", 3, *model
    for words in (
        ("edit", *how, "--to", to, "--editor", "prompt-swap", "--keep-inversion", "--out", folder / "edit"),
        ("compare", *how, "--methods", "bdia,ddim", "--out", folder / "compare"),
        ("sweep", *how, "--to", to, "--editor", "sdedit", "--strength", "0.4,1", "--out", folder / "sweep"),
        ("sample", prompt, "--steps", 2, "--count", 2, *model, "--out", folder / "sample"),
        *(
            ("evaluate", "--data", "scene-edit", "--count", 1, "--steps", n, *model, "--out", folder / f"run{n}")
            for n in (2, 3)
        ),
    ):
        result = call(*words)
        assert result.exit_code == 0, result.output
    return folder

"""Networks that take turns on the device give the same noise and the same inversion."""

import pytest
import torch

import iterinv
from iterinv import costs, sources
from iterinv.cascade import Cascade
from iterinv.guidance import unguided
from iterinv.images import to_uint8
from iterinv.methods import plan
from iterinv.models import memory

PROMPT = "a red sphere"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ITERINV_CACHE", str(tmp_path / "words"))
    return tmp_path / "words"


def test_networks_take_turns_and_a_cascade_says_the_same(tiny, tiny_folder, picture, tmp_path, monkeypatch):
    folders = [tiny_folder / f"stage{k}" for k in (1, 2, 3)]
    plain = Cascade(sources.stages(folders, noise_level=100))
    assert plain.fingerprint == tiny.fingerprint
    for mode in costs.MODES:
        monkeypatch.setenv("ITERINV_CACHE", str(tmp_path / mode))
        cascade = Cascade(sources.stages(folders, noise_level=100, mode=mode))
        assert cascade.fingerprint == plain.fingerprint
        inversion = cascade.invert(picture, PROMPT, plan("bdia", 3))
        assert (to_uint8(inversion.picture) == to_uint8(picture)).all()
        torch.testing.assert_close(
            inversion.stages[-1].noise, plain.invert(picture, PROMPT, plan("bdia", 3)).stages[-1].noise
        )


def test_one_network_is_on_the_device_at_a_time(monkeypatch):
    """A stand-in for a device records where each network was last sent."""
    where = {}

    class Network(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def to(self, device):
            where[self.name] = device
            return self

        def forward(self, x):
            assert where == {name: "gpu" if name == self.name else "cpu" for name in where}
            return x

    turns = memory.DeviceRotation("gpu")
    networks = [Network(name) for name in ("I", "II", "vae")]
    for network in networks:
        turns.join(network)
    assert set(where.values()) == {"cpu"}
    for k in (0, 0, 1, 2, 0, 2, 1):
        networks[k](torch.ones(1))


def test_words_are_read_once_and_the_encoder_let_go(tiny_folder, cache_folder):
    loads = []
    (first,) = sources.stages(tiny_folder / "stage1", mode="staged")
    words, load = first.embed, first.embed.load
    words.load = lambda: (loads.append(1), load())[1]
    (plain,) = sources.stages(tiny_folder / "stage1")
    assert torch.equal(words([PROMPT, ""])["text"], plain.embed([PROMPT, ""])["text"])
    assert words._encoder is not None
    field = unguided(first.denoiser, first.condition(PROMPT))
    with torch.no_grad():
        field(torch.randn(1, *first.shape), first.schedule.level(500))
    assert words._encoder is None  # the network came, and the encoder went
    before = len(loads)
    assert torch.equal(words([PROMPT])["text"], plain.embed([PROMPT])["text"])
    (again,) = sources.stages(tiny_folder / "stage1", mode="staged")
    assert torch.equal(again.embed([PROMPT])["text"], plain.embed([PROMPT])["text"])
    assert again.embed._encoder is None
    assert len(loads) == before
    words(["a blue cube"])
    assert len(loads) == before + 1
    assert {file.suffix for file in cache_folder.iterdir()} == {".safetensors"}


def test_the_way_that_fits_is_taken_and_none_is_said(tiny_folder):
    stage_costs = costs.costs(tiny_folder, plan("bdia", 20))
    for mode in costs.MODES:
        size = costs.peak(stage_costs, mode)
        assert costs.fitting(tiny_folder, torch.float32, size) == mode
    with pytest.raises(MemoryError, match=r"needs 0.0 GB with a layer at a time, most of it for stage III"):
        costs.fitting(tiny_folder, torch.float32, size - 1)
    assert memory.budget("6gb", "cpu") == 6e9
    assert memory.budget("auto", "cpu") > 1e8
    for wrong in ("much", "0gb", "-3", "nan"):
        with pytest.raises(ValueError, match="say auto, or how much there is"):
            memory.budget(wrong, "cpu")
    assert (
        iterinv.load(str(tiny_folder / "stage1"), memory="auto").stages[0].embed.__class__ is memory.CachedTextEncoder
    )

"""Nothing depends on torch's default dtype or device: files, samples, edits and pictures are the same under all."""

from contextlib import contextmanager

import pytest
import torch

import iterinv
import published
from iterinv.cascade import Cascade
from iterinv.embedded import reader
from iterinv.embedded.scenes import Scene, render
from iterinv.families import edm
from iterinv.methods import METHODS
from iterinv.schedules import from_config
from iterinv.streams import draw_noise

PROMPT, TARGET = "a red sphere on a wooden floor", "a blue cube on a wooden floor"
DEFAULTS = [(torch.float64, "cpu"), (torch.bfloat16, "meta")]


@contextmanager
def default(dtype, device):
    """Set another default for a while; on the device meta nothing can be computed."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)


def photo(size):
    values = torch.randint(0, 256, (1, 3, size, size), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    return values.float() / 127.5 - 1


def saved(cascade, x, folder, method, guidance=1.0):
    """Return the bytes of an inversion's file, written and read again, and of an edit and a sample."""
    inversion = cascade.invert(x, PROMPT, method, 3, guidance)
    inversion.save(folder / "inversion.safetensors")
    again = cascade.open(folder / "inversion.safetensors")
    assert torch.equal(again.picture, inversion.picture)
    return (folder / "inversion.safetensors").read_bytes()


@pytest.mark.parametrize("what", DEFAULTS, ids=str)
def test_a_cascade_loads_inverts_edits_samples_and_saves_the_same(tiny_folder, tmp_path, what):
    def work():
        cascade = iterinv.load([tiny_folder])  # a list is not kept
        inversion = cascade.invert(x, PROMPT, "bdia", 3)
        edits = [cascade.edit(inversion, TARGET, name).pictures[-1] for name in ("adaptive-flow", "redraw", "diffedit")]
        return saved(cascade, x, tmp_path, "bdia"), cascade.fingerprint, *edits, *cascade.sample(PROMPT, 2)

    x = photo(64)
    plain = work()
    with default(*what):
        other = work()
    assert plain[:2] == other[:2]
    for a, b in zip(plain[2:], other[2:], strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:.*inverts under guidance", "ignore:undoing")
def test_every_method_inverts_the_same(tiny, tmp_path, method):
    first, x = Cascade(tiny.stages[:1]), photo(16)
    plain = saved(first, x, tmp_path, method, 2.0)
    with default(torch.bfloat16, "meta"):
        assert saved(first, x, tmp_path, method, 2.0) == plain


@pytest.mark.parametrize("what", DEFAULTS, ids=str)
@pytest.mark.parametrize("make", [published.sd, published.sdxl], ids=["sd", "sdxl"])
def test_latent_pipelines_in_a_folder_load_the_same(tmp_path, make, what):
    def work():
        cascade = iterinv.load([tmp_path])  # a list is not kept
        return cascade.fingerprint, saved(cascade, x, tmp_path, "bdia", 2.0)

    make().save_pretrained(tmp_path)
    x = photo(64)
    plain = work()
    with default(*what):
        assert work() == plain


@pytest.mark.parametrize("what", DEFAULTS, ids=str)
def test_schedules_draws_scenes_and_what_reads_them_are_the_same(what):
    def work():
        reader.load.cache_clear()
        configs = (
            {},
            {"beta_schedule": "squaredcos_cap_v2"},
            {"trained_betas": [0.1, 0.2]},
            {"beta_schedule": "scaled_linear"},
        )
        tables = [torch.tensor(from_config(each).alphas_cumprod, dtype=torch.float64, device="cpu") for each in configs]
        x = render(Scene.random(5), 64)
        return [*tables, draw_noise((3, 4), [1, 2], "a"), x, reader.features(x[None])]

    plain = work()
    with default(*what):
        other = work()
    for a, b in zip(plain, other, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    reader.load.cache_clear()


@pytest.mark.parametrize("what", DEFAULTS, ids=str)
def test_an_edm_network_inverts_and_samples_the_same(tmp_path, what):
    def work():
        cascade = Cascade((edm.stage(lambda x, s: x / (1 + s.reshape(-1, 1, 1, 1) ** 2), 16),))
        return cascade.sample("", 4)[0], cascade.invert(x, PROMPT, "bdia", 4).noise

    x = photo(16)
    plain = work()
    with default(*what):
        other = work()
    assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))

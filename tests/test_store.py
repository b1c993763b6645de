import errno
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import iterinv
from iterinv import store
from iterinv.cascade import Cascade
from iterinv.inverters import Solve
from iterinv.methods import METHODS, Method, plan
from iterinv.plans import Plan, Refinement
from iterinv.refine import Offsets
from iterinv.roots import FixedPoint
from iterinv.steps import BDIA, DDIM

from conftest import build

PROMPT = "a red sphere"


@pytest.fixture(scope="module", params=["bdia", "ddim", "iterinv-anderson", "null-text", "direct"])
def saved(tiny, request):
    picture = (torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(1)) * 255).byte().numpy()
    return tiny.invert(picture, PROMPT, plan(request.param, 5), seed=3)


@pytest.fixture
def file(saved, tmp_path):
    saved.save(tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def rewrite(file, header=None, **tensors):
    """Change parts of a file and correct its checksum; a tensor given as None is removed."""
    with safe_open(file, framework="pt") as f:
        metadata = json.loads(f.metadata()["iterinv"])
    remaining = {name: x for name, x in {**load_file(file), **tensors}.items() if x is not None}
    del metadata["sha256"]
    metadata.update(header or {})
    save_file(
        remaining, file, metadata={"iterinv": json.dumps({"sha256": store.checksum(metadata, remaining), **metadata})}
    )


def test_what_is_reopened_reruns_to_the_same_bits(tiny, saved, file):
    again = iterinv.open(file, tiny)
    rerun = tiny.rerun(again)
    for a, b in zip(saved.stages, rerun.stages, strict=True):
        assert a.plan == b.plan
        assert torch.equal(a.picture, b.picture)
        assert all(torch.equal(x, y) for x, y in zip(a.path, b.path, strict=True))
        assert (a.report.forward, a.report.residual_max) == (b.report.forward, b.report.residual_max)
    assert (np.array(rerun.images[0]) == np.array(saved.images[0])).all()
    assert (again.prompts, again.seeds) == ((PROMPT,), (3,))


def test_the_same_inversion_is_the_same_bytes(tiny, saved, file, tmp_path):
    """The inversion is made again from the picture, not only written again."""
    again = tiny.invert(saved.canvases[0].image, PROMPT, saved.stages[0].plan, seed=3)
    again.save(tmp_path / "b.safetensors")
    assert file.read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("where", [0.05, 0.3, 0.5, 0.7, 0.95])
def test_a_single_flipped_bit_is_noticed(tiny, file, where):
    whole = bytearray(file.read_bytes())
    whole[int(where * len(whole))] ^= 4
    file.write_bytes(whole)
    with pytest.raises(store.BadInversion, match=r"a\.safetensors"):
        iterinv.open(file, tiny)


@pytest.mark.parametrize("method", ["bdia", "null-text", "edit-friendly"])
@pytest.mark.filterwarnings("ignore:.*inverts under guidance")
def test_a_batch_is_saved_and_reopened(tiny, tmp_path, method):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 64, 3), dtype=np.uint8)
    both = tiny.invert(list(pictures), [PROMPT, "a blue cube"], plan(method, 3, 3.0), seed=[1, 2])
    both.save(tmp_path / "c.safetensors")
    again = iterinv.open(tmp_path / "c.safetensors", tiny)
    assert (again.prompts, again.seeds) == ((PROMPT, "a blue cube"), (1, 2))
    assert torch.equal(again.picture, both.picture)
    edits = (tiny.edit(each, "a red cube", "diffedit").images for each in (again, both))
    for a, b in zip(*edits, strict=True):
        assert (np.array(a) == np.array(b)).all()


def test_bad_files_are_refused_with_a_sentence(tiny, tmp_path):
    with pytest.raises(store.BadInversion, match="there is no file"):
        iterinv.open(tmp_path / "none.safetensors", tiny)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(store.BadInversion, match="truncated or not an inversion file"):
        iterinv.open(tmp_path / "text", tiny)
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(store.BadInversion, match="no iterinv header"):
        iterinv.open(tmp_path / "other.safetensors", tiny)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tiny, file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(store.BadInversion, match="truncated"):
        iterinv.open(file, tiny)


def test_another_model_is_refused(file, tmp_path):
    other = iterinv.load(str(build(tmp_path / "other", seed=1)))
    with pytest.raises(store.BadInversion, match="not by the one loaded"):
        iterinv.open(file, other)


def test_another_version_is_refused(tiny, file):
    rewrite(file, {"format": 99})
    with pytest.raises(store.BadInversion, match=f"has format 99; this version reads format {store.FORMAT}"):
        iterinv.open(file, tiny)


def test_values_that_are_not_finite_are_refused(tiny, file):
    rewrite(file, **{"1.state.0": torch.full((1, 3, 32, 32), float("nan"), dtype=torch.float64)})
    with pytest.raises(store.BadInversion, match=r"1\.state\.0 holds NaN"):
        iterinv.open(file, tiny)


def test_missing_or_misshapen_parts_are_refused(tiny, file):
    rewrite(file, **{"2.condition.low_noise": torch.zeros(1, 3, 8, 8)})
    with pytest.raises(store.BadInversion, match=r"2\.condition\.low_noise is \(1, 3, 8, 8\)"):
        iterinv.open(file, tiny)
    rewrite(file, **{"2.condition.low_noise": None})
    with pytest.raises(store.BadInversion, match=r"it lacks the tensor 2\.condition\.low_noise"):
        iterinv.open(file, tiny)
    rewrite(file, {"stages": []})
    with pytest.raises(store.BadInversion, match="0 stages"):
        iterinv.open(file, tiny)


def test_headers_that_other_programs_wrote_are_refused(tiny, file):
    whole = file.read_bytes()
    with safe_open(file, framework="pt") as f:
        header = json.loads(f.metadata()["iterinv"])
    (first, *rest), (canvas,) = header["stages"], header["canvases"]
    grid = [[*first["grid"][0][:1], first["grid"][0][1] + 1e-3, *first["grid"][0][2:]], *first["grid"][1:]]
    odd_plans = [
        {"steps": "5"},
        {"dtype": "float16"},
        {"guidance": "1"},
        {"rule": {"name": "os.system"}},
        {"steps": 10**9},
    ]
    cases = [
        ({"stages": [{**first, "grid": grid}, *rest]}, "the grid of stage I"),
        *(({"stages": [{**first, "start": odd}, *rest]}, "does not start from") for odd in (5, 2)),
        *(({"stages": [{**first, "start": odd}, *rest]}, r"stages\[0\].start is") for odd in (-1, "1", None)),
        *(({"stages": [{**first, "plan": {**first["plan"], **odd}}, *rest]}, "safetensors") for odd in odd_plans),
        ({"canvases": [{**canvas, "size": 32}]}, "does not lie under"),
        ({"canvases": [{**canvas, "top": 9}]}, "does not lie under"),
        ({"prompts": []}, "0 prompts"),
        ({"seeds": [1, 2]}, "2 seeds"),
        ({"canvases": [{**canvas, "size": "64", "top": None, "left": []}]}, r"canvases\[0\].size is '64', a str"),
    ]
    for header, words in cases:
        file.write_bytes(whole)
        rewrite(file, header)
        with pytest.raises(store.BadInversion, match=words):
            iterinv.open(file, tiny)
    for odd in ("null", "5", "[]", '"text"', "{}", "not JSON", "[" * 10_000):
        save_file({"x": torch.zeros(2)}, file, metadata={"iterinv": odd})
        with pytest.raises(store.BadInversion, match="lacks or garbles"):
            iterinv.open(file, tiny)


def test_tensors_of_another_kind_are_refused(tiny, file):
    whole, original = file.read_bytes(), load_file(file)
    odd = {
        "0.state.0": original["0.state.0"].half(),
        "1.state.0": original["1.state.0"] > 0,
        "image.0": original["image.0"].float(),
        "1.condition.low_image": torch.zeros(2, 3, 16, 16),
        "2.condition.low_image": torch.zeros(1, 3, 5, 7),
    }
    for name, x in odd.items():
        file.write_bytes(whole)
        rewrite(file, **{name: x})
        with pytest.raises(store.BadInversion, match=f"the tensor {name} is"):
            iterinv.open(file, tiny)


def test_nothing_is_left_when_writing_fails(saved, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"d\.safetensors cannot be written \(No space left on device\): make room"):
        saved.save(tmp_path / "d.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_canvas_comes_back(tiny, saved, file):
    again = iterinv.open(file, tiny).canvases[0]
    assert (again.image == saved.canvases[0].image).all()
    assert (again.extent, again.top, again.left) == ((64, 64), -8, 0)


@dataclass(frozen=True)
class Halved(DDIM):
    """A user's own rule."""

    share: float = 0.5


def test_a_rule_of_ones_own_is_refused_when_saved_unless_it_is_listed(tiny, tmp_path, monkeypatch):
    first = Cascade(tiny.stages[:1])
    x = torch.zeros(1, 3, 16, 16)
    saved = first.invert(x, "a red sphere", Plan(Halved(0.25), Solve(FixedPoint(1)), steps=3))
    with pytest.raises(ValueError, match=r"Halved\+FixedPoint cannot be saved, .*list them"):
        saved.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(METHODS, "halved", Method("one's own", Halved(), Solve(FixedPoint(1))))
    saved.save(tmp_path / "a.safetensors")
    assert iterinv.open(tmp_path / "a.safetensors", first).stages[0].plan == saved.stages[0].plan
    monkeypatch.delitem(METHODS, "halved")
    with pytest.raises(store.BadInversion, match="it uses 'Halved', which is not known here"):
        iterinv.open(tmp_path / "a.safetensors", first)


@dataclass(frozen=True)
class Nudged(Offsets):
    """A user's own refinement, which states no shapes."""

    exact = False
    shapes = Refinement.shapes


@dataclass(frozen=True)
class Doubled(BDIA):
    """A user's own rule, whose state is not the one that its ``init`` makes of two samples."""

    def init(self, x, *older):
        return (x,)


@pytest.mark.filterwarnings("ignore:.*")
def test_what_could_not_be_read_back_is_refused_when_it_is_saved(tiny, tmp_path, monkeypatch):
    first, x = Cascade(tiny.stages[:1]), torch.zeros(1, 3, 16, 16)
    monkeypatch.setitem(METHODS, "nudged", Method("one's own", DDIM(), Solve(FixedPoint(1)), Nudged()))
    monkeypatch.setitem(METHODS, "doubled", Method("one's own", Doubled()))
    for name, words in (
        ("nudged", "Nudged fits tensors and does not say their shapes: give it a method shapes"),
        ("doubled", r"it starts from 2 states, and its rule's init\(x, older\) makes 1"),
    ):
        with pytest.raises(ValueError, match=words):
            first.invert(x, PROMPT, name, 3).save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="its length is 0 to 100000"):
        first.invert(x, "x" * 100_001, "bdia", 3).save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())

"""Inversion files that are damaged, or forged with a right checksum, give the package's error or the right
inversion."""

import copy
import json
import math
import random
import resource
import struct
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import iterinv
from iterinv import store
from iterinv.__main__ import command_line
from iterinv.inversion import plan_to_json
from iterinv.methods import plan

from conftest import Hearing

PROMPT = "a red sphere"
METHODS = ("bdia", "bdia-fixed", "ddim", "null-text", "direct")


@pytest.fixture(scope="module")
def cascade(tiny):
    return tiny.up_to(32)


@pytest.fixture(scope="module")
def files(cascade, tmp_path_factory):
    """Make a file by each of some methods, of one picture and of two."""
    folder, photo = tmp_path_factory.mktemp("files"), np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    for k, method in enumerate(METHODS):
        pictures = [photo] if k % 2 else [photo, 255 - photo]
        made = cascade.invert(pictures, PROMPT, plan(method, 2), observer=Hearing())
        made.save(folder / method, trajectory=method == "bdia-fixed")
    return [folder / method for method in METHODS]


def parts(file):
    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["iterinv"])
    del header["sha256"]
    return header, load_file(file)


def forge(path, header, tensors, **more):
    """Write a file whose checksum fits."""
    text = json.dumps({"sha256": store.checksum(header, tensors), **header})
    save_file({name: x.contiguous() for name, x in tensors.items()}, path, {"iterinv": text, **more})


def opened(cascade, path):
    """Return the inversion in a file, or ``None`` where it is refused correctly."""
    try:
        return iterinv.open(path, cascade)
    except store.BadInversion as error:
        said = str(error)
        assert said.startswith(str(path))
        assert "Error(" not in said, said
        return None


def refused(cascade, path, words):
    with pytest.raises(store.BadInversion, match=words):
        iterinv.open(path, cascade)


def where(value, way=()):
    """Return the paths to all values within a header."""
    yield way
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        yield from where(each, (*way, key))


def changed(header, way, value):
    new = copy.deepcopy(header)
    inner = new
    for key in way[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[way[-1]]
    else:
        inner[way[-1]] = value
    return new


ODD = [
    None,
    True,
    -1,
    0,
    1,
    7,
    64.0,
    2**31,
    2**63,
    10**30,
    1e308,
    -0.5,
    math.nan,
    math.inf,
    "",
    "5",
    "x" * 3000,
    "[/x]",
    "\x1b[2J",
    "\x1b]0;x\x07",
    "\udcff",
    [],
    [1],
    [[]],
    {},
    {"name": "DDIM"},
    {"name": "os.system"},
    {"name": []},
    {"name": "Plan"},
    KeyError,
]


def same(a, b):
    pairs = [pair for f, g in zip(a.stages, b.stages, strict=True) for pair in zip(f.state, g.state, strict=False)]
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in pairs)


def harmless(way):
    """Tell whether a value only describes how an inversion was made and changes nothing that is computed."""
    return {"report", "arithmetic", "method", "pixels"} & set(way) or way[0] in ("prompts", "seeds")


def attack(cascade, files, draw, path):
    """Open one mutated or forged file; return the inversion if it is accepted."""
    file = files[draw.randrange(len(files))]
    kind = draw.randrange(6)
    if kind < 2:
        whole = bytearray(file.read_bytes())
        length = int.from_bytes(whole[:8], "little")
        for _ in range(draw.choice((1, 1, 2, 30))):
            spot = draw.randrange(8 + length if kind else len(whole))
            whole[spot] = draw.randrange(256)
        path.write_bytes(whole[: draw.choice((len(whole), len(whole), draw.randrange(len(whole))))])
        return opened(cascade, path), None
    header, tensors = parts(file)
    if kind in (2, 3):
        way = draw.choice([way for way in where(header) if way])
        value = draw.choice(ODD)
        try:
            forge(path, changed(header, way, value), tensors)
        except (UnicodeEncodeError, ValueError):
            return None, None
        return opened(cascade, path), way
    name = draw.choice(sorted(tensors))
    x = tensors[name]
    new = draw.choice(
        [
            None,
            x.half() if x.is_floating_point() else x.float(),
            x[..., :-1],
            x[:0],
            x[None],
            x.flatten(),
            x.double(),
            torch.zeros(()),
            torch.full_like(x, math.nan) if x.is_floating_point() else x.bool(),
            torch.zeros(1, 1),
            x.transpose(0, -1),
        ]
    )
    if kind == 4:
        tensors = {k: v for k, v in {**tensors, name: new}.items() if v is not None}
        taken = new is not None and (new.shape, new.dtype) == (x.shape, x.dtype)
    else:
        tensors, taken = (
            {**tensors, draw.choice(("9.state.0", "0.state.9", "x", "0.refine.x", "image.9")): x.clone()},
            False,
        )
    forge(path, header, tensors)
    outcome = opened(cascade, path)
    assert taken or outcome is None, f"{name} as {None if new is None else new.shape} was taken"
    return outcome, None


def fuzz(cascade, files, count, seed, tmp_path):
    draw, sound = random.Random(seed), [iterinv.open(file, cascade) for file in files]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(count):
        outcome, way = attack(cascade, files, draw, tmp_path / "forged")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, k  # kB
        if outcome is None or way is None:
            continue
        plans = [stage["plan"] for stage in parts(tmp_path / "forged")[0]["stages"]]
        assert [plan_to_json(stage.plan) for stage in outcome.stages] == plans, (k, way)
        assert harmless(way) or any(same(outcome, one) for one in sound), (k, way)


def test_200_mutated_or_forged_files(cascade, files, tmp_path):
    fuzz(cascade, files, 200, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
def test_5400_mutated_or_forged_files(cascade, files, tmp_path, seed):
    fuzz(cascade, files, 900, seed, tmp_path)


@pytest.mark.parametrize("way", [
    ("prompts", 0), ("seeds", 0), ("fingerprint",), ("canvases", 0, "size"), ("canvases", 0, "height"),
    ("stages", 0, "start"), ("stages", 0, "path"), ("stages", 0, "plan"), ("stages", 0, "plan", "steps"),
    ("stages", 0, "plan", "rule"), ("stages", 0, "plan", "method"), ("stages", 0, "grid", 0),
    ("stages", 0, "grid", 0, 1), ("stages", 0, "report", "forward"), ("stages", 0, "pixels", 0),
    ("arithmetic", "threads"), ("arithmetic",), ("stages",), ("prompts",), ("format",),
], ids=str)  # fmt: skip
def test_a_value_of_another_kind_is_refused_wherever_it_stands(cascade, files, tmp_path, way):
    header, tensors = parts(files[0])
    for odd in ([5, [6]], {"a": 1}, None, KeyError):
        forge(tmp_path / "a", changed(header, way, odd), tensors)
        refused(
            cascade, tmp_path / "a", "lacks or garbles a part|has format|it has|the grid of stage I|has the pixels of"
        )


def test_numbers_outside_their_ranges_are_refused(cascade, files, tmp_path):
    fixed = next(file for file in files if file.name == "bdia-fixed")
    header, tensors = parts(fixed)
    plan_of = ("stages", 0, "plan")
    for way, odd, words in (
        ((*plan_of, "rule", "bits"), -3, r"plan.rule.bits is -3|bits is -3; it is 1 to 52"),
        ((*plan_of, "steps"), 10**9, "steps is 1000000000; it is 1 to 10000"),
        ((*plan_of, "steps"), 5, "the grid of stage I"),
        ((*plan_of, "guidance"), "1", "guidance is '1', a str; it is a finite number"),
        (("canvases", 0, "size"), 64.0, r"canvases\[0\].size is 64.0, a float; it is a whole number"),
        (("seeds", 0), -1, r"seeds\[0\] is -1; it is at least 0"),
        (("prompts", 0), ["a", "b"], r"prompts\[0\] is a list|prompts\[0\] is \['a', 'b'\]"),
        (("stages", 0, "report", "seconds"), math.inf, "seconds is inf"),
        (("prompts", 0), "x" * 100_001, "its length is 0 to 100000"),
    ):
        forge(tmp_path / "a", changed(header, way, odd), tensors)
        refused(cascade, tmp_path / "a", words)


def test_stages_that_are_swapped_are_refused(cascade, files, tmp_path):
    header, tensors = parts(files[0])
    header["stages"].reverse()
    tensors = {{"0": "1", "1": "0"}.get(name[0], name[0]) + name[1:]: x for name, x in tensors.items()}
    forge(tmp_path / "a", header, tensors)
    refused(cascade, tmp_path / "a", r"lacks the tensor 1\.condition\.low_image")


def test_a_sparse_file_of_3_gb_is_refused_before_it_is_read(cascade, files, tmp_path):
    header, tensors = parts(files[0])
    text = json.dumps({"sha256": "0" * 64, **header})
    entries, at = {"__metadata__": {"iterinv": text}}, 0
    for name, x in tensors.items():
        size = x.numel() * x.element_size() if name != "image.0" else 3 * 10**9
        kinds = {torch.float64: "F64", torch.float32: "F32", torch.uint8: "U8"}
        shape = list(x.shape) if name != "image.0" else [10**9, 1, 3]
        entries[name] = {"dtype": kinds[x.dtype], "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(entries).encode()
    with open(tmp_path / "a", "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + at)
    assert (tmp_path / "a").stat().st_size > 3e9
    with mock.patch.object(store, "checksum", side_effect=AssertionError("it was read")):
        refused(cascade, tmp_path / "a", r"the tensor image.0 is \(1000000000, 1, 3\)")


def test_a_header_without_end_is_refused_before_it_is_read(cascade, tmp_path):
    with open(tmp_path / "a", "wb") as file:
        file.write(struct.pack("<Q", 2**31))
        file.truncate(2**31 + 8)
    refused(cascade, tmp_path / "a", "not an inversion file")


def test_markup_and_escapes_in_a_file_do_not_reach_the_screen(tiny_folder, tiny, tmp_path):
    tiny.invert(np.zeros((64, 64, 3), np.uint8), PROMPT, plan("bdia", 2), observer=Hearing()).save(tmp_path / "a")
    header, tensors = parts(tmp_path / "a")
    for name in ("[/x]", "[red]bdia", "\x1b[2Jbdia", ":smile:", "a\u202eb"):
        sound = name.isprintable()
        for stage in header["stages"]:
            stage["plan"]["method"] = name
        header["prompts"] = [f"a red sphere {name}"]
        forge(tmp_path / "b", header, tensors)
        words = ["reconstruct", tmp_path / "b", "--out", tmp_path / "out", "--model", tiny_folder]
        if name == ":smile:":
            words[:2] = ["edit", "--inversion", tmp_path / "b", "--to", f"a cube {name}", "--editor", "prompt-swap"]
        result = CliRunner().invoke(command_line(), [str(word) for word in words])
        assert result.exit_code == (0 if sound else 2), result.output
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
        assert (f"{name}, 2 steps" if sound else "holds characters that cannot be printed") in result.output
    header["stages"][0]["plan"]["rule"] = {"name": "\x1b[2Jx"}
    forge(tmp_path / "b", header, tensors)
    result = CliRunner().invoke(command_line(), ["reconstruct", str(tmp_path / "b"), "--model", str(tiny_folder)])
    assert result.exit_code == 2
    assert "\x1b" not in result.output

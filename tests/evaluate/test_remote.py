"""Datasets and results at addresses of other file systems: a run there is the run here."""

import json
from dataclasses import replace

import fsspec
import pytest

from iterinv.evaluate import remote
from iterinv.evaluate.datasets import open_dataset
from iterinv.evaluate.run import evaluate
from iterinv.evaluate.worker import Evaluation
from iterinv.images import save
from iterinv.workbench import Model

from conftest import call


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
def folder(tmp_path):
    """Return a dataset of two pictures on this disk."""
    from iterinv.embedded.scenes import Scene, render
    from iterinv.images import to_uint8

    here = tmp_path / "pictures"
    here.mkdir()
    rows = []
    for k in range(2):
        save(to_uint8(render(Scene.random(k), 64)[None]), here / f"{k}.png")
        rows.append({"file": f"{k}.png", "prompt": "a red sphere"})
    (here / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return here


def put(here, address):
    system, root = fsspec.core.url_to_fs(address)
    system.put(str(here), root, recursive=True)


@pytest.mark.parametrize("prefix", ["", "prompts:"])
def test_a_dataset_at_an_address_is_that_on_this_disk(folder, prefix):
    put(folder, "memory://bucket/pictures")
    here, there = open_dataset(str(folder)), open_dataset(f"{prefix}memory://bucket/pictures")
    assert (list(there.keys), there.digest, there.name) == (list(here.keys), here.digest, here.name)


def test_files_that_are_there_are_not_copied_again(folder, monkeypatch):
    put(folder, "memory://bucket/pictures")
    copy = remote.local_copy("memory://bucket/pictures")
    before = {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    (copy / "0.png").write_bytes(b"")  # as a copy that was cut off
    remote.local_copy("memory://bucket/pictures")
    after = {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    assert {path.name for path in before if before[path] != after[path]} == {"0.png"}
    assert (copy / "0.png").read_bytes() == (folder / "0.png").read_bytes()


def test_one_file_may_be_an_address(folder):
    put(folder / "prompts.jsonl", "memory://bucket/prompts.jsonl")
    assert remote.local_copy("memory://bucket/prompts.jsonl").read_bytes() == (folder / "prompts.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("memory://bucket/nothing", FileNotFoundError, "there is nothing at memory://bucket/nothing"),
        ("nosuch://bucket", OSError, "nosuch://bucket cannot be used"),
        ("sftp://host/pictures", ModuleNotFoundError, "sftp://host/pictures needs another package"),
    ],
)
def test_addresses_that_cannot_be_used_are_sentences(address, error, message, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "paramiko", None)
    with pytest.raises(error, match=message):
        remote.local_copy(address)


def test_a_listing_that_leads_outside_is_refused(folder, monkeypatch):
    put(folder, "memory://bucket/pictures")
    system = fsspec.filesystem("memory")
    monkeypatch.setattr(type(system), "find", lambda *_, **__: {"/bucket/pictures/../../evil": {"size": 1}})
    with pytest.raises(OSError, match="which lies outside it"):
        remote.local_copy("memory://bucket/pictures")


def test_a_run_at_an_address_has_the_bytes_of_one_here_and_goes_on(tiny_folder, folder, tmp_path):
    put(folder, "memory://bucket/pictures")
    words = ["evaluate", "--methods", "bdia", "--steps", "2", "--size", "16", "--threads", "1", "--model", tiny_folder]
    here = call(*map(str, [*words, "--data", folder, "--out", tmp_path / "here"]))
    first = [*words, "--data", "memory://bucket/pictures", "--out", "memory://bucket/run"]
    there = call(*map(str, [*first, "--count", "1"]))
    assert (here.exit_code, there.exit_code) == (0, 0), here.output + there.output
    memory = fsspec.filesystem("memory")
    assert memory.cat("/bucket/run/results.jsonl").count(b"\n") == 1
    for copy in (tmp_path / "cache").rglob("results.jsonl"):
        copy.unlink()  # as on another machine
    again = call(*map(str, first))
    assert again.exit_code == 0, again.output
    results = (tmp_path / "here" / "results.jsonl").read_bytes()
    assert memory.cat("/bucket/run/results.jsonl") == results
    names = {
        path.relative_to(tmp_path / "here").as_posix() for path in (tmp_path / "here").rglob("*") if path.is_file()
    }
    assert {name.removeprefix("/bucket/run/") for name in memory.find("/bucket/run")} == names
    paired = call("report", "memory://bucket/run", str(tmp_path / "here"))
    assert paired.exit_code == 0, paired.output


def test_rows_are_copied_while_a_run_goes_on_and_after_an_error(tiny_folder, monkeypatch):
    monkeypatch.setattr(remote, "BETWEEN", 0.0)
    evaluation = Evaluation("scenes", Model(str(tiny_folder)).load, steps=2, size=16, count=2, threads=1)
    memory, copied = fsspec.filesystem("memory"), []

    def lines():
        path = "/bucket/run/results.jsonl"
        return memory.cat(path).count(b"\n") if memory.exists(path) else 0

    def stopped():
        with remote.working_folder("memory://bucket/run") as (here, after_row):
            for _ in evaluate(replace(evaluation, metrics=("mse",)), here):
                after_row()
                copied.append(lines())
            (here / "last.txt").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert copied == [0, 1, 2]
    assert memory.cat("/bucket/run/last.txt") == b"x"

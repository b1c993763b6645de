"""Commands are killed at random moments: the files that remain are all of one run, and the last run gives the same
bytes."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time

import numpy as np
import pytest
from PIL import Image

from iterinv.__main__ import command_line
from iterinv.outputs import outputs
from iterinv.workbench import Model

PROMPT = "a red sphere on a wooden floor"
MEASURED = ("seconds", "peak_memory_mb")
"""Keys of reports that differ from run to run."""


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    return path


def work(words):
    """Run a command in a forked child, in which the cascade is loaded already."""
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        command_line()([str(word) for word in words], standalone_mode=False)


def start(words):
    process = multiprocessing.get_context("fork").Process(target=work, args=(words,))
    process.start()
    return process


def finish(words):
    process = start(words)
    process.join()
    assert process.exitcode == 0


def plain(values):
    if isinstance(values, dict):
        return {key: plain(value) for key, value in values.items() if key not in MEASURED}
    return [plain(value) for value in values] if isinstance(values, list) else values


def content(file):
    if file.suffix == ".json":
        return plain(json.loads(file.read_text()))
    if file.suffix == ".jsonl":
        return sorted(json.dumps(plain(json.loads(line))) for line in file.read_text().splitlines() if line)
    if file.name == "compare.png":  # the plot shows measured values, except the time
        return Image.open(file).size
    return file.read_bytes()


def contents(folder):
    return {str(file.relative_to(folder)): content(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def kill(words, draw, longest):
    process = start(words)
    time.sleep(draw.uniform(0, longest))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


def duration(words):
    began = time.monotonic()
    finish(words)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize(("command", "times"), [("invert", 30), ("edit", 30), ("compare", 20), ("sample", 20)])
def test_a_folder_is_all_of_one_run_whenever_runs_are_killed(tiny_folder, photo, tmp_path, command, times):
    """Two runs with other seeds take turns, so that their files differ."""
    Model(str(tiny_folder)).load()
    words = {
        "invert": ["invert", photo, "-p", PROMPT],
        "edit": ["edit", photo, "-p", PROMPT, "-t", "a blue cube", "--editor", "prompt-swap"],
        "compare": ["compare", photo, "-p", PROMPT, "--methods", "bdia,direct"],
        "sample": ["sample", PROMPT, "--count", 2],
    }[command]

    def ways(folder):
        return [[*words, "-n", 2, "--model", tiny_folder, "--out", folder, "--seed", seed] for seed in (1, 2)]

    longest = 0.0
    for k, way in enumerate(ways(tmp_path / "whole1")):
        way[way.index("--out") + 1] = tmp_path / f"whole{k}"
        longest = max(longest, duration(way))
    whole, out = [contents(tmp_path / f"whole{k}") for k in (0, 1)], tmp_path / "out"
    assert whole[0] != whole[1]
    draw, killed, k = random.Random(command), 0, 0
    out.mkdir()
    while killed < times:
        k += 1
        killed += kill(ways(out)[k % 2], draw, longest)
        with outputs(out):  # the next run on the folder
            pass
        assert contents(out) in [{}, *whole]
    for k, way in enumerate(ways(out)):
        finish(way)
        assert contents(out) == whole[k]
    assert not list(out.glob(".iterinv-*"))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["scenes", "samples"])
def test_an_evaluation_that_is_killed_is_gone_on_with_to_the_same_end(tiny_folder, tmp_path, command):
    Model(str(tiny_folder)).load()
    words = {
        "scenes": ["scenes", "--count", 3, "--kinds", "wall,recolour", "--editor", "prompt-swap", "-n", 2],
        "samples": ["samples", "--count", 45, "-n", 2],
    }[command]

    def way(folder):
        return ["evaluate", *words, "--model", tiny_folder, "--out", folder]

    longest = duration(way(tmp_path / "whole"))
    draw, killed = random.Random(0), 0
    for _ in range(15):
        killed += kill(way(tmp_path / "out"), draw, 0.5 * longest)
    assert killed >= 5
    finish(way(tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")

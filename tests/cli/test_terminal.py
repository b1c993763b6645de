"""The command line works on every kind of terminal (encodings, closed pipes, files) and reports errors before the
work."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iterinv import workbench
from iterinv.files import printable

from conftest import call

PROMPT = "a red sphere on a wooden floor"


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(*words, encoding="utf-8", **how):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    words = [sys.executable, "-m", "iterinv", *map(os.fspath, map(str, words))]
    return subprocess.run(words, env=environment, **{"capture_output": True, **how})


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_what_the_encoding_of_a_terminal_lacks_is_printed_as_escapes(tiny_folder, tmp_path, photo, encoding):
    how = "-p", f"{PROMPT} 🔵", "--to", "a blue 🔵 “sphere”", "--editor", "prompt-swap", "-n", "2"
    done = run("edit", photo, *how, "--out", tmp_path / "öut🔵", "--model", tiny_folder, encoding=encoding)
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode(encoding)
    assert r"\U0001f535" in said
    assert ("“sphere”" in said) == (encoding == "cp1252")
    assert b"Traceback" not in done.stderr
    assert len(list((tmp_path / "öut🔵").iterdir())) == 5


@pytest.mark.parametrize(
    "words",
    [
        ["methods"],
        ["edit", "--help"],
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in (["--help"], ["version"], ["editors"], ["samplers"], ["measure", "--list"])
        ),
    ],
)
def test_a_reader_that_has_gone_ends_it_silently(words):
    end, begin = os.pipe()
    os.close(end)
    done = run(*words, stdout=begin, stderr=subprocess.PIPE, capture_output=False)
    os.close(begin)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.slow
def test_a_reader_that_has_gone_leaves_nothing_half_written(tiny_folder, tmp_path, photo):
    """Notes go to standard error, whose reader is gone as well: the run ends there."""
    end, begin = os.pipe()
    os.close(end)
    words = "invert", photo, "-p", PROMPT, "-n", "2", "--out", tmp_path / "out", "--model", tiny_folder
    done = run(*words, stdout=begin, stderr=begin, capture_output=False)
    os.close(begin)
    assert done.returncode == 141
    assert sorted(file.name for file in tmp_path.iterdir()) == ["photo.png"]


@pytest.mark.parametrize("words", [["methods"], ["--help"]])
def test_output_that_cannot_be_written_is_a_sentence(words):
    with open("/dev/full", "wb") as full:
        done = run(*words, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 2
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.fixture
def unloaded(monkeypatch):
    def load(self):
        raise AssertionError("the model was loaded first")

    monkeypatch.setattr(workbench.Model, "load", load)


WRONG = [
    ("there is no file", "invert", "none.png", "-p", PROMPT),
    ("there is no file", "edit", "none.png", "-p", PROMPT, "--to", "a cube"),
    ("there is no file", "compare", "none.png", "-p", PROMPT),
    ("there is no file", "reconstruct", "none.safetensors"),
    ("there is no file", "edit", "--inversion", "none.safetensors", "--to", "a cube"),
    ("truncated or not an inversion", "reconstruct", "photo.png"),
    ("not a picture", "invert", "text.png", "-p", PROMPT),
    ("not one of pad, crop", "invert", "photo.png", "-p", PROMPT, "--fit", "stretch"),
    ("not one of pad, crop", "compare", "photo.png", "-p", PROMPT, "--fit", "stretch"),
    ("there is no method 'magic'", "compare", "photo.png", "-p", PROMPT, "--methods", "bdia,magic"),
    ("there is no method 'magic'", "invert", "photo.png", "-p", PROMPT, "--method", "magic"),
    ("there is no editor 'magic'", "edit", "photo.png", "-p", PROMPT, "--to", "x", "--editor", "magic"),
    ("strength is 2.0", "edit", "photo.png", "-p", PROMPT, "--to", "x", "--editor", "diffedit", "--strength", "2"),
    ("there is no sampler 'magic'", "sample", PROMPT, "--sampler", "magic"),
    ("guidance is nan", "sample", PROMPT, "--guidance", "nan"),
    ("guidance is nan", "invert", "photo.png", "-p", PROMPT, "--guidance", "nan"),
    ("guidance is 7,x", "invert", "photo.png", "-p", PROMPT, "--guidance", "7,x"),
    ("2 methods and 3 guidance scales", "invert", "photo.png", "-p", PROMPT, "-m", "ddim,bdia", "--guidance", "1,2,3"),
    ("there is no method 'x'", "edit", "photo.png", "-p", PROMPT, "--to", "x", "-m", "bdia,x"),
    ("guidance is inf", "edit", "photo.png", "-p", PROMPT, "--to", "x", "--edit-guidance", "inf"),
    ("no kind of edit 'teleport'", "evaluate", "scenes", "--kinds", "teleport"),
    ("it is k/n", "evaluate", "scenes", "--share", "1/0"),
    ("it is k/n", "evaluate", "scenes", "--share", "3/2"),
    ("there is no method 'magic'", "evaluate", "scenes", "--method", "magic"),
    ("there is no editor 'magic'", "evaluate", "scenes", "--editor", "magic"),
    ("guidance is nan", "evaluate", "samples", "--guidance", "nan"),
    ("there is no sampler 'magic'", "evaluate", "samples", "--sampler", "magic"),
    ("there is no method 'magic'", "evaluate", "--data", "scenes", "--methods", "magic"),
    ("there is no editor 'magic'", "evaluate", "--data", "scene-edit", "--editors", "magic"),
    ("there is no metric 'magic'", "evaluate", "--data", "scenes", "--metrics", "magic"),
    ("there is no dataset none", "evaluate", "--data", "none"),
    ("nothing to edit: leave out --editors", "evaluate", "--data", "scenes", "--editors", "redraw"),
]


@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words[1:])[:60])
def test_what_is_wrong_is_said_before_a_model_loads(unloaded, photo, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("hello")
    said, *words = words
    result = call(*words, "--out", "out")
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("edit", "a.png", "-p", "A", "--prompt", "B", "-t", "A"),
        ("invert", "a.png", "-p", PROMPT, "--steps", "3", "-n", "4"),
        ("sample", PROMPT, "--seed", "1", "--seed", "1"),
        ("reconstruct", "a", "--out", "a", "-o", "b"),
        ("evaluate", "scenes", "--out", "a", "--out", "b"),
        ("evaluate", "--data", "scenes", "--data", "scene-edit"),
        ("train", "I", "--minutes", "1", "--minutes", "2"),
        ("cost", "--dtype", "float32", "--dtype", "float16"),
        ("doctor", "--model", "a", "--model", "b"),
    ],
    ids=" ".join,
)
def test_an_option_that_is_given_twice_is_refused(unloaded, words):
    result = call(*words)
    assert result.exit_code == 2
    assert "is given twice: give it once" in result.output


def test_progress_in_a_file_is_lines(tiny_folder, tmp_path, photo):
    words = "invert", photo, "-p", PROMPT, "-n", "3", "--out", tmp_path / "out", "--model", tiny_folder
    done = run(*words)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.decode().splitlines()
    for stage in ("I", "II", "III"):
        assert f"stage {stage}: inverting 3 of 3" in lines
        assert f"stage {stage}: reconstructing 3 of 3" in lines
    assert lines.index("stage I: inverting 3 of 3") < lines.index("stage II: inverting 3 of 3")
    assert not any("━" in line for line in lines)


def test_progress_within_a_long_phase_is_a_line_now_and_then(monkeypatch, capsys):
    session = importlib.import_module("iterinv.cli.session")
    now = [0.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    with session.progress() as draw:
        for k in range(1, 101):
            now[0] += 1.0
            draw.step("tasks", k, 100)
            draw.wait("stage I: 5 network calls")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "tasks 100 of 100"
    assert 8 <= len(lines) <= 11


NAMES = ["$5_$.png", "[red]photo.png", "[x].png", "a\nb.png", "\x1b[2J.png", ":smile:.png", "\\frac{.png"]


def named(folder, photo, name):
    path = os.fsencode(folder) + b"/" + (name if isinstance(name, bytes) else name.encode())
    with open(path, "wb") as file:
        file.write(photo.read_bytes())
    return os.fsdecode(path)


def test_a_name_is_text_and_no_markup(tiny_folder, tmp_path, photo):
    for name in [*NAMES, b"\xff\xfe.png"]:
        path = named(tmp_path, photo, name)
        words = "compare", path, "-p", PROMPT, "-n", 2, "--methods", "bdia", "--out", tmp_path / "out"
        result = call(*words, "--model", tiny_folder)
        assert result.exit_code == 0, (name, result.output, result.exception)
        assert "\x1b" not in result.output
        report = json.loads((tmp_path / "out" / "compare.json").read_text())
        assert os.fsencode(report["picture"]) == os.fsencode(Path(path).name)
        shown = printable(Path(path).name) if isinstance(name, str) else ".png"
        assert shown.split("\n")[-1] in result.output
        assert Image.open(tmp_path / "out" / "compare.png").size[0] > 500


@pytest.mark.slow
def test_a_name_that_is_not_text_reaches_a_real_terminal(tiny_folder, tmp_path, photo):
    path = named(tmp_path, photo, b"\xff.png")
    done = run("invert", path, "-p", PROMPT, "-n", "2", "--out", tmp_path / "out", "--model", tiny_folder)
    assert done.returncode == 0, done.stderr
    done = run("invert", path + "x", "-p", PROMPT, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert b"there is no file" in done.stderr


def test_control_characters_are_escaped_and_nothing_else():
    assert printable("a\x1b[31mb\x07\x7f\x9b\u202e\udcff") == r"a\x1b[31mb\x07\x7f\x9b\u202e\udcff"
    plain = "a\n\tb é 日本 👩‍👧 “x” [red] \\x1b"
    assert printable(plain) == plain


STOP = """
import gc, os, signal, sys, weakref
import iterinv.__main__ as m
def now(*_):
    os.kill(os.getpid(), signal.SIGINT)
    for k in range(10**5):  # a signal is answered between two instructions
        pass
class Thing:
    pass
class Finalized:
    def __del__(self):
        now()
def swallowed():
    try:
        now()
    except BaseException:
        pass
def work():
    if {kind!r} == "del":
        Finalized()
    elif {kind!r} == "weakref":
        thing = Thing()
        ref = weakref.ref(thing, now)
        del thing
    elif {kind!r} == "gc":
        gc.callbacks.append(lambda *_: now() if _[0] == "stop" else None)
        gc.collect()
    else:
        swallowed()
        import time
        print("going on", flush=True)
        time.sleep(2.5)
        os.kill(os.getpid(), signal.SIGINT)
    import time
    time.sleep(20)
    print("not stopped")
m.command_line = lambda: lambda prog_name: work()
m.main()
"""


@pytest.mark.parametrize("kind", ["del", "weakref", "gc", pytest.param("swallowed", marks=pytest.mark.slow)])
def test_ctrl_c_stops_even_where_python_would_ignore_it(kind):
    done = subprocess.run([sys.executable, "-c", STOP.format(kind=kind)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert "not stopped" not in done.stdout
    assert done.stderr.strip() == "iterinv: stopped; no file was left half-written"

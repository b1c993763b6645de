"""Result files and folders are complete or absent, and never replace an input, however a run ends."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iterinv import workbench
from iterinv.files import CannotWrite, same_file, whole
from iterinv.outputs import outputs

from conftest import call, refused

PROMPT = "a red sphere on a wooden floor"


def picture(path, seed=0, size=(48, 64)):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path, "PNG")
    return path


def write(folder, **files):
    with outputs(folder) as staging:
        for name, text in files.items():
            (staging / name).write_text(text)


def contents(folder):
    return {file.name: file.read_text() for file in folder.iterdir()}


LINKS = {
    "a symbolic link": lambda own, name: name.symlink_to(own.name),
    "a hard link": lambda own, name: os.link(own, name),
    "a link to a link": lambda own, name: ((own.parent / "mid").symlink_to(own.name), name.symlink_to("mid")),
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("command", ["invert", "edit", "compare"])
def test_a_picture_of_ones_own_is_not_replaced_through_a_link(tmp_path, kind, command):
    """The picture has the name of a result and is given by another; no model is loaded before the refusal."""
    name = {"invert": "original.png", "edit": "comparison.png", "compare": "compare.png"}[command]
    own = picture(tmp_path / name)
    LINKS[kind](own, tmp_path / "mine.png")
    before = own.read_bytes()
    more = ("--to", "a blue sphere") if command == "edit" else ()
    for out in (tmp_path, tmp_path / "there"):
        if out != tmp_path:
            out.symlink_to(tmp_path)
        refused("a result would replace", command, tmp_path / "mine.png", "-p", PROMPT, *more, "--out", out)
    assert own.read_bytes() == before
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_result_that_links_to_the_picture_is_not_written_to(tmp_path):
    own = picture(tmp_path / "photo.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "original.png").symlink_to(own)
    refused("a result would replace", "invert", own, "-p", PROMPT, "--out", tmp_path / "out")


def test_files_are_compared_and_not_names(tmp_path, monkeypatch):
    """On a disk that ignores case, two names are one file; the test imitates the stat of such a disk."""
    own = picture(tmp_path / "ORIGINAL.PNG")
    assert not same_file(tmp_path / "original.png", [own])
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: stat(str(path).replace("original.png", "ORIGINAL.PNG"), **how))
    assert same_file(tmp_path / "original.png", [own])


def test_the_inversion_that_is_edited_stays_as_it_is_in_its_own_folder(tiny_folder, tmp_path):
    how = "--out", tmp_path / "out", "--model", tiny_folder
    assert call("invert", picture(tmp_path / "a.png"), "-p", PROMPT, "--steps", 2, *how).exit_code == 0
    file = tmp_path / "out" / "inversion.safetensors"
    before = file.stat()
    (tmp_path / "link").symlink_to(file)
    for given in (file, tmp_path / "link"):
        result = call("edit", "--inversion", given, "--to", "a blue sphere", "--editor", "prompt-swap", *how)
        assert result.exit_code == 0, result.output
        assert "of an earlier run" not in result.output
        after = file.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    os.link(file, tmp_path / "out" / "edited2.png")
    file.rename(tmp_path / "out" / "report.json")
    refused("would replace", "reconstruct", tmp_path / "out" / "report.json", *how)


def test_a_link_in_the_output_folder_is_replaced_and_what_is_behind_it_kept(tmp_path):
    (tmp_path / "own.txt").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(tmp_path / "own.txt")
    (out / "gone").symlink_to(tmp_path / "nothing")
    write(out, a="new", gone="new")
    assert contents(out) == {"a": "new", "gone": "new"}
    with whole(out / "a") as file:
        file.write(b"newer")
    (out / "b").symlink_to(tmp_path / "own.txt")
    with whole(out / "b") as file:
        file.write(b"newest")
    assert contents(out) == {"a": "newer", "gone": "new", "b": "newest"}
    assert (tmp_path / "own.txt").read_text() == "mine"


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002])
def test_files_have_the_permissions_that_the_umask_gives(tiny, tmp_path, mask):
    before = os.umask(mask)
    try:
        tiny.up_to(16).invert(np.zeros((16, 16, 3), np.uint8), PROMPT, num_inference_steps=2).save(tmp_path / "a")
        with outputs(tmp_path / "out") as staging, whole(staging / "b") as file:
            file.write(b"b")
    finally:
        os.umask(before)
    for file in (tmp_path / "a", tmp_path / "out" / "b"):
        assert file.stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


def killed(folder, code):
    """Run code that is killed while it writes to a folder, which it knows as ``out``."""
    script = f"""
        import os, pathlib, shutil, signal
        from pathlib import Path
        from iterinv.outputs import outputs
        from iterinv.files import whole
        out = Path({str(folder)!r})
        def die(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    text = textwrap.dedent(script) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    killed(tmp_path, "with outputs(out) as staging:\n    (staging / 'a').write_text('half')\n    die()")
    killed(tmp_path, "with whole(out / 'c') as file:\n    file.write(b'half')\n    file.flush()\n    die()")
    (tmp_path / ".iterinv-notes").mkdir()
    (tmp_path / ".iterinv-0123456789abcdef.txt").write_text("a user's own")
    assert len(list(tmp_path.glob(".iterinv-*"))) == 4
    write(tmp_path, b="new")
    left = {".iterinv-notes", ".iterinv-0123456789abcdef.txt", "b"}
    assert {file.name for file in tmp_path.iterdir()} == left
    killed(tmp_path, "with whole(out / 'c') as file:\n    die()")
    with whole(tmp_path / "d") as file:
        file.write(b"new")
    assert {file.name for file in tmp_path.iterdir()} == left | {"d"}


@pytest.mark.parametrize("moves", range(8))
def test_killed_while_its_files_move_a_run_is_all_old_or_all_new_after_the_next(tmp_path, moves):
    """Three files, one of them new, take at most five moves; then the staging folder is removed."""
    write(tmp_path, a="old", b="old")
    code = f"""
        moved, replace, rename, rmtree = [], Path.replace, Path.rename, shutil.rmtree
        def counted(self, target, real=None):
            if len(moved) == {moves}:
                die()
            moved.append(self)
            return real(self, target)
        Path.replace = lambda self, target: counted(self, target, replace)
        Path.rename = lambda self, target: counted(self, target, rename)
        shutil.rmtree = die
        with outputs(out) as staging:
            for name in "abc":
                (staging / name).write_text("new")
    """
    killed(tmp_path, code)
    write(tmp_path, z="next")
    new = dict.fromkeys("abc", "new") if moves else dict.fromkeys("ab", "old")
    assert contents(tmp_path) == {**new, "z": "next"}


def test_a_second_run_on_a_folder_is_refused_while_the_first_goes_on(tmp_path):
    with outputs(tmp_path / "out") as staging:
        (staging / "a").write_text("first")
        with pytest.raises(OSError, match=r"another run is writing to .*out: wait until it ends, or choose another"):
            write(tmp_path / "out", a="second")
        code = f"from iterinv.outputs import outputs\nwith outputs({str(tmp_path / 'out')!r}): pass"
        code = code.replace("outputs('", "outputs(__import__('pathlib').Path('").replace("'):", "')):")
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another run is writing to" in result.stderr
        write(tmp_path / "other", a="elsewhere")
    assert contents(tmp_path / "out") == {"a": "first"}
    write(tmp_path / "out", a="second")
    assert contents(tmp_path / "out") == {"a": "second"}


FULL_DISK = """
import resource, signal, sys
from iterinv.__main__ import command_line
sys.argv[1:] = {words!r}
command_line()  # an import writes no file
import iterinv.workbench, iterinv.evaluate.compare, matplotlib.figure, iterinv.embedded.evaluate.scene_edit
import iterinv.evaluate.report, iterinv.evaluate.run
sys.dont_write_bytecode = True
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
from iterinv.__main__ import main
main()
"""
"""A process that cannot write files beyond a size: the kernel refuses the write, as it does on a full disk."""


@pytest.mark.parametrize("size", [1, 6000])
@pytest.mark.parametrize("command", ["invert", "edit", "compare", "sample", "evaluate", "evaluate run"])
@pytest.mark.slow
def test_a_disk_that_is_full_is_a_sentence_and_leaves_nothing(tiny_folder, tmp_path, command, size):
    photo, out = picture(tmp_path / "photo.png"), tmp_path / "out"
    words = {
        "invert": ["invert", photo, "-p", PROMPT],
        "edit": ["edit", photo, "-p", PROMPT, "--to", "a blue sphere", "--editor", "prompt-swap"],
        "compare": ["compare", photo, "-p", PROMPT, "--methods", "bdia"],
        "sample": ["sample", PROMPT],
        "evaluate": ["evaluate", "scenes", "--count", 1, "--kinds", "wall"],
        "evaluate run": ["evaluate", "--data", "scenes", "--count", 1, "--metrics", "mse"],
    }[command]
    words = [str(word) for word in [*words, "--steps", 2, "--out", out, "--model", tiny_folder]]
    code = FULL_DISK.format(words=words, size=size)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert "cannot be written (File too large): make room, or choose another" in said
    if not command.startswith("evaluate"):  # these commands resume a folder
        assert not out.exists()
    assert not list(tmp_path.rglob(".iterinv-*"))


def test_a_full_disk_is_a_sentence_where_an_inversion_is_saved(tiny, tmp_path):
    inversion = tiny.up_to(16).invert(np.zeros((16, 16, 3), np.uint8), PROMPT, num_inference_steps=2)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    (tmp_path / "a").write_text("old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(CannotWrite, match=r"a cannot be written \(File too large\): make room, or choose another"):
            inversion.save(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(tmp_path) == {"a": "old"}
    with pytest.raises(CannotWrite, match=r"cannot be written \(No such file or directory\)"):
        inversion.save(tmp_path / "none" / "a")
    with pytest.raises(CannotWrite, match=r"cannot be written \(Is a directory\)"):
        inversion.save(tmp_path)


def test_results_that_are_written_from_python_go_through_no_link(tiny_folder, tmp_path):
    photo = picture(tmp_path / "photo.png")
    for name in workbench.FILES:
        (tmp_path / name).symlink_to(photo)
    before = photo.read_bytes()
    request = workbench.InvertRequest(photo, PROMPT, num_inference_steps=2, model=workbench.Model(str(tiny_folder)))
    workbench.Workbench().edit(
        workbench.EditRequest(request, ("a blue sphere",), "prompt-swap", keep_inversion=True)
    ).write(tmp_path)
    assert photo.read_bytes() == before
    assert json.loads((tmp_path / "report.json").read_text())["steps"] == 2


def test_whole_paths_are_told_apart_from_what_is_not_there(tmp_path):
    assert not same_file(Path("nowhere"), [tmp_path])

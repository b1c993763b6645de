"""Every command has --json, --quiet and --config, and prints tables that 80 columns hold."""

import importlib
import json
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.main import get_command

from iterinv.__main__ import command_line
from iterinv.cli import tables
from iterinv.cli.options import App
from iterinv.cli.session import answer, framed

from conftest import call, refused

PROMPT, TO = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"


def every_command():
    """Return the words of every command of the command line."""
    root = get_command(command_line())
    for name, command in root.commands.items():
        yield from (f"{name} {inner}" for inner in command.commands) if hasattr(command, "commands") else [name]


COMMANDS = {
    "compare": "photo.png -p PROMPT -n 2 --methods bdia --out out --model MODEL",
    "cost": "embedded",
    "doctor": "--model MODEL",
    "edit": "photo.png -p PROMPT -t TO -n 2 --editor sdedit --out out --model MODEL",
    "editors": "",
    "evaluate run": "--data scene-edit --count 1 -n 2 --out out --model MODEL",
    "evaluate samples": "--count 2 -n 2 --out out --model CASCADE",
    "evaluate scenes": "--kinds recolour --count 1 -n 2 --editor sdedit --out out --model CASCADE",
    "info": "edit/edited.png",
    "invert": "photo.png -p PROMPT -n 2 --out out --model MODEL",
    "measure": "photo.png other.png --metric psnr --metric mse",
    "methods": "",
    "presets": "",
    "reconstruct": "edit/inversion.safetensors --out out --model MODEL",
    "report": "run2 run3",
    "sample": "PROMPT -n 2 --out out --model MODEL",
    "samplers": "",
    "serve": "",
    "sweep": "photo.png -p PROMPT -t TO -n 2 --editor sdedit --strength 0.5,1 --out out --model MODEL",
    "table1": "--data scenes --count 1 -n 2 --guidance-scales 1 --methods bdia --out out --model CASCADE",
    "train": "I --out out",
    "version": "",
}
"""Words for every command, in the folder of ``made``; those in capitals stand for a prompt or a model."""

ELSEWHERE = {"info edit/inversion.safetensors", "measure --list", "presets deepfloyd", "info sweep/sweep.png"}


def words_of(line, tiny_folder, tmp_path):
    meant = {
        "PROMPT": PROMPT,
        "TO": TO,
        "MODEL": tiny_folder / "stage1",
        "CASCADE": tiny_folder,
        "out": tmp_path / "out",
    }
    return [meant.get(word, word) for word in line.split()]


@pytest.fixture
def here(made, monkeypatch):
    """Go to the folder of files that commands read; ``serve`` ends at once, and ``train`` does nothing."""

    @contextmanager
    def running(*_):
        yield "http://127.0.0.1:7860"

    class Ended(threading.Event):
        def wait(self, timeout=None):
            return True

    monkeypatch.chdir(made)
    monkeypatch.setattr("iterinv.web.server.running", running)
    monkeypatch.setattr("iterinv.embedded.train.train", lambda *_: Path("out"))
    return lambda: monkeypatch.setattr("threading.Event", Ended)


def test_every_command_is_listed_here():
    assert set(COMMANDS) == set(every_command())


@pytest.mark.parametrize("line", [*(f"{name} {words}" for name, words in COMMANDS.items()), *sorted(ELSEWHERE)])
def test_every_command_prints_one_json_object_and_nothing_else(here, tiny_folder, tmp_path, line):
    if line.startswith("serve"):
        here()
    result = call(*words_of(line, tiny_folder, tmp_path), "--json", "--quiet")
    expected = 1 if line.startswith("doctor") and not json.loads(result.stdout)["well"] else 0
    assert result.exit_code == expected, (result.output, result.exception)
    assert isinstance(json.loads(result.stdout), dict)
    assert result.stderr == ""


def test_progress_and_notes_go_to_standard_error_with_json(made, one_stage, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    words = "invert", "photo.png", "-p", PROMPT, "-n", 2, "--out", tmp_path, "--model", one_stage
    result = call(*words, "--json")
    report = json.loads(result.stdout)
    assert report["out"] == str(tmp_path)
    assert report["reconstruction"]["exact_pixels"] == 1
    assert "inverting 2 of 2" in result.stderr
    again = call(*words, "--json", "--quiet")
    assert json.loads(again.stdout)["method"] == "bdia"
    assert again.stderr == ""
    (tmp_path / "edited.png").write_text("of another run")
    assert "also holds edited.png" in call(*words).stderr
    quiet = call(*words, "--quiet")
    assert quiet.stderr == ""
    assert "bdia, 2 steps" in quiet.stdout


@pytest.mark.parametrize("more", [(), ("--json",), ("--quiet",), ("--json", "--quiet")])
def test_errors_are_sentences_on_standard_error_whatever_is_shown(more):
    result = call("info", "none.png", *more)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "iterinv: there is no file none.png\n"


def test_a_command_that_gives_no_answer_or_two_is_a_bug():
    for count in (0, 2):

        def work(count=count):
            with framed(json=True, quiet=False):
                for _ in range(count):
                    answer({})

        with pytest.raises(RuntimeError, match=f"gave {count} answers"):
            work()


def test_what_a_library_prints_does_not_mix_with_the_answer():
    app = App()

    @app.command()
    def chatty() -> None:
        print("loading")
        answer({"a": float("nan"), "b": Path("c")})

    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["--json"])
    assert json.loads(result.stdout) == {"a": None, "b": "c"}
    assert result.stderr == "loading\n"


TABLES = [
    "methods", "editors", "samplers", "presets", "presets deepfloyd", "doctor --model MODEL", "cost embedded",
    "measure photo.png other.png --metric psnr --metric mse --mask photo.png",
    "compare photo.png -p PROMPT -n 2 --methods bdia,iterinv-anderson --out out --model CASCADE",
    "edit photo.png -p PROMPT -t TO -n 2 --editor sdedit --keep-inversion --out out --model CASCADE",
    "edit photo.png -p PROMPT -t TO -n 2 --editor sdedit --dry-run --model CASCADE",
    "report run2 run3", "info edit/inversion.safetensors",
    "evaluate --data scene-edit --count 1 -n 2 --metrics psnr,ssim,mse,exact-pixels,ms-ssim-border --out out "
    "--methods bdia,iterinv-anderson --editors sdedit --model MODEL",
]  # fmt: skip


@pytest.mark.parametrize("line", TABLES, ids=lambda line: line[:40])
def test_every_table_fits_80_columns_whole(here, tiny_folder, tmp_path, line):
    result = call(*words_of(line, tiny_folder, tmp_path))
    assert result.exit_code in (0, 1), result.output
    table = result.stdout.partition("to make it again")[0]
    assert table.strip()
    assert "…" not in table
    assert max(map(len, table.splitlines())) <= 80
    assert table.isascii() or line == "editors"
    assert "\x1b" not in table


WIDE = ["a name of several words", "metric", *["difference"] * 3, "note"]


@pytest.mark.parametrize("width", [80, 40, 24])
def test_a_table_is_whole_at_any_width(width, monkeypatch, capsys):
    monkeypatch.setattr(importlib.import_module("iterinv.cli.session"), "WIDTH", width)
    rows = [["iterinv-anderson + prompt-to-prompt", "ms-ssim-border", "0.123456", "-0.5", "1", "none"], ["b", "m", "1"]]
    tables.print_table(WIDE, rows, "a title", text=(0, 1))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    together = "".join(shown.split())
    for cell in (*rows[0], *rows[1]):
        assert "".join(cell.split()) in together or all(word in shown for word in cell.split())


def test_a_long_name_is_folded_and_a_control_character_is_escaped(capsys):
    tables.print_table(("name", "value"), [["q" * 200, "1"], ["a\x1b[2J", "2"]])
    shown = capsys.readouterr().out
    assert shown.count("q") == 200
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown


def config(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return "--config", path


def test_settings_of_a_file_are_those_of_the_command_line(made, one_stage, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    own = f"""
        num_inference_steps = 3
        model = {str(one_stage)!r}
        [edit]
        picture = "photo.png"
        prompt = {PROMPT!r}
        to = [{TO!r}, "a cube"]
        editor = "sdedit"
        strength = 0.5
        keep-inversion = true
        guidance = [1]
        [sweep]
        strength = [0.5, 1]
    """
    result = call("edit", *config(tmp_path, own), "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["steps"], report["prompt"], len(report["edits"])) == (3, PROMPT, 2)
    assert report["edits"][0]["editor"] == "SDEdit"
    assert "reconstruction" in report
    more = "--steps", 2, "--to", TO, "--editor", "prompt-swap"
    again = json.loads(call("edit", *config(tmp_path, own), *more, "--out", tmp_path / "b", "--json").stdout)
    assert (again["steps"], [each["editor"] for each in again["edits"]]) == (2, ["PromptSwap"])


def test_a_group_has_a_table_and_its_commands_have_tables_in_it(made, one_stage, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    text = (
        f"model = {str(one_stage)!r}\nquiet = true\n[evaluate.run]\nmethods = ['ddim']\n[evaluate.scenes]\nkinds = 'x'"
    )
    how = "--data", "scene-edit", "--count", 1, "--steps", 2, "--out", tmp_path / "out", "--json"
    result = call("evaluate", *how, *config(tmp_path, text))
    assert result.exit_code == 0, result.output
    assert [group["method"] for group in json.loads(result.stdout)["groups"]][:1] == ["ddim"]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("streng = 0.5", "'streng' is no option of root edit; did you mean strength"),
        ("zzz = 1", "'zzz' is no option of root edit: its options are"),
        ("[edti]\nstrength = 1", "[edti] is no command; did you mean edit"),
        ("config = 'a.toml'", "'config' is no option"),
        ("edit = 1", "edit is a command: write [edit]"),
        ("force = 1", "force is 1; it is true or false"),
        ("strength = true", "strength is True; it is a text, a number or a list"),
        ("strength = 'much'", "should be a valid number"),
        ("strength = 1979-05-27", "it is a text, a number or a list"),
        ("to = [[1]]", "it is a list of texts or of numbers"),
        ("a = ", "it is no TOML"),
        ("[edit", "it is no TOML"),
    ],
)
def test_a_file_of_settings_that_cannot_be_meant_is_refused(tmp_path, text, said):
    refused(said, "edit", "photo.png", "--to", TO, *config(tmp_path, text))


def test_a_file_of_settings_that_cannot_be_read_is_refused(tmp_path):
    refused("No such file", "methods", "--config", tmp_path / "none.toml")
    refused("Is a directory", "methods", "--config", tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    refused("it is no TOML", "methods", "--config", tmp_path / "binary")
    (tmp_path / "large").write_bytes(b"#" * 1_100_000)
    refused("so it is no file of settings", "methods", "--config", tmp_path / "large")


def test_settings_that_an_inversion_has_are_refused_from_a_file_too(made, tmp_path):
    words = "edit", "--inversion", made / "edit" / "inversion.safetensors", "--to", TO, "--out", tmp_path / "out"
    refused("--fit: an inversion has its own", *words, *config(tmp_path, "fit = 'crop'"))

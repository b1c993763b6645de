"""A shell completes the names of methods, editors, samplers, presets and metrics, without loading torch."""

import os
import subprocess
import sys

import pytest

from iterinv.cli.names import TABLES, completing, names
from iterinv.edits import EDITORS
from iterinv.methods import METHODS
from iterinv.metrics import metrics
from iterinv.presets import presets
from iterinv.steps import RULES

from conftest import call


def test_the_names_are_those_of_the_tables():
    known = {"METHODS": METHODS, "EDITORS": EDITORS, "RULES": RULES, "METRICS": metrics(), "PRESETS": presets()}
    assert set(TABLES) == set(known)
    for table, values in known.items():
        assert set(names(table)) == set(values), table


def test_one_of_several_values_is_completed_and_those_before_stay():
    assert completing("METHODS", ",")("ddim,bdia-h") == ["ddim,bdia-heun"]
    assert completing("METHODS", ",:")("ddim,null-text:bdia-f") == ["ddim,null-text:bdia-fixed"]
    assert completing("METHODS")("ddim,bdia-h") == []


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("edit --editor re", ["redraw"]),
        ("invert --method null-text,bdia-", ["null-text,bdia-fixed", "null-text,bdia-heun", "null-text,bdia-2s"]),
        ("sample --sampler dp", ["dpmpp-2s", "dpmpp-2m"]),
        ("edit --model sdx", ["sdxl"]),
        ("cost emb", ["embedded"]),
        ("presets terr", ["terrain"]),
        ("measure --metric ms-", ["ms-ssim", "ms-ssim-border"]),
        ("measure --metric frechet-r", ["frechet-reader"]),
        ("evaluate --metrics psnr,ssim-p", ["psnr,ssim-pie"]),
        ("evaluate run --editors ledi", ["ledits"]),
        ("edit --dry", ["--dry-run"]),
        ("preset", ["presets"]),
    ],
)
def test_a_shell_completes(line, completed):
    shown = completion(line)
    assert shown.stdout.split() == completed
    assert shown.stderr == ""


def completion(line):
    words = f"iterinv {line}"
    how = {"_ITERINV_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    code = (
        "import sys, atexit\n"
        "def check():\n"
        "    heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'gradio'} & set(sys.modules)\n"
        "    heavy and print(heavy, file=sys.stderr)\n"
        "atexit.register(check)\n"
        "sys.argv = ['iterinv']\n"
        "import iterinv.__main__ as m; m.main()"
    )
    run = [sys.executable, "-c", code]
    return subprocess.run(run, env={**os.environ, **how}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_shown(monkeypatch, shell):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    run = [sys.executable, "-m", "iterinv", "--show-completion", shell]
    shown = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "_ITERINV_COMPLETE" in shown
    assert "--install-completion" in call("--help").stdout

"""The examples are short, and they run."""

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["edit", "compare_methods"])
def test_examples_run(name, tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, str(tiny_folder)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    output = capsys.readouterr().out
    if name == "edit":
        assert "every pixel came back" in output
        assert Image.open(tmp_path / "edited.png").size == (64, 64)
    else:
        assert output.count("exact") >= 3
        assert "bdia             stage III   64 px      exact  19 network calls" in output


def test_the_shipped_pictures_are_what_draw_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["draw", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "draw.py"), run_name="__main__")
    drawn = sorted(file.name for file in tmp_path.iterdir())
    assert drawn == sorted(file.name for file in EXAMPLES.iterdir() if file.suffix in {".png", ".txt"})
    for name in drawn:
        if name.endswith(".txt"):
            assert (tmp_path / name).read_text() == (EXAMPLES / name).read_text()
        else:
            a, b = (Image.open(folder / name).convert("RGB") for folder in (tmp_path, EXAMPLES))
            off = [abs(x - y) for x, y in zip(a.tobytes(), b.tobytes(), strict=True)]
            assert sum(value > 2 for value in off) < len(off) / 1000  # rounding may differ from machine to machine


def test_examples_are_short():
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) <= 30, file.name

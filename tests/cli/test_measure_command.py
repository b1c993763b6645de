"""``iterinv measure`` prints a table, writes CSV and JSON, lists the metrics, and refuses bad input by a sentence."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from iterinv.cells import four_digits
from iterinv.metrics import metrics, psnr

from conftest import call, refused


@pytest.fixture
def files(tmp_path):
    """Write two pictures, a mask, a small picture, a black mask, a text and an empty folder."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    b = a.copy()
    b[10:30, 10:30] //= 2
    mask = np.zeros((40, 48), np.uint8)
    mask[10:30, 10:30] = 255
    pictures = {"a.png": a, "b.png": b, "mask.png": mask, "small.png": a[:20, :20], "black.png": 0 * mask}
    for name, pixels in {**pictures, "small-mask.png": mask[:20, :20]}.items():
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
        for k, pixels in enumerate((a, b if folder == "B" else a)):
            Image.fromarray(pixels).save(tmp_path / folder / f"{k}.png")
    return tmp_path, a, b


def test_a_table_of_two_pictures_fits_a_terminal(files):
    folder, a, b = files
    result = call("measure", folder / "a.png", folder / "b.png", "--mask", folder / "mask.png")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()}
    assert rows["metric"] == ["better", "whole", "inside", "outside"]
    assert rows["psnr,"] == ["dB", "higher", four_digits(psnr(a, b)), rows["psnr,"][3], "equal"]
    assert rows["exact-pixels"][-1] == "1"
    assert rows["flip"][-1] == "0"


def test_a_table_of_two_folders_has_the_number_of_values(files):
    folder, a, b = files
    result = call("measure", folder / "A", folder / "B", "--metric", "psnr", "--metric", "mse")
    assert result.exit_code == 0, result.output
    assert f"{four_digits(psnr(a, b))} (1)" in result.stdout
    assert "Means of 2 pictures" in result.stdout
    (line,) = (line for line in result.stdout.splitlines() if line.strip().startswith("mse"))
    assert line.split()[-1] == "1.png"  # the worst


def test_csv_and_json_hold_what_is_printed(files):
    folder, a, b = files
    words = "measure", folder / "A", folder / "B", "--metric", "psnr", "--metric", "mse"
    printed = call(*words, "--csv", folder / "out.csv", "--json")
    assert printed.exit_code == 0, printed.output
    with open(folder / "out.csv", encoding="utf-8", newline="") as file:
        equal, other = csv.DictReader(file)
    assert (equal["picture"], equal["psnr"], equal["mse"]) == ("0.png", "", "0.0")
    assert float(other["psnr"]) == psnr(a, b)
    report = json.loads(printed.stdout)
    assert report["reference"] == str(folder / "A")
    assert report["means"]["whole"]["psnr"] == {"mean": psnr(a, b), "n": 1}
    assert call(*words, "--csv", "-").stdout == (folder / "out.csv").read_text()


def test_the_list_says_how_to_get_what_lacks(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    result = call("measure", "--list")
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert set(metrics()) <= set(rows)
    assert rows["psnr"][1:6] == ["higher", "0", "to", "inf", "yes"]
    assert rows["lpips-alex"][5] == "no"
    assert "load_state_dict_from_url" in result.stdout
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    rows = {line.split()[0]: line.split() for line in call("measure", "--list").stdout.splitlines() if line.strip()}
    assert rows["lpips-alex"][5] == "yes"


def test_bad_input_is_a_sentence(files):
    folder, *_ = files
    a, b = folder / "a.png", folder / "b.png"
    refused("give two pictures or two folders: iterinv measure A B", "measure", a)
    refused("none.png: there is no file or folder of this name", "measure", a, folder / "none.png")
    refused("not a picture that can be read here", "measure", a, folder / "text.png")
    refused("small.png is 20x20: files of one size are compared; --resize", "measure", a, folder / "small.png")
    refused("empty holds no pictures", "measure", folder / "A", folder / "empty")
    refused("is a folder and", "measure", folder / "A", b)
    refused("no picture in", "measure", folder / "A", folder)
    refused("black.png is black all over: a mask is white inside", "measure", a, b, "--mask", folder / "black.png")
    refused("small-mask.png is 20x20: files of one size", "measure", a, b, "--mask", folder / "small-mask.png")
    refused("A is a folder: give the mask of two pictures as a file", "measure", a, b, "--mask", folder / "A")
    refused("none.png: there is no file", "measure", a, b, "--mask", folder / "none.png")
    refused("there is no metric 'magic': the metrics are mse, psnr", "measure", a, b, "--metric", "magic")
    refused(
        "the metric dino-structure needs facebook/dino-vitb8: hf download facebook/dino-vitb8",
        *("measure", a, b, "--metric", "dino-structure"),
    )
    refused("is no folder: give the one that holds the weights", "measure", a, b, "--weights", folder / "none")
    refused("a.png is measured itself: choose another file", "measure", a, b, "--csv", a)
    refused("is a folder: name a file in it", "measure", a, b, "--csv", folder)
    refused("is no folder: make it, or choose another place", "measure", a, b, "--csv", folder / "none" / "x.csv")
    refused("--csv - and --json both print", "measure", a, b, "--csv", "-", "--json")
    assert {file.name for file in folder.iterdir() if file.name.startswith("x")} == set()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (1.0, "1"), (0.038481, "0.03848"), (14.1475, "14.15"), (123.456, "123.5"), (5432.1, "5432")),
        *((0.99996, "1.0000"), (2.5e-6, "2.500e-06"), (-0.25, "-0.2500")),
    ],
)
def test_four_digits_are_shown(value, text):
    assert four_digits(value) == text

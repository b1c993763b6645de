"""A sweep edits one inversion in many ways, and every cell is repeated by its command."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iterinv.commands import edit_command
from iterinv.masks import GivenMask
from iterinv.workbench import EditRequest, InvertRequest, Model, ReopenRequest, Workbench, editor_of

from conftest import call, refused

PROMPT, TO = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"
HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
    return path


def cell(sheet, row, column, lines):
    """The picture of a cell: under the original, rows have a name of so many lines above each picture."""
    top = 28 + HEIGHT + 8 + row * (8 + 20 * lines + HEIGHT + 8) + 8 + 20 * lines
    left = 8 + column * (WIDTH + 8)
    return sheet[top : top + HEIGHT, left : left + WIDTH]


def test_every_cell_is_the_picture_of_its_command(tiny_folder, photo, tmp_path, monkeypatch):
    inverted = []
    own = Workbench.invert
    monkeypatch.setattr(Workbench, "invert", lambda self, *a: inverted.append(a) or own(self, *a))
    words = "sweep", photo, "--prompt", PROMPT, "--to", TO, "--steps", 4, "--editor", "sdedit", "--model", tiny_folder
    grid = "--strength", "0.25,1", "--edit-seed", "0,1", "--out", tmp_path
    result = call(*words, *grid)
    assert result.exit_code == 0, result.output
    assert len(inverted) == 1
    cells = json.loads((tmp_path / "sweep.json").read_text())["cells"]
    assert [each["settings"] for each in cells] == [
        {"strength": strength, "seed": seed} for strength in (0.25, 1.0) for seed in (0, 1)
    ]
    sheet = np.array(Image.open(tmp_path / "sweep.png"))
    assert (sheet[28 : 28 + HEIGHT, 8 : 8 + WIDTH] == np.array(Image.open(photo))).all()
    pictures = [cell(sheet, row, column, 3) for row in range(2) for column in range(2)]
    assert len({each.tobytes() for each in pictures}) == 4
    for k in (1, 2):
        assert cells[k]["command"] in result.output.replace("\n", " ")
        again = call(*shlex.split(cells[k]["command"])[1:])
        assert again.exit_code == 0, again.output
        assert (np.array(Image.open(tmp_path / f"cell-{k + 1}" / "edited.png")) == pictures[k]).all()


def test_regions_and_prompts_are_axes(tiny_folder, photo, tmp_path):
    words = "sweep", photo, "--prompt", PROMPT, "--to", TO, "--to", "a cube", "--steps", 4, "--model", tiny_folder
    result = call(*words, "--editor", "prompt-swap", "--box", "0,0,20,20", "--own-region", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    settings = [each["settings"] for each in json.loads((tmp_path / "sweep.json").read_text())["cells"]]
    assert settings == [{"to": to, "region": region} for to in (TO, "a cube") for region in ("its own", "0,0,20,20")]
    sheet, original = np.array(Image.open(tmp_path / "sweep.png")), np.array(Image.open(photo))
    boxed = cell(sheet, 0, 1, 3)
    assert (boxed[:, 20:] == original[:, 20:]).all()
    assert (boxed[:20, :20] != original[:20, :20]).any()


def test_lists_that_are_none_and_settings_that_an_editor_lacks_are_refused(tiny_folder, photo, tmp_path):
    words = "sweep", photo, "--prompt", PROMPT, "--to", TO, "--model", tiny_folder, "--out", tmp_path
    refused("--strength has 'low,high'; it takes finite numbers", *words, "--strength", "low,high")
    refused("--edit-guidance has '1,nan'; it takes finite numbers", *words, "--edit-guidance", "1,nan")
    refused("the editor prompt-swap has no seed", *words, "--editor", "prompt-swap", "--edit-seed", "1")
    with pytest.raises(ValueError, match="has no seed"):
        editor_of("diffedit", seed=1)


def test_a_command_has_what_is_not_the_default():
    model = Model("sd15", "cuda")
    source = InvertRequest(Path("a b.png"), "a red cube", ("ddim", "bdia"), 7, 2.0, fit="crop", model=model)
    mask = GivenMask(Path("m.png"), (1, 2, 3, 4), ((0, 0), (4, 0), (4, 4)), True, 2, 3)
    request = EditRequest(source, ("a cube", "it's blue"), "sdedit", 0.5, 2.0, mask=mask, force=True, edit_seed=3)
    assert shlex.split(edit_command(request, "out")) == [
        "iterinv", "edit", "a b.png", "--prompt", "a red cube", "--method", "ddim,bdia", "--num-inference-steps", "7",
        "--guidance-scale", "2.0", "--fit", "crop", "--to", "a cube", "--to", "it's blue",
        "--edit-guidance", "2.0", "--editor", "sdedit", "--strength", "0.5", "--edit-seed", "3", "--force",
        "--mask", "m.png", "--box", "1,2,3,4",
        "--polygon", "0,0 4,0 4,4", "--invert-mask", "--grow", "2", "--feather", "3", "--device", "cuda",
        "--model", "sd15", "--out", "out",
    ]  # fmt: skip
    plain = EditRequest(ReopenRequest(Path("a.safetensors")), ("a cube",))
    assert edit_command(plain, "out") == "iterinv edit --inversion a.safetensors --to 'a cube' --out out"


def test_requests_of_several_sources_are_refused(photo):
    requests = [EditRequest(InvertRequest(photo, PROMPT), (TO,)) for _ in range(2)]
    with pytest.raises(ValueError, match="several sources"):
        list(Workbench().edit_each(requests))

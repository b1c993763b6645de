"""The commands of the page on the terminal run, in its order."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from iterinv.presets import Preset, presets

from conftest import call

PAGE = (Path(__file__).parents[2] / "docs" / "terminal.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.*)$", "\n".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)), re.MULTILINE)


def test_every_command_of_the_page_runs(made, tiny_folder, tmp_path, monkeypatch):
    assert len(COMMANDS) > 10
    (settings,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(presets(), "embedded", Preset("a tiny cascade in place of it", (tiny_folder,), pixels=(16,)))
    Path("run.toml").write_text(settings)
    Image.open(made / "photo.png").resize((64, 64)).save("photo.png")
    for command in COMMANDS:
        program, *words = shlex.split(command)
        assert program == "iterinv"
        result = call(*words)
        assert result.exit_code == 0, (command, result.output, result.exception)
        assert ("a tiny cascade" in result.stdout) == (command == "iterinv presets")
    assert (Path("blue") / "inversion.safetensors").exists()


@pytest.mark.parametrize("option", ["--json", "--quiet", "--config"])
def test_the_page_describes_the_options_of_every_command(option):
    assert option in PAGE
    assert option in call("methods", "--help").stdout

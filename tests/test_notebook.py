"""The notebook runs from top to bottom, and the outputs that are stored in it are those of such a run."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FILE = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"
LARGEST = 1_000_000
"""The most bytes of the notebook with its pictures."""

RESULTS = (
    "every pixel came back\n",
    "bdia: Every pixel comes back, at every stage.\n",
    "the network sees the new words in the picture\n",
    "\n0 pixels outside the mask changed\n",
    "the edit of the reopened inversion is the same\n",
)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    """Return all that the cells printed on standard output; assert that nothing was printed elsewhere."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "execute_result"}
    streams = [output for output in outputs if output.output_type == "stream"]
    assert {stream.name for stream in streams} == {"stdout"}
    return "\n" + "\n".join(stream.text for stream in streams)


def pictures(notebook):
    data = [output.data for cell in code(notebook) for output in cell.outputs if output.output_type == "execute_result"]
    return [each["image/jpeg"] for each in data if "image/jpeg" in each]


def test_the_stored_outputs_are_those_of_one_whole_run():
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    assert FILE.stat().st_size < LARGEST
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert notebook.metadata.kernelspec.name == "python3"
    for result in RESULTS:
        assert result in printed(notebook)
    assert len(pictures(notebook)) == 4
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert not re.findall(r"/(?:home|root|tmp|usr|work|Users)/|site-packages|0x[0-9a-f]{6}", str(outputs))


def test_the_notebook_explains_every_step():
    """Every cell of code but the first, which only sets up warnings, follows one of words."""
    cells = [cell.cell_type for cell in nbformat.read(FILE, as_version=4).cells]
    assert cells[:3] == ["markdown", "code", "code"]
    assert cells[3:] == ["markdown", "code"] * 7 + ["markdown"]


@pytest.mark.slow
def test_the_notebook_runs():
    notebook = nbformat.read(FILE, as_version=4)
    stored = printed(notebook)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FILE.parent)}}).execute()
    for result in RESULTS:
        assert result in printed(notebook)
    assert printed(notebook).count("\n") == stored.count("\n")
    assert len(pictures(notebook)) == 4

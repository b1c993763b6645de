"""Files of a report: ``report.html`` and ``report.md`` of one evaluation, ``paired.md`` and ``paired.json`` of two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iterinv.evaluate import paired
from iterinv.evaluate.folder import write_json
from iterinv.evaluate.page import page
from iterinv.evaluate.summary import Group, groups, markdown
from iterinv.files import whole, writing


def write(folder: Path) -> list[Group]:
    """Write the report of an evaluation into its folder, and return its groups. Raises
    :class:`iterinv.files.CannotWrite`."""
    every = groups(folder)
    with whole(folder / "report.md") as file:
        file.write(markdown(folder, every).encode(errors="backslashreplace"))
    with whole(folder / "report.html") as file:
        for part in page(folder, every):
            file.write(part.encode(errors="backslashreplace"))
    return every


def write_paired(folder: Path, first: Path, second: Path, results: Sequence[paired.Paired]) -> None:
    """Write the differences of two evaluations into a folder. Raises :class:`iterinv.files.CannotWrite`."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    rows = [{**each._asdict(), "verdict": each.verdict} for each in results]
    write_json(folder / "paired.json", {"first": str(first), "second": str(second), "differences": rows})
    with whole(folder / "paired.md") as file:
        file.write(paired.markdown(first, second, results).encode(errors="backslashreplace"))

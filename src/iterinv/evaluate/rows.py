"""The rows of an evaluation: one JSON object a line of ``results.jsonl``, and one of ``timings.jsonl`` for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from iterinv.files import whole

RESULTS, TIMINGS = "results.jsonl", "timings.jsonl"


class Key(NamedTuple):
    """The name of a row; ``editor`` is empty for a reconstruction. Rows are sorted by it."""

    task: str
    method: str
    editor: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Key:
        """The key of a row."""
        return cls(row["task"], row["method"], row["editor"] or "")


def is_row(value: Any) -> bool:
    """Tell whether a value is a row: a task, a method, an editor or ``None``, and metrics or an error."""
    if not isinstance(value, dict) or not {"task", "method", "editor", "picture", "metrics", "calls"} <= set(value):
        return False
    named = isinstance(value["task"], str) and isinstance(value["method"], str)
    failed = isinstance(value.get("error"), str) and value["metrics"] is None
    metrics = value["metrics"]
    measured = isinstance(metrics, dict) and all(
        each is None or type(each) in (int, float) for each in metrics.values()
    )
    calls = value["calls"]
    counted = isinstance(calls, dict) and all(type(calls.get(way)) is int for way in ("forward", "backward"))
    return (
        named and (value["editor"] is None or isinstance(value["editor"], str)) and (failed or (measured and counted))
    )


def lines(folder: Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield the rows of a folder with the place and the length of their lines, each key once. Lines that are cut off or
    no rows are left out."""
    path, known, place = folder / RESULTS, set[Key](), 0
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            with suppress(ValueError, RecursionError):
                value = json.loads(line)
                if line.endswith(b"\n") and is_row(value) and (key := Key.of(value)) not in known:
                    known.add(key)
                    yield value, place, len(line)
            place += len(line)


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a folder, one at a time."""
    return (row for row, _, _ in lines(folder))


def sort(folder: Path) -> None:
    """Write the rows of a folder in the order of their keys, whole or not at all, so that the file does not depend on
    the order in which they were done. Raises :class:`iterinv.files.CannotWrite`."""
    places = sorted((Key.of(row), place, length) for row, place, length in lines(folder))
    path = folder / RESULTS
    if not places:
        return
    with open(path, "rb") as before, whole(path) as after:
        for _, place, length in places:
            before.seek(place)
            after.write(before.read(length))


def seconds(folder: Path) -> dict[tuple[str, str], tuple[float, int]]:
    """The seconds that rows took in all, and how many they were, by method and editor; a killed run may lack some."""
    sums: dict[tuple[str, str], tuple[float, int]] = {}
    path = folder / TIMINGS
    if path.exists():
        with open(path, "rb") as file:
            for line in file:
                with suppress(ValueError, RecursionError, TypeError, KeyError):
                    value = json.loads(line)
                    group = str(value["method"]), str(value["editor"] or "")
                    total, n = sums.get(group, (0.0, 0))
                    sums[group] = total + float(value["seconds"]), n + 1
    return sums

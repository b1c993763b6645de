"""Text files of a dataset: lines, CSV and one JSON object a line, with the number of each line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iterinv.evaluate.datasets.task import BadDataset


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte-order mark; its lines end in a line feed. Raises
    :class:`BadDataset`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadDataset(f"{path} cannot be read ({error.strerror})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "it is in UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"line {line} is none"
        raise BadDataset(f"{path} is not text in UTF-8 ({hint}): save it as UTF-8") from None
    if "\0" in text:
        raise BadDataset(f"{path} is not text: it holds zero bytes; save it as UTF-8")
    return re.sub(r"\r\n?", "\n", text)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that are not empty, stripped, with their numbers from 1."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file with one in JSON a line, with the numbers of their lines. Raises
    :class:`BadDataset`."""
    for number, line in text_lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deep or too long"
            raise BadDataset(f"line {number} of {path} is not JSON ({reason}): correct or remove it") from None
        if not isinstance(value, dict):
            raise BadDataset(f'line {number} of {path} is no object: write {{"file": …, "prompt": …}}')
        yield number, value


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a CSV file that begins with the names of its columns, with the numbers of their last lines.
    Raises :class:`BadDataset`."""
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    columns: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = [cell.strip().lower() for cell in cells]
                if len(set(columns)) < len(columns):
                    raise BadDataset(f"the columns of {path} are {', '.join(columns)}: give each another name")
                continue
            if len(cells) != len(columns):
                raise BadDataset(
                    f"line {reader.line_num} of {path} has {len(cells)} cells for {len(columns)} columns: put a cell "
                    "with a comma in it in quotes"
                )
            yield reader.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise BadDataset(f"line {reader.line_num} of {path} is not CSV ({error}): correct its quotes") from None

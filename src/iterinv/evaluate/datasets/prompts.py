"""Any folder of pictures with prompts: a CSV file, a JSONL file, lines ``path: prompt``, or a text file beside each
picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from iterinv.evaluate.datasets.lines import csv_rows, json_lines, read_text, text_lines
from iterinv.evaluate.datasets.task import BadDataset, Dataset, Task, key_of, listed, words_of
from iterinv.evaluate.suffixes import SUFFIXES

FILES = tuple(f"{stem}.{kind}" for stem in ("prompts", "metadata") for kind in ("csv", "jsonl", "txt"))
"""Names of prompt files, of which a folder has one."""

COLUMNS = {
    "file": ("file", "file_name", "picture", "image", "path"),
    "prompt": ("prompt", "text", "caption"),
    "target": ("target", "target_prompt", "to"),
    "mask": ("mask",),
    "truth": ("truth",),
    "kind": ("kind",),
    "key": ("key", "id"),
}
"""The values of a task and the names that a column may have for each."""

READERS: dict[str, Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]] = {".csv": csv_rows, ".jsonl": json_lines}


def prompt_file(where: Path) -> Path | None:
    """The prompt file of a folder, or a prompt file itself; ``None`` where there is none. Raises :class:`BadDataset`
    for several."""
    if where.is_file():
        return where if where.suffix.lower() in (*READERS, ".txt") else None
    there = [where / name for name in FILES if (where / name).is_file()]
    if len(there) > 1:
        raise BadDataset(f"{where} holds {' and '.join(each.name for each in there)}: name the one to read")
    return there[0] if there else None


def recognises(where: Path) -> bool:
    """Tell whether a path is a prompt file, or a folder with one or with text files beside pictures."""
    return prompt_file(where) is not None or (where.is_dir() and any(_beside(where)))


def opened(where: Path) -> Dataset:
    """The tasks of a folder or a prompt file; paths in the file are relative to it. Raises :class:`BadDataset`."""
    file = prompt_file(where)
    if file is None:
        pictures = sorted(_beside(where)) if where.is_dir() else []
        if not pictures:
            raise BadDataset(
                f"{where} has no prompts: add prompts.csv with the columns file and prompt, prompts.jsonl, prompts.txt "
                "with lines 'path: prompt', or a text file beside each picture"
            )
        tasks = [Task(str(each.relative_to(where)), each, read_text(_text(each)).strip()) for each in pictures]
        return listed("prompts", where, tasks)
    if file.suffix.lower() == ".txt":
        return listed("prompts", file, *lines_of(file))
    numbered = [(number, _of_row(file, number, row)) for number, row in READERS[file.suffix.lower()](file)]
    return listed("prompts", file, [task for _, task in numbered], [number for number, _ in numbered])


def lines_of(file: Path) -> tuple[list[Task], list[int]]:
    """The tasks of a text file with lines ``path: prompt``, and the numbers of the lines."""
    numbered = [(number, _of_line(file, number, line)) for number, line in text_lines(file)]
    return [task for _, task in numbered], [number for number, _ in numbered]


def _text(picture: Path) -> Path:
    return picture.with_suffix(".txt")


def _beside(folder: Path) -> Iterator[Path]:
    """Yield the pictures of a folder, and of folders in it, that have a text file beside them."""
    return (each for each in folder.rglob("*") if each.suffix.lower() in SUFFIXES and _text(each).is_file())


def _of_line(file: Path, number: int, line: str) -> Task:
    """The task of a line; both a path and a prompt may hold colons, so the path is the one that exists."""
    where = f"line {number} of {file}"
    ends = [k for k, letter in enumerate(line) if letter == ":"]
    if not ends:
        raise BadDataset(f"{where} has no colon: write 'path: prompt'")
    end = next((k for k in ends if line[:k].strip() and (file.parent / line[:k].strip()).is_file()), ends[0])
    key = key_of(line[:end], where)
    return Task(key, file.parent / key, words_of(line[end + 1 :], where, "prompt"))


def _of_row(file: Path, number: int, row: dict[str, Any]) -> Task:
    where, values = f"line {number} of {file}", dict[str, Any]()
    for name, aliases in COLUMNS.items():
        given = [alias for alias in aliases if row.get(alias) not in (None, "") or (alias in row and name == "prompt")]
        if len(given) > 1:
            raise BadDataset(f"{where} has {' and '.join(given)}: leave out all but one")
        values[name] = row[given[0]] if given else None
    for name in ("file", "prompt"):
        if values[name] is None:
            raise BadDataset(f"{where} has no {name}: name it {' or '.join(COLUMNS[name])}")
    path = key_of(values["file"], where)
    files = {name: file.parent / key_of(values[name], where) for name in ("mask", "truth") if values[name] is not None}
    target = None if values["target"] is None else words_of(values["target"], where, "target")
    kind = "" if values["kind"] is None else str(values["kind"])
    key = path if values["key"] is None else key_of(str(values["key"]), where)
    prompt = words_of(values["prompt"], where, "prompt")
    return Task(key, file.parent / path, prompt, target or None, files.get("mask"), files.get("truth"), kind)

"""Datasets of the library ``datasets``: a folder that it saved, or a name on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from iterinv.evaluate.datasets.prompts import COLUMNS
from iterinv.evaluate.datasets.task import BadDataset, Dataset, Task, digest_of, words_of

SAVED = ("dataset_dict.json", "state.json")
"""Files of which a folder that the library saved has one."""


def recognises(where: Path) -> bool:
    """Tell whether a path is a folder that the library saved."""
    return any((where / name).is_file() for name in SAVED)


def opened(where: str | Path) -> Dataset:
    """The tasks of a saved folder, or of ``name`` or ``name@split`` on the hub, which the library downloads.

    The column of pictures and those of the texts have a name that a prompt file may have
    (:data:`iterinv.evaluate.datasets.prompts.COLUMNS`). A key is the split and the number of the row, since rows have
    no paths. Raises ``ModuleNotFoundError`` without the library and :class:`BadDataset`.
    """
    if find_spec("datasets") is None:
        raise ModuleNotFoundError(f"{where} is opened by the library datasets: pip install datasets")
    import datasets

    name, _, split = str(where).partition("@")
    folder = Path(name)
    try:
        loaded = datasets.load_from_disk(name) if folder.is_dir() else datasets.load_dataset(name)
    except Exception as error:  # of the network, of files and of the hub, by a dozen libraries
        raise BadDataset(f"the dataset {name} cannot be opened ({str(error).splitlines()[0][:200]})") from None
    if isinstance(loaded, datasets.DatasetDict):
        splits = list(loaded)
        split = split or next((each for each in ("test", "validation", "train") if each in splits), splits[0])
        if split not in splits:
            raise BadDataset(f"the dataset {name} has no split {split}: it has {', '.join(splits)}")
        loaded = loaded[split]
    return of_rows(name, split or "rows", loaded, list(loaded.column_names))


def of_rows(name: str, split: str, rows: Any, names: Sequence[str]) -> Dataset:
    """The tasks of rows that are mappings with the columns ``names``; ``rows`` gives a row by its number and a column
    by its name. Raises :class:`BadDataset` for rows without pictures or prompts."""
    columns = {value: next((each for each in aliases if each in names), None) for value, aliases in COLUMNS.items()}
    picture, prompt, target = (columns[value] for value in ("file", "prompt", "target"))
    if picture is None or prompt is None:
        missing = "file" if picture is None else "prompt"
        raise BadDataset(
            f"the dataset {name} has the columns {', '.join(names)}: rename one to {' or '.join(COLUMNS[missing])}"
        )
    prompts, targets = list(rows[prompt]), list(rows[target]) if target else [None] * len(rows)
    if not prompts:
        raise BadDataset(f"the dataset {name} has no rows in {split}")
    keys = [f"{split}/{k:06d}" for k in range(len(prompts))]

    def make(k: int, size: int) -> Task:
        row, where = rows[k], f"row {k} of {name}"
        optional = {value: row[columns[value]] if columns[value] else None for value in ("mask", "truth", "kind")}
        kind = "" if optional.pop("kind") is None else str(row[columns["kind"]])
        words = words_of(row[prompt], where, "prompt")
        wanted = None if targets[k] is None else words_of(targets[k], where, "target") or None
        return Task(keys[k], row[picture], words, wanted, kind=kind, **optional)

    digest = digest_of([name, split, prompts, targets])
    return Dataset("huggingface", keys, [bool(each) for each in targets], digest, make)

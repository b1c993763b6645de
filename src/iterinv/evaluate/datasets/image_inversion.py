"""ImageInversion, the pictures that IterInv was measured on: a folder with ``prompt_all_imgs.txt``, 69 lines
``path: prompt``. The pictures are those of pix2pix-zero and Plug-and-Play."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from iterinv.evaluate.datasets.prompts import lines_of
from iterinv.evaluate.datasets.task import Dataset, listed

FILE = "prompt_all_imgs.txt"
SETS = ("pix2pix-zero", "imagenetr-ti2i", "wild-ti2i")
"""Folders of the sets that the pictures come from."""


def recognises(where: Path) -> bool:
    """Tell whether a path is such a folder or its prompt file."""
    return where.name == FILE if where.is_file() else (where / FILE).is_file()


def opened(where: Path) -> Dataset:
    """The tasks of the folder or its prompt file; ``kind`` is the set that a picture comes from. Raises
    :class:`iterinv.evaluate.datasets.task.BadDataset`."""
    file = where if where.is_file() else where / FILE
    tasks, numbers = lines_of(file)
    kinds = [next((each for each in SETS if each in Path(task.key).parts), "") for task in tasks]
    return listed(
        "image-inversion", file, [replace(task, kind=kind) for task, kind in zip(tasks, kinds, strict=True)], numbers
    )

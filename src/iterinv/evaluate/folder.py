"""Folders that an evaluation resumes, and processes that share its work."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np

from iterinv.files import CannotWrite, lock, whole, writing

SETTINGS = "settings.json"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Make a folder, and let no other process that asks for the same write to it while the block runs. A folder that
    was made and is empty at the end is removed.

    Raises ``OSError`` where another process does, and :class:`iterinv.files.CannotWrite`.
    """
    with writing(folder):
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        if lock(descriptor) is False:
            raise OSError(f"another run is writing to {folder}: wait until it ends, or choose another --out")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise CannotWrite(folder, PermissionError(13, os.strerror(13)), "choose another --out")
        yield
    finally:
        os.close(descriptor)
        with suppress(OSError):  # the first that is not empty, and the folders above it, stay
            for each in made:
                each.rmdir()


def settle(folder: Path, settings: dict[str, Any]) -> None:
    """Make a folder for results with these settings; several processes may do so at once.

    Raises ``ValueError`` where it holds those of others, with the difference, or where its settings cannot be read.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    file = folder / SETTINGS
    if not file.exists():
        write_json(file, settings)
    try:
        before = json.loads(file.read_bytes())
        if not isinstance(before, dict):
            raise ValueError("not a mapping")
    except (ValueError, RecursionError):
        raise ValueError(f"{file} holds no settings in JSON: delete {folder}, or choose another --out") from None
    if unlike := sorted(key for key in {*settings, *before} if before.get(key) != settings.get(key)):
        shown = (f"{key} ({_short(before.get(key))} there, {_short(settings.get(key))} now)" for key in unlike)
        raise ValueError(f"{folder} holds results with another {', '.join(shown)}: choose another --out")


def _short(value: Any) -> str:
    """A setting as a few words of text."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def write_json(path: Path, values: Any) -> None:
    """Write values as an indented JSON file, whole or not at all."""
    with whole(path) as file:
        file.write((json.dumps(values, indent=2) + "\n").encode())


def read_lines(path: Path) -> list[Any]:
    """The values of a file with one in JSON a line, empty if there is no file. Lines that are no JSON are left out."""
    values = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with suppress(ValueError, RecursionError):
            values.append(json.loads(line))
    return values


def append_line(path: Path, value: Any) -> None:
    """Add a value in JSON to a file with one a line, by one write, so that several processes may do so at once.

    Raises ``ValueError`` for a link, since another file would be written.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link to another file: delete it, or choose another --out")
    with writing(path), open(path, "ab+", buffering=0) as file:
        cut = file.tell() > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
        # A line that a killed run cut off must not take the next one with it.
        file.write((b"\n" if cut else b"") + json.dumps(value).encode() + b"\n")


def read_array(path: Path, rows: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Map the array of uint8 (at least ``rows``, *shape) in a file; ``None`` for a file that is missing or holds
    another array."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.shape[1:] == shape
    return array if fits and len(array) >= rows else None


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array to a file, whole or not at all."""
    with whole(path) as file:
        np.save(file, values, allow_pickle=False)


def processes() -> Pool:
    """Open a pool with one process for each core, each of one thread."""
    import torch

    return get_context("spawn").Pool(os.cpu_count(), torch.set_num_threads, (1,))

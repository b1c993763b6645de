"""One task of a dataset, and a dataset as a list of keys from which tasks are made when they are needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iterinv.images import Picture
    from iterinv.masks import Mask

NAMED = 3
"""Names that a message lists before it says how many there are."""


class BadDataset(ValueError):
    """A dataset that cannot be used; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Task:
    """One picture to invert, and the edit that is wanted of it.

    ``key`` names the task: a relative path, never a file's name alone, since names repeat. ``prompt`` describes the
    picture, ``target`` the edited one, ``None`` where nothing is edited. ``mask`` is 1 or white where an edit may
    change the picture, ``truth`` is the true answer, and ``kind`` is the kind of picture or edit.
    """

    key: str
    picture: Picture
    prompt: str
    target: str | None = None
    mask: Mask | None = None
    truth: Picture | None = None
    kind: str = ""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Tasks by number. ``make`` makes the ``k``-th task; rendered pictures are ``size`` px. ``edited`` is true for each
    task that has a target. ``digest`` names the content: the same keys, prompts, targets and sizes of files."""

    name: str
    keys: Sequence[str]
    edited: Sequence[bool]
    digest: str
    make: Callable[[int, int], Task]

    def __len__(self) -> int:
        return len(self.keys)

    def up_to(self, count: int | None) -> Dataset:
        """The first ``count`` tasks; all of them for ``None``."""
        if count is None or count >= len(self):
            return self
        return Dataset(self.name, self.keys[:count], self.edited[:count], self.digest, self.make)


def listed(name: str, where: Path, tasks: Sequence[Task], lines: Sequence[int] = ()) -> Dataset:
    """The dataset of tasks whose pictures are files, which a file or folder ``where`` lists; ``lines`` has the number
    of each task's line.

    Raises :class:`BadDataset` for no tasks, keys that occur twice, and files that are missing.
    """
    if not tasks:
        raise BadDataset(f"{where} lists no pictures: give each a line")
    first: dict[str, int] = {}
    for k, task in enumerate(tasks):
        if (before := first.setdefault(task.key, k)) != k:
            at = f"lines {lines[before]} and {lines[k]} of {where}" if lines else f"two entries of {where}"
            raise BadDataset(f"{at} have the key {task.key}: leave one out, or give each a key of its own")
    files = [each for task in tasks for each in (task.picture, task.mask, task.truth) if isinstance(each, Path)]
    missing = [each for each in files if not each.is_file()]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        names = ", ".join(map(str, missing[:NAMED]))
        raise BadDataset(
            f"{len(missing)} of the {len(files)} files that {where} names are missing: {names}{more}; copy them there, "
            "or remove their lines"
        )
    digest = digest_of([[_described(value) for value in vars(task).values()] for task in tasks])
    keys, edited = [task.key for task in tasks], [task.target is not None for task in tasks]
    return Dataset(name, keys, edited, digest, lambda k, _: tasks[k])


def digest_of(values: Any) -> str:
    """A hash of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _described(value: Any) -> Any:
    """A task's value for the digest: a file is its size, so that a dataset may be moved."""
    return value.stat().st_size if isinstance(value, Path) else value


def key_of(text: Any, where: str) -> str:
    """A path below a dataset's folder, as a key. Raises :class:`BadDataset` for one that is empty or leads outside;
    ``where`` begins the message."""
    if not isinstance(text, str) or not text.strip():
        raise BadDataset(f"{where} names no picture: give its path")
    path = PurePosixPath(text.strip())
    if path.is_absolute() or ".." in path.parts or "\0" in text or not path.parts:
        raise BadDataset(f"{where} names {text.strip()!r}: give a path relative to the dataset's folder, and below it")
    return str(path)


def words_of(text: Any, where: str, name: str) -> str:
    """A prompt, stripped. Raises :class:`BadDataset` for what is no text."""
    if not isinstance(text, str):
        raise BadDataset(f"{where} has the {name} {text!r}: it is a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadDataset(f"{where} has a {name} that is not text in UTF-8: type it again") from None
    return text.strip()

"""Datasets and folders of evaluations on other file systems, by their addresses: ``s3://…``, ``gs://…``, ``hf://…`` and
whatever else `fsspec <https://filesystem-spec.readthedocs.io>`_ opens."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

BETWEEN = 60.0
"""Seconds between two uploads of a run that goes on."""


def is_address(text: str) -> bool:
    """Tell whether a text is the address of a file or a folder on another file system."""
    return re.match(r"[a-z][a-z0-9+.-]*://.", text) is not None


def local_copy(address: str) -> Path:
    """Copy a file or a folder to the cache, and return the copy. A file that is there in the same size is not copied
    again.

    The cache is ``iterinv/remote`` below ``XDG_CACHE_HOME``, or below ``~/.cache``. Raises ``FileNotFoundError`` for an
    address that names nothing, ``OSError`` where it cannot be reached, and ``ModuleNotFoundError`` where fsspec needs
    another package for it.
    """
    system, root = _opened(address)
    copy = _place(address)
    if not _pull(system, root, copy, address):
        raise FileNotFoundError(f"there is nothing at {address}")
    return copy


@contextmanager
def working_folder(out: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Yield the folder that a run writes to, and a function that it calls after every row: for an address the folder of
    a :func:`mirrored` one, for a path itself."""
    if not is_address(out):
        yield Path(out), lambda: None
        return
    with mirrored(out) as mirror:
        yield mirror.folder, mirror.push_now_and_then


@contextmanager
def mirrored(address: str) -> Iterator[Mirror]:
    """Yield the mirror of a folder that a run writes to: what is there is copied to the cache first, and what the block
    changes is copied back now and then, and at its end, by an error too. A file that is at the address counts for more
    than that in the cache, so that a run which was killed does its last minute again. Raises as :func:`local_copy`
    does."""
    system, root = _opened(address)
    folder = _place(address)
    _pull(system, root, folder, address)
    folder.mkdir(parents=True, exist_ok=True)
    mirror = Mirror(system, root, folder, address)
    try:
        yield mirror
    finally:
        mirror.push()


class Mirror:
    """A folder in the cache whose files are copied to an address."""

    def __init__(self, system: Any, root: str, folder: Path, address: str) -> None:
        self.system, self.root, self.folder, self.address = system, root, folder, address
        self.copied = {path: _stamp(path) for path in _files(folder)}
        self.last = time.monotonic()

    def push_now_and_then(self) -> None:
        """Copy what has changed, if the last time is long ago."""
        if time.monotonic() - self.last >= BETWEEN:
            self.push()

    def push(self) -> None:
        """Copy every file that has changed. Raises ``OSError`` where the address cannot be written to."""
        for path in _files(self.folder):
            if self.copied.get(path) != (stamp := _stamp(path)):
                there = f"{self.root}/{path.relative_to(self.folder).as_posix()}"
                with _named(self.address):
                    self.system.makedirs(there.rpartition("/")[0], exist_ok=True)
                    self.system.put_file(str(path), there)
                self.copied[path] = stamp
        self.last = time.monotonic()


def _opened(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        with _named(address):
            system, root = url_to_fs(address)
    except ImportError as error:
        raise ModuleNotFoundError(f"{address} needs another package: {error}") from None
    return system, str(root).rstrip("/")


def _pull(system: Any, root: str, copy: Path, address: str) -> bool:
    """Copy a file, or the files of a folder, and tell whether there is any."""
    with _named(address):
        listed = system.find(root, detail=True) if system.exists(root) else {}
        for name, about in listed.items():
            below = name[len(root) :].strip("/") if name != root else ""
            path = copy / below if below else copy
            if copy not in (path, *path.parents) or ".." in PurePosixPath(below).parts:
                raise OSError(f"{address} lists {name}, which lies outside it")
            if not path.exists() or path.stat().st_size != about.get("size"):
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f".{path.name}.{os.getpid()}")
                system.get_file(name, str(partial))
                partial.replace(path)
    return bool(listed)


@contextmanager
def _named(address: str) -> Iterator[None]:
    """Name the address in the errors of a file system, which raises errors of many kinds."""
    try:
        yield
    except (ImportError, OSError):
        raise
    except Exception as error:
        raise OSError(f"{address} cannot be used: {error}") from None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _place(address: str) -> Path:
    """The place of an address in the cache, under its own last name, since formats are recognised by names."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iterinv" / "remote"
    name = PurePosixPath(address.partition("://")[2]).name or "root"
    return cache / hashlib.sha256(address.encode()).hexdigest()[:16] / name

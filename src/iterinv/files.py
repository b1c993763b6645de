"""Files that are written completely or not at all, and never through a link."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

UNFINISHED = re.compile(r"\.iterinv-[0-9a-f]{16}(\.whole)?")
"""Names of files and folders in the making. One that no process holds a lock on is of a run that was killed."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a disk that takes no more."""


class CannotWrite(OSError):
    """An error for a file or folder that cannot be written; ``reason`` says why, and the message adds the path and a
    remedy."""

    def __init__(self, what: object, error: OSError, remedy: str = "choose another place") -> None:
        self.reason = str(getattr(error, "reason", "") or error.strerror or error)
        full = error.errno in FULL or any(os.strerror(each) in self.reason for each in FULL)
        super().__init__(f"{what} cannot be written ({self.reason}): {'make room, or ' if full else ''}{remedy}")


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Text with escapes for control characters, which a terminal obeys, and bytes that are no text; names hold any."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def unfinished(folder: Path) -> Path:
    """Return a new name in a folder for an unfinished file or folder."""
    return folder / f".iterinv-{secrets.token_hex(8)}"


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing that replaces ``path`` if the block succeeds and vanishes otherwise.

    A link at ``path`` is replaced and the file behind it left alone. The permissions are the umask's. Files that killed
    runs left beside it are removed. Raises :class:`CannotWrite`.
    """
    partial = unfinished(path.parent)
    with writing(path):
        clean(path.parent)
        try:
            with _locked(partial) as file:
                yield file
                file.flush()
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Turn the errors of writing a file or a folder into :class:`CannotWrite`."""
    try:
        yield
    except (BrokenPipeError, CannotWrite):
        raise
    except OSError as error:
        raise CannotWrite(what, error) from None


def same_file(path: Path, others: Iterable[Path]) -> bool:
    """Tell whether a path leads to one of other files: by links of either kind, or by a name in another case."""
    for other in others:
        with suppress(OSError):
            if path.samefile(other):
                return True
    return False


def lock(descriptor: int) -> bool | None:
    """Lock an open file or folder until it is closed. False where another opening of it is locked, ``None`` where
    the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def _locked(partial: Path) -> Iterator[BinaryIO]:
    """A new file that this process holds."""
    while True:
        with open(partial, "xb") as file:
            lock(file.fileno())
            if partial.exists():  # else another run took it for a dead one's before it was locked
                yield file
                return


def clean(folder: Path) -> None:
    """Remove the files that killed runs were writing to a folder."""
    with suppress(OSError):
        for each in folder.iterdir():
            if UNFINISHED.fullmatch(each.name) and each.is_file() and not each.is_symlink():
                with suppress(OSError), open(each, "rb") as file:
                    if lock(file.fileno()):
                        each.unlink(missing_ok=True)

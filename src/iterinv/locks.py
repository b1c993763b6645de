"""Locks that a forked child finds open, whatever other threads of the parent do at the fork."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from weakref import WeakSet

_ALL: WeakSet[Lock] = WeakSet()


class Lock:
    """A lock that its own thread may take again, for use in ``with``."""

    def __init__(self) -> None:
        self.open()
        _ALL.add(self)

    def open(self) -> None:
        """Open it, for a child process in which the thread that holds it does not exist."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()


def _open_all() -> None:
    for lock in _ALL:
        lock.open()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)

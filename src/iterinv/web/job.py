"""Work in a thread of its own, whose events arrive in groups, and which can be cancelled."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from iterinv.errors import sentence_of
from iterinv.workbench import Event, Workbench

EVERY = 0.25
"""Seconds between two groups of events."""


class Cancelled(Exception):
    """Raised within the work of a job that is cancelled, at its next event."""


class Job:
    """The thread that runs ``work`` with a workbench.

    Iterating yields the events since the last time, every :data:`EVERY` seconds, until the work is done.
    ``result`` then returns its value, or raises its error. Setting ``stop`` ends the work before its next network call.
    """

    def __init__(self, work: Callable[[Workbench], Any], stop: threading.Event) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._stop, self._value = stop, None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[list[Event]]:
        while self._thread.is_alive():
            self._thread.join(EVERY)
            yield self._waiting()
        if rest := self._waiting():
            yield rest

    def result(self) -> Any:
        """Return the value of the work, which has ended. Raises its error, and :class:`Cancelled`."""
        if self._error is not None:
            raise self._error
        return self._value

    def close(self) -> None:
        """Stop the work before its next network call; its memory is free once it has ended."""
        self._stop.set()

    def _waiting(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                events.append(self._events.get_nowait())
            except Empty:
                return events

    def _emit(self, event: Event) -> None:
        if self._stop.is_set():
            raise Cancelled
        self._events.put(event)

    def _run(self, work: Callable[[Workbench], Any]) -> None:
        try:
            self._value = work(Workbench(self._emit))
        except BaseException as error:  # it is raised again where the result is read
            if isinstance(error, Cancelled) or sentence_of(error) is not None:
                error.__traceback__ = error.__context__ = error.__cause__ = None  # whose frames hold the work's memory
            self._error = error
        if self._stop.is_set():
            gc.collect()

"""Workers in processes of their own: each holds a cascade, and sends every row as soon as it is done.

A worker whose parent is gone ends at its next row; the parent stops where a worker is gone.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from iterinv.evaluate.worker import Evaluation, Job, Result, Worker

REFUSALS: tuple[type[Exception], ...] = (ModuleNotFoundError, MemoryError, OSError, ArithmeticError, ValueError)
"""Errors that a user reads as a sentence, and that are raised again here."""


class Workers(AbstractContextManager["Workers"]):
    """One worker in this process, or several in others. They end with the block."""

    def __init__(self, evaluation: Evaluation, processes: int) -> None:
        self.evaluation, self.processes = evaluation, processes
        self.pairs: list[tuple[BaseProcess, Connection]] = []
        self.own: Worker | None = None

    def __enter__(self) -> Workers:
        if self.processes == 1:
            self.own = Worker(self.evaluation)
            return self
        context = get_context("spawn")
        for _ in range(self.processes):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, self.evaluation), daemon=True)
            process.start()
            there.close()  # or the end of the process would not be heard of
            self.pairs.append((process, here))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for process, connection in self.pairs:
            process.terminate()
            connection.close()
        for process, _ in self.pairs:
            process.join()

    def facts(self) -> dict[str, Any]:
        """Wait until all cascades are loaded, and return the facts about them. Raises as :class:`Worker` does."""
        if self.own is not None:
            return self.own.facts()
        every = [_received(process, connection) for process, connection in self.pairs]
        return every[0]

    def rows(self, jobs: Iterator[Job]) -> Iterator[Result]:
        """Yield the rows of jobs as they are done. Raises ``OSError`` where a worker's process has ended."""
        if self.own is not None:
            for each in jobs:
                yield from self.own.rows(each)
            return
        busy: dict[Connection, BaseProcess] = {}
        for process, connection in self.pairs:
            if (job := next(jobs, None)) is not None:
                _send(process, connection, job)
                busy[connection] = process
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                result = _received(busy[ready], ready)
                if result is not None:
                    yield result
                elif (following := next(jobs, None)) is None:
                    del busy[ready]
                else:
                    _send(busy[ready], ready, following)


def _send(process: BaseProcess, connection: Connection, job: Job) -> None:
    try:
        connection.send(job)
    except OSError:
        raise _gone(process) from None


def _received(process: BaseProcess, connection: Connection) -> Any:
    """The next value of a worker. Raises the error that it sent."""
    try:
        kind, value = connection.recv()
    except (EOFError, OSError):
        raise _gone(process) from None
    if kind == "value":
        return value
    raise next((each for each in REFUSALS if each.__name__ == kind), RuntimeError)(value)


def _gone(process: BaseProcess) -> OSError:
    process.join()
    return OSError(
        f"a process of this evaluation ended (exit code {process.exitcode}), perhaps for want of memory: run the "
        "command again, with fewer --processes; what is done is not done again"
    )


def _work(connection: Connection, evaluation: Evaluation) -> None:
    """Do jobs until the parent is gone. Values are rows, and ``None`` at the end of each job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked to stop too, and ends this process
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            worker = Worker(evaluation)
            connection.send(("value", worker.facts()))
            while True:
                for result in worker.rows(connection.recv()):
                    connection.send(("value", result))
                connection.send(("value", None))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except REFUSALS as error:
            kind = next(each for each in REFUSALS if isinstance(error, each))
            connection.send((kind.__name__, _sentence(error)))
        except Exception:
            connection.send(("RuntimeError", traceback.format_exc()))


def _sentence(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return f"{getattr(error, 'filename', None) or 'a file'}: {strerror}" if strerror else str(error)

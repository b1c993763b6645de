"""The console script. It imports its modules after it has set up the answer to Ctrl-C."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

STOPPED = 130
CLOSED_PIPE = 141
PATIENCE = 20.0
"""Seconds that an import may take to its end once a stop is asked for."""

CLEANING = 2.0
"""Seconds that cleaning up may take before a further Ctrl-C cuts it short."""

_first = 0.0


def main() -> None:
    """Run the command line. Ctrl-C and a request to end stop it with exit code 130, after it has removed unfinished
    files.

    Characters that the terminal's encoding lacks are printed as escapes. Where the reader of the output is gone, the
    exit code is 141, without a message.
    """
    # Threads that wait for work should sleep: where others compute on the same cores, spinning makes this three times
    # slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _listen()
    sys.unraisablehook = _unraisable
    code: int | str | None = None
    out = sys.stdout
    try:
        app = command_line()

        app(prog_name="iterinv")
    except KeyboardInterrupt:
        code = STOPPED
    except SystemExit as leaving:
        code = leaving.code if sys.stdout is out else CLOSED_PIPE  # typer takes a closed stream away
    except OSError as error:
        print(f"iterinv: the output cannot be written ({error.strerror})", file=sys.stderr)
        code = 2
    if code == STOPPED:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        print("iterinv: stopped; no file was left half-written", file=sys.stderr)
    sys.exit(_flushed(code))


@cache
def command_line() -> typer.Typer:
    """The command line with the commands of every part of the package."""
    from iterinv.cli import app, evaluate
    from iterinv.embedded import commands
    from iterinv.web import command

    evaluate.register(app)
    commands.register(app)
    command.register(app)
    return app


def _listen() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    global _first
    _first = _first or time.monotonic()
    # An exception within an import can abort the process from within C++.
    if _importing(frame) and time.monotonic() - _first < PATIENCE:
        _later(0.05, lambda: signal.pthread_kill(threading.main_thread().ident or 0, number))
        return
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _ignore)  # a second one would cut the cleaning short
    _later(CLEANING, _ignored.clear)
    _ignored.set()
    raise KeyboardInterrupt


_ignored = threading.Event()


def _ignore(number: int, frame: FrameType | None) -> None:
    if not _ignored.is_set():  # code that catches everything has swallowed the first one
        _stop(number, frame)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Ask again for a stop that fell into a ``__del__`` or another callback, whose exceptions go nowhere."""
    if what.exc_type is KeyboardInterrupt:
        _listen()
        _later(0.05, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    else:
        sys.__unraisablehook__(what)


def _later(seconds: float, call: Callable[[], object]) -> None:
    again = threading.Timer(seconds, call)
    again.daemon = True
    again.start()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _flushed(code: int | str | None) -> int | str | None:
    """The exit code, once the standard streams have passed on all they hold."""
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        try:
            stream.flush()
        except OSError as error:
            closed = isinstance(error, BrokenPipeError)
            code = CLOSED_PIPE if closed else code or 2
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python complains as it ends
            if not closed:
                print(f"iterinv: the output cannot be written ({error.strerror})", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()

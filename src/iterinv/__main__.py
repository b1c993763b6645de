"""The console script. What it needs is imported where Ctrl-C is already answered with a sentence."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

STOPPED = 130
PATIENCE = 20.0
"""Seconds that an import may take to its end once a stop is asked for."""

_first = 0.0


def main() -> None:
    """Run the command line. Ctrl-C and a request to end stop it with exit code 130; what was begun is cleaned away."""
    # Threads that wait for work should sleep: where others compute on the same cores, spinning makes this three times
    # slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app = command_line()

        app(prog_name="iterinv")
    except KeyboardInterrupt:
        _say()
    except SystemExit as leaving:
        if leaving.code == STOPPED:
            _say()
        raise


@cache
def command_line() -> typer.Typer:
    """The command line with the commands of every part of the package."""
    from iterinv.cli import app
    from iterinv.embedded.commands import register

    register(app)
    return app


def _stop(number: int, frame: FrameType | None) -> None:
    global _first
    _first = _first or time.monotonic()
    if (
        _importing(frame) and time.monotonic() - _first < PATIENCE
    ):  # an exception there can abort the process from within C++
        again = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, number))
        again.daemon = True
        again.start()
        return
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # a second one would cut the cleaning short
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _say() -> None:
    print("iterinv: stopped; no file was left half-written", file=sys.stderr)
    sys.exit(STOPPED)


if __name__ == "__main__":
    main()

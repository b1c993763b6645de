"""The frame of every command: its answer, errors, the output folder, and the display of the workbench's events.

A command prints text by :func:`say`, :func:`console` and the tables, and gives its answer as values by :func:`answer`
once. With ``--json`` the answer alone is on standard output; with ``--quiet`` no progress and no notes are shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from iterinv.errors import sentence_of
from iterinv.files import printable

if TYPE_CHECKING:
    from rich.console import Console

    from iterinv.workbench import Event, Workbench

CLOSED_PIPE = 141
"""The exit code where the reader of the output has gone, as a shell has it."""

BETWEEN = 10.0
"""Seconds between two lines of progress within one phase, where the output is no terminal."""


@contextmanager
def errors() -> Iterator[None]:
    """Turn user errors into a sentence and exit code 2; anything else is a bug and shows its traceback."""
    try:
        yield
    except BrokenPipeError:
        raise typer.Exit(CLOSED_PIPE) from None
    except Exception as error:
        if (said := sentence_of(error)) is None:
            raise
        typer.echo(f"iterinv: {said}", err=True)
        raise typer.Exit(2) from None


WIDTH = 80
"""The columns of text where there is no terminal."""


@dataclass
class Frame:
    """The settings of the output of one command, the stream of its answer, and the number of answers it has given."""

    json: bool = False
    quiet: bool = False
    output: Any = None
    answers: int = 0


_frame: ContextVar[Frame | None] = ContextVar("frame", default=None)


def frame() -> Frame:
    """The frame of the command that runs; outside of any, one that prints text."""
    return _frame.get() or Frame()


@contextmanager
def framed(json: bool, quiet: bool) -> Iterator[None]:
    """Run a command with its settings of output. With ``json``, text that anything prints goes to standard error.

    Raises ``RuntimeError`` for a command that ends well with ``json`` and has not given one answer.
    """
    own = Frame(json, quiet, sys.stdout)
    token = _frame.set(own)
    try:
        if not json:
            yield
            return
        with redirect_stdout(sys.stderr):
            yield
        if own.answers != 1:
            raise RuntimeError(f"the command gave {own.answers} answers in place of one")
    finally:
        _frame.reset(token)


def answer(values: dict[str, Any]) -> None:
    """Give the answer of a command: one JSON object on standard output with ``--json``, else nothing."""
    from iterinv.plain import to_json

    own = frame()
    own.answers += 1
    if own.json:
        typer.echo(to_json(values, indent=2, ascii_only=True), file=own.output)


def say(text: str) -> None:
    """Print a line of text on standard output, without control characters; nothing with ``--json``."""
    if not frame().json:
        typer.echo(printable(text))


def note(text: str) -> None:
    """Print a note on standard error; nothing with ``--quiet``."""
    if not frame().quiet:
        typer.echo(f"note: {printable(text)}", err=True)


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is, without markup, and raises where its reader has gone. Where there is no
    terminal it has :data:`WIDTH` columns.

    That of standard output prints nothing with ``--json``, that of standard error nothing with ``--quiet``.
    """
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process at once, with exit code 1

    silent = frame().quiet if stderr else frame().json
    file = None if stderr else sys.stdout
    made = Plain(stderr=stderr, file=file, quiet=silent, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = WIDTH
    return made


@contextmanager
def session(out: Path, *inputs: Any, spared: str = "") -> Iterator[tuple[Path, Workbench]]:
    """Yield a staging folder, and a workbench whose events are shown.

    A terminal has a bar for each stage and phase, a file a line now and then; notes are sentences in both. Raises, as
    an error to the user, where a result would replace one of the ``inputs``: those that are files on this disk.
    ``spared`` is a name that is not written where an input has it.
    """
    with errors():
        from iterinv import workbench as work
        from iterinv.files import same_file
        from iterinv.outputs import outputs

        files = [Path(each) for each in inputs if isinstance(each, (str, Path)) and Path(each).is_file()]
        names = [name for name in work.FILES if name != spared]
        with outputs(out, files, names) as staging, watched() as bench:
            yield staging, bench
            there = (name for name in work.FILES if (out / name).exists() and not same_file(out / name, files))
            if stale := sorted(name for name in there if not (staging / name).exists()):
                bench.on_note(f"{out} also holds {', '.join(stale)} of an earlier run")


@contextmanager
def watched() -> Iterator[Workbench]:
    """Yield a workbench whose events are shown while the block runs."""
    from iterinv import workbench as work

    with progress() as draw:

        def show(event: Event) -> None:
            where = f"stage {event.stage}: " if isinstance(event, work.Progress) and event.stage else ""
            if isinstance(event, work.Note):
                draw.note(event.text)
            elif event.phase == "network call":
                draw.wait(f"{where}{event.calls} network calls")
            else:
                draw.step(f"{where}{event.phase}", event.done, event.total)

        yield work.Workbench(show)


class Drawing:
    """Progress on standard error: bars on a terminal, lines elsewhere."""

    def __init__(self, console: Console, bars: Any) -> None:
        self.console, self.bars = console, bars
        self.tasks: dict[str, Any] = {}
        self.last = time.monotonic()

    def note(self, text: str) -> None:
        """Print a sentence."""
        self.console.print(f"note: {printable(text)}", soft_wrap=not self.console.is_terminal)

    def wait(self, text: str) -> None:
        """Print a line if none was printed for a while and there are no bars."""
        if not self.console.is_terminal and time.monotonic() - self.last > BETWEEN:
            self._line(text)

    def step(self, name: str, done: int, total: int | None, left: str = "") -> None:
        """Draw that ``done`` of ``total`` steps are done, ``None`` where the number is not known; ``left`` says how
        much time is left."""
        if not self.console.is_terminal:
            text = f"{name} {done}" + ("" if total is None else f" of {total}") + (f", {left}" if left else "")
            if done == total:
                self._line(text)
            else:
                self.wait(text)
            return
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=total)
        elif self.bars.tasks[self.tasks[name]].finished:  # the next of many: the bar begins again
            self.bars.reset(self.tasks[name], total=total)
        self.bars.update(self.tasks[name], completed=done, total=total, description=f"{name}  {left}".strip())

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)
        self.last = time.monotonic()


@contextmanager
def progress() -> Iterator[Drawing]:
    """Draw progress on standard error while the block runs."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    where = console(stderr=True)
    name = TextColumn("{task.description:<24}", markup=False)
    with Progress(
        name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=where, disable=not where.is_terminal
    ) as bars:
        yield Drawing(where, bars)


def counted(work: Iterator[Any], name: str, total: int, done: Callable[[int, Any], int] = lambda k, _: k) -> None:
    """Run an iterator to its end and draw its progress; ``done`` computes it from the number of items and the latest
    item."""
    with progress() as draw:
        for k, item in enumerate(work, 1):
            draw.step(name, done(k, item), total)

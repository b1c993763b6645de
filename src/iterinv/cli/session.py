"""The frame of a command: errors, the output folder, and the events of the workbench, drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from iterinv.workbench import Event, Workbench


@contextmanager
def errors() -> Iterator[None]:
    """Turn user errors into a sentence and exit code 2; anything else is a bug and shows its traceback."""
    try:
        yield
    except (ValueError, OSError, ArithmeticError, ModuleNotFoundError) as error:
        typer.echo(f"iterinv: {error}", err=True)
        raise typer.Exit(2) from None
    except MemoryError as error:
        said = str(error) or "there is not enough memory for this; take a smaller picture or fewer at once"
        typer.echo(f"iterinv: {said}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def session(out: Path, picture: Path | None = None) -> Iterator[tuple[Path, Workbench]]:
    """A staging folder, and a workbench whose events are drawn: a bar for each stage and phase, notes above the bars.

    Raises, as an error to the user, where a result would replace the picture itself.
    """
    with errors():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from iterinv import workbench as work
        from iterinv.outputs import outputs

        if picture is not None and picture.name in work.FILES and picture.resolve() == (out / picture.name).resolve():
            raise ValueError(f"{picture} would be replaced by a result: choose another --out")
        console = Console(stderr=True)
        columns = TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with outputs(out) as staging, Progress(*columns, console=console) as bars:
            tasks: dict[str, Any] = {}

            def draw(event: Event) -> None:
                if isinstance(event, work.Note):
                    bars.console.print(f"note: {event.text}", markup=False, highlight=False)
                elif event.phase != "network call":
                    name = f"stage {event.stage}: {event.phase}"
                    if name not in tasks:
                        tasks[name] = bars.add_task(name, total=event.total)
                    elif bars.tasks[tasks[name]].finished:  # the next of many: the bar begins again
                        bars.reset(tasks[name], total=event.total)
                    bars.update(tasks[name], completed=event.done, total=event.total)

            bench = work.Workbench(draw)
            yield staging, bench
            stale = sorted(name for name in work.FILES if (out / name).exists() and not (staging / name).exists())
            if stale:
                bench.on_note(f"{out} also holds {', '.join(stale)} of an earlier run")

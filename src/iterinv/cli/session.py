"""What a command does around its work: errors, the folder of what is made, progress, pictures and inversions read."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from iterinv.cli.options import load

if TYPE_CHECKING:
    from iterinv.app import Session
    from iterinv.images import Frame


@contextmanager
def errors() -> Iterator[None]:
    """User errors become a sentence and exit code 2; anything else is a bug and shows its traceback."""
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
def session(out: Path, picture: Path | None = None) -> Iterator[tuple[Path, Any, Any]]:
    """Staging folder, progress callback (one bar for each stage and direction), and a way to say things above the bars.

    Warnings are said the same way. Raises, as an error to the user, where what is made would replace the picture itself.
    """
    with errors():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from iterinv.app import FILES, outputs

        if picture is not None and picture.name in FILES and picture.resolve() == (out / picture.name).resolve():
            raise ValueError(f"{picture} would be replaced by what is made of it: choose another --out")
        console = Console(stderr=True)
        columns = TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with outputs(out) as staging, Progress(*columns, console=console) as bars, warnings.catch_warnings():
            tasks: dict[str, Any] = {}

            def progress(stage: str, doing: str, done: int, total: int) -> None:
                name = f"stage {stage}: {doing}"
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=total)
                elif bars.tasks[tasks[name]].finished:  # the next of many: the bar begins again
                    bars.reset(tasks[name], total=total)
                bars.update(tasks[name], completed=done)

            def say(message: Warning | str, *_: Any, **__: Any) -> None:
                bars.console.print(f"note: {message}", markup=False, highlight=False)

            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = say
            yield staging, progress, say
            stale = sorted(name for name in FILES if (out / name).exists() and not (staging / name).exists())
            if stale:
                say(f"{out} also holds {', '.join(stale)} of an earlier run")


def invert(
    picture: Path, prompt: str, method: str, steps: int, guidance: float, seed: int, fit: str, model: str, progress: Any,
    say: Any,
) -> Session:  # fmt: skip
    from iterinv import app as work
    from iterinv import store
    from iterinv.methods import plan

    began = time.perf_counter()
    prompt = work.check_prompt(prompt, "--prompt")
    how = plan(method, steps, guidance)
    cascade = load(model)
    for advice in cascade.defaults.prompt_advice(prompt, "--prompt"):
        say(advice)
    frame, notes = frame_of(picture, cascade.size, fit, say)
    inversion = cascade.invert(frame.square(), prompt, how, seed, progress)
    tolerance = how.inverter.target_error
    for stage, found in zip(cascade.stages, inversion.stages, strict=True):
        error = found.report.root_error_max
        if error is not None and tolerance is not None and not error <= tolerance:
            say(f"stage {stage.name}: solved to {error:.0e}, not to {tolerance:.0e}; take more steps")
    return work.Session(cascade, store.Saved(inversion, frame), notes, began)


def frame_of(picture: Path, size: int, fit: str, say: Any) -> tuple[Frame, list[str]]:
    from iterinv import images

    array, notes = images.read(picture)
    frame, more = images.Frame.fit(array, size, fit)
    for note in [*notes, *more]:
        say(f"{picture.name}: {note}")
    return frame, [*notes, *more]


def reopen(path: Path, model: str, progress: Any) -> Session:
    from iterinv import app as work
    from iterinv import store

    began = time.perf_counter()
    cascade = load(model)
    inversion, frame = store.open_(path, cascade)
    return work.Session(cascade, store.Saved(cascade.rerun(inversion, progress), frame), [], began)

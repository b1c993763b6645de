"""Actions of the page. Each makes a request of :mod:`iterinv.workbench`, runs it, and yields new values of the page's
parts by their names; none knows Gradio."""

from __future__ import annotations

import re
import shutil
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iterinv.commands import edit_command, measure_command, with_names
from iterinv.errors import sentence_of
from iterinv.evaluate.folder import write_json
from iterinv.web.job import Cancelled, Job
from iterinv.web.python_text import edit_python
from iterinv.web.requests import mask_of, measure_of, model_of, prompt_of, setting_of, source_of
from iterinv.web.session import Entry, Session
from iterinv.web.views import Change, Values, flip_picture, history, show_stage, shown
from iterinv.web.words import Meter, comparison, inversion_words, measured_words, message, problem
from iterinv.workbench import CompareRequest, EditRequest, ReopenRequest, Workbench

INVERSION = "inversion.safetensors"
MOST = 60
"""The most edits of a sweep."""

CANCELLED = message("Cancelled. What was there before is still here.")

Action = Generator[Values, None, None]


def working(
    session: Session,
    title: str,
    work: Callable[[Workbench], Any],
    more: Callable[[], Values] = dict,
    reported: bool = False,
) -> Generator[Values, None, Any]:
    """Run work, and yield its progress; ``more`` returns further values to show with it. The notes go in the end where
    they are ``reported``. Return the result, ``None`` where the work was cancelled or failed, which is said."""
    meter = Meter(title)
    job = Job(work, session.begin())
    try:
        yield {"status": meter.html()}
        for events in job:
            meter.add(events)
            yield {"status": meter.html(), **more()}
        value = job.result()
        yield {"status": meter.html("done", with_notes=not reported), **more()}
        return value
    except Cancelled:
        yield {"status": CANCELLED}
    except Exception as error:
        yield {"status": problem(said_of(error, session))}
    finally:
        job.close()
    return None


def said_of(error: Exception, session: Session) -> str:
    """The sentence on an error, without the server's paths; of a bug, whose traceback goes to standard error, that it
    is one."""
    said = sentence_of(error)
    if said is None:
        traceback.print_exception(error, file=sys.stderr)
        said = f"the program failed ({type(error).__name__}); the server's output has the details"
    return re.sub(re.escape(str(session.place.folder)) + r"/(?:[^\s/]+/)*", "", said)


def invert(
    session: Session,
    picture: str | None,
    prompt: str,
    model: str,
    method: str,
    steps: int,
    guidance: float,
    seed: int,
    fit: str,
) -> Action:
    """Invert a picture and reconstruct it."""

    def work(bench: Workbench) -> Any:
        source = source_of(session.place, picture, prompt, model, method, steps, guidance, seed, fit)
        result = bench.invert(source)
        folder = session.new_folder("inversion")
        file = Path(str(source.picture))
        own = folder / "picture" / file.name  # uploads are removed after a while
        own.parent.mkdir()
        shutil.copyfile(file, own)
        return replace(source, picture=own), result, folder, result.write(folder)

    yield from _inverted(session, "Inverting", work)


def reopen(session: Session, file: str | None, model: str) -> Action:
    """Reopen an inversion file and reconstruct its picture."""

    def work(bench: Workbench) -> Any:
        if file is None:
            raise ValueError("there is no inversion file: choose one")
        source = ReopenRequest(Path(file), model_of(session.place, model))
        result = bench.reopen(source)
        folder = session.new_folder("inversion")
        return source, result, folder, result.write(folder)

    yield from _inverted(session, "Reconstructing", work)


def edit(
    session: Session,
    target: str,
    editor: str,
    strength: str,
    guidance: str,
    seed: str,
    where: str,
    box: Sequence[int | None],
    strokes: bytes | None,
    force: bool,
) -> Action:
    """Edit the inversion of this session, without inverting again."""

    def work(bench: Workbench) -> Any:
        source, result = _inversion(session)
        folder = session.new_folder("edit")
        how = editor or None, setting_of("strength", strength, float), setting_of("guidance", guidance, float)
        mask, drawn_by = mask_of(where, box, strokes, folder), setting_of("seed", seed, int)
        request = EditRequest(source, (prompt_of(target),), *how, True, mask, force, edit_seed=drawn_by)
        if isinstance(source, ReopenRequest):
            request = replace(request, size="model")
        edited = bench.edit(request, result)
        report = edited.write(folder, inversion=False, reconstruction=False)
        (canvas,), (each,) = edited.inversion.canvases, edited.edits
        named, picture = with_names(request), canvas.place(each.pictures[-1])
        texts = edit_command(named, "out"), edit_python(named, edited)
        return Entry(0, request, folder, picture, each.region(0), report, *texts)

    entry = yield from working(session, "Editing", work, reported=True)
    if entry is not None:
        session.count += 1
        session.add(replace(entry, number=session.count))
        yield history(session)


def choose(session: Session, place: int) -> Values:
    """Show an edit of the history again."""
    if 0 <= place < len(session.edits):
        session.shown = place
    return history(session)


def undo(session: Session) -> Values:
    """Remove the latest edit."""
    session.undo()
    return history(session)


def compare(
    session: Session,
    picture: str | None,
    prompt: str,
    model: str,
    steps: int,
    guidance: float,
    seed: int,
    fit: str,
    methods: Sequence[str],
) -> Action:
    """Invert one picture by several methods."""
    rows: list[dict[str, Any]] = []

    def work(bench: Workbench) -> str:
        from iterinv.evaluate.compare import plot

        source = source_of(session.place, picture, prompt, model, "bdia", steps, guidance, seed, fit)
        if not methods:
            raise ValueError("no method is chosen: choose two or more")
        for row in bench.compare(CompareRequest(source, tuple(methods))):
            rows.append(row)
        file = session.new_folder("compare", instead=True) / "compare.png"
        plot(rows, file, f"{steps} steps, guidance {guidance:g}")
        return str(file)

    file = yield from working(session, "Comparing", work, lambda: {"compare_table": comparison(rows)})
    if file is not None:
        yield {"compare_plot": file}


def sweep(session: Session, target: str, editor: str, strength: str, guidance: str, seed: str, force: bool) -> Action:
    """Edit the inversion by every strength, guidance and seed with every other."""

    def work(bench: Workbench) -> Any:
        from iterinv.cli.sweep import requests_of, write

        source, result = _inversion(session)
        base = EditRequest(source, (prompt_of(target),), editor or None, force=force, size="model")
        strengths, scales, seeds = (each.strip() or None for each in (strength, guidance, seed))
        requests = requests_of(base, strengths, scales, seeds, [], [], False)
        if len(requests) > MOST:
            raise ValueError(f"these are {len(requests)} edits; a sweep has at most {MOST}: give fewer values")
        folder = session.new_folder("sweep", instead=True)
        cells = write([with_names(each) for each in requests], bench.edit_each(requests, result), folder, Path("out"))
        return folder, "\n".join(each["command"] for each in cells)

    done = yield from working(session, "Sweeping", work)
    if done is not None:
        folder, commands = done
        sheet = str(folder / "sweep.png")
        yield {"sheet": sheet, "sheet_file": sheet, "sweep_file": str(folder / "sweep.json"), "commands": commands}


def measure(
    session: Session,
    sources: Sequence[str],
    uploads: Sequence[str | None],
    names: Sequence[str],
    resize: bool,
    prompt: str,
    target: str,
) -> Action:
    """Measure a picture against a reference, within a mask where one is given."""

    def work(bench: Workbench) -> Values:
        folder = session.new_folder("measure", instead=True)
        request = measure_of(session, folder, sources, uploads, names, resize, (prompt, target))
        measurement = bench.measure(request)
        report, lines = folder / "measure.json", folder / "measure.csv"
        files = {name: getattr(request, name) for name in ("reference", "picture", "mask")}
        write_json(report, {**{name: file and file.name for name, file in files.items()}, **measurement.report()})
        lines.write_text(measurement.csv(), encoding="utf-8")
        return {
            "measured": measured_words(measurement),
            "flip": shown(session, flip_picture(request)),
            "measured_command": measure_command(request),
            "measured_json": str(report),
            "measured_csv": str(lines),
        }

    values = yield from working(session, "Measuring", work)
    if values is not None:
        yield values


def cancel(session: Session) -> Values:
    """Stop the work of this session before its next network call."""
    session.stop.set()
    return {"status": CANCELLED}


def _inverted(session: Session, title: str, work: Callable[[Workbench], Any]) -> Action:
    """Run work that inverts, hold its result, and show it."""
    done = yield from working(session, title, work, reported=True)
    if done is None:
        return
    source, result, folder, report = done
    session.take(source, result, folder)
    stages = ["whole picture", *(stage.name for stage in result.cascade.stages)]
    yield {
        **show_stage(session, None),
        **history(session),
        "stage": Change({"choices": [(_stage(name, result), name) for name in stages], "value": stages[0]}),
        "report": inversion_words(report),
        "inversion_file": str(folder / INVERSION),
        "reconstruction_file": str(folder / "reconstruction.png"),
        "report_file": str(folder / "report.json"),
    }


def _stage(name: str, result: Any) -> str:
    extents = {stage.name: stage.extent for stage in result.cascade.at(*result.inversion.extent).stages}
    height, width = extents.get(name, (0, 0))
    return f"stage {name}, {f'{height}' if height == width else f'{width}x{height}'} px" if height else name


def _inversion(session: Session) -> tuple[Any, Any]:
    if session.source is None or session.result is None:
        raise ValueError("there is no inversion: press Invert first, or open an inversion file")
    return session.source, session.result

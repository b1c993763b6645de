"""The command ``iterinv measure``, its table, and the list of metrics."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iterinv.cli.session import console, errors, watched
from iterinv.files import printable

if TYPE_CHECKING:
    from iterinv.evaluate.measure import Measurement
    from iterinv.metrics import Metric

WIDTH = 80
STDOUT = Path("-")


def measure(
    reference: Annotated[
        Path | None, typer.Argument(metavar="A", help="The reference: a picture or a folder.", show_default=False)
    ] = None,
    picture: Annotated[
        Path | None, typer.Argument(metavar="B", help="The picture or folder to measure.", show_default=False)
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="A metric; again for another. The usual ones if not given.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="A mask or a folder of masks, white inside: measure both sides too.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="A description of A, for CLIP.")] = None,
    to: Annotated[str | None, typer.Option("--to", "-t", help="A description of B, for CLIP.")] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A folder with trained weights that are in no cache.")
    ] = None,
    resize: Annotated[bool, typer.Option("--resize", help="Bring pictures of another size to A's size.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write all values to this file; - prints them.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write a report to this file; - prints it.")] = None,
    names: Annotated[
        bool, typer.Option("--list", help="List the metrics, and how to get those that lack here.")
    ] = False,
) -> None:
    """Measure how far picture B is from picture A, or folder B from folder A."""
    with errors():
        if names:
            from iterinv.metrics import metrics

            print_metrics(metrics(), weights)
            return
        if reference is None or picture is None:
            raise ValueError("give two pictures or two folders: iterinv measure A B")
        from iterinv.workbench import MeasureRequest

        _check_files(csv, json, [reference, picture, *([mask] if mask else [])])
        request = MeasureRequest(reference, picture, tuple(metric or ()), mask, (prompt, to), weights, resize)
        with watched() as bench:
            measurement = bench.measure(request)
        _write(
            measurement, csv, json, {"reference": str(reference), "picture": str(picture), "mask": mask and str(mask)}
        )
        if STDOUT not in (csv, json):
            print_measurement(measurement, f"{picture.name} against {reference.name}")


def _check_files(csv: Path | None, json: Path | None, inputs: list[Path]) -> None:
    """Raise ``ValueError`` where a result would replace a file that is read or a folder, or both would be one, and
    ``FileNotFoundError`` where there is no folder for one."""
    from iterinv.files import same_file

    files = [each for each in (csv, json) if each is not None]
    if len(files) == 2 and (files[0] == files[1] or same_file(files[0], files[1:])):
        raise ValueError(f"--csv and --json are both {files[0]}: give each its own")
    for file in files:
        if same_file(file, inputs):
            raise ValueError(f"{file} is measured itself: choose another file for the result")
        if file.is_dir():
            raise ValueError(f"{file} is a folder: name a file in it")
        if not file.parent.is_dir():
            raise FileNotFoundError(f"{file.parent} is no folder: make it, or choose another place for {file.name}")


def _write(measurement: Measurement, csv: Path | None, json: Path | None, about: dict[str, Any]) -> None:
    from json import dumps

    from iterinv.files import whole

    report = dumps({**about, **measurement.report()}, indent=2, allow_nan=False) + "\n"
    for file, text in ((csv, measurement.csv()), (json, report)):
        if file == STDOUT:
            typer.echo(text, nl=False)
        elif file is not None:
            with whole(file) as opened:
                opened.write(text.encode())


def print_measurement(measurement: Measurement, title: str) -> None:
    """Print the means of all metrics, by region, and the worst picture of several."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    several = len(measurement.rows) > 1
    table = Table(title=printable(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("metric", "better", *measurement.regions):
        table.add_column(column, justify="left" if column in ("metric", "better") else "right", no_wrap=True)
    if several:
        table.add_column("worst", no_wrap=True, overflow="ellipsis")
    for name, metric in measurement.chosen.items():
        label = f"{name}, {metric.unit}" if metric.unit else name
        if name in measurement.sets:
            table.add_row(label, metric.direction, shown(measurement.sets[name]))
            continue
        cells = [mean_cell(measurement, name, region) for region in measurement.regions]
        table.add_row(label, metric.direction, *cells, *([printable(measurement.worst(name))] if several else []))
    screen = console()
    screen.width = min(screen.width, WIDTH) if screen.is_terminal else WIDTH
    screen.print(table)
    if several:
        screen.print(f"Means of {len(measurement.rows)} pictures; (n): of the n that have a value.")
    if measurement.left_out:
        screen.print(f"Not here: {', '.join(measurement.left_out)}; `iterinv measure --list` says how to get them.")


def mean_cell(measurement: Measurement, name: str, region: str) -> str:
    """The mean of a metric over the pictures, and their number where some have no value; ``equal`` for the PSNR of
    equal pictures."""
    mean, count = measurement.mean(name, region)
    with_pixels = sum(row["pixels"][region] > 0 for row in measurement.rows)
    if mean is None:
        return "equal" if name.startswith("psnr") and with_pixels else "none"
    return shown(mean) + (f" ({count})" if count < len(measurement.rows) else "")


def shown(value: float) -> str:
    """A value with four digits that count, or as many as a whole number has."""
    if value == round(value) or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}" if abs(value) >= 1e-4 else f"{value:.3e}"


def print_metrics(known: dict[str, Metric], weights: Path | None) -> None:
    """Print the names, directions and ranges of metrics, and how to get those that cannot run here."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("metric", "better", "range", "here"):
        table.add_column(column, no_wrap=True)
    table.add_column("about")
    reasons: dict[str, list[str]] = {}
    for name, metric in known.items():
        reason = metric.needs(weights)
        if reason:
            reasons.setdefault(reason, []).append(name)
        least, most = (f"{end:g}" for end in metric.range)
        table.add_row(name, metric.direction, f"{least} to {most}", "no" if reason else "yes", metric.about)
    screen = console()
    screen.width = min(screen.width, WIDTH) if screen.is_terminal else WIDTH
    screen.print(table)
    for reason, names in reasons.items():
        what, _, command = reason.partition(": ")
        for line in textwrap.wrap(f"{', '.join(names)}: {what}. Type:", WIDTH):
            typer.echo(line)
        typer.echo(f"  {command}")

"""The command ``iterinv measure``, its table, and the list of metrics."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iterinv.cells import four_digits, mean_cell
from iterinv.cli.names import completing
from iterinv.cli.options import MetricWeights
from iterinv.cli.session import WIDTH, answer, console, errors, frame, say, watched
from iterinv.cli.tables import print_table

if TYPE_CHECKING:
    from iterinv.evaluate.measure import Measurement
    from iterinv.metrics import Metric

STDOUT = Path("-")


def measure(
    reference: Annotated[
        Path | None, typer.Argument(metavar="A", help="The reference: a picture or a folder.", show_default=False)
    ] = None,
    picture: Annotated[
        Path | None, typer.Argument(metavar="B", help="The picture or folder to measure.", show_default=False)
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            autocompletion=completing("METRICS"),
            help="A metric; again for another. The usual ones if not given.",
        ),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="A mask or a folder of masks, white inside: measure both sides too.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="A description of A, for CLIP.")] = None,
    to: Annotated[str | None, typer.Option("--to", "-t", help="A description of B, for CLIP.")] = None,
    weights: MetricWeights = None,
    resize: Annotated[bool, typer.Option("--resize", help="Bring pictures of another size to A's size.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write all values to this file; - prints them.")] = None,
    names: Annotated[
        bool, typer.Option("--list", help="List the metrics, and how to get those that are missing.")
    ] = False,
) -> None:
    """Measure how far picture B is from A, or folder B from A."""
    with errors():
        if names:
            from iterinv.metrics import metrics

            known = metrics()
            print_metrics(known, weights)
            answer({"metrics": {name: _about(metric, weights) for name, metric in known.items()}})
            return
        if reference is None or picture is None:
            raise ValueError("give two pictures or two folders: iterinv measure A B")
        from iterinv.workbench import MeasureRequest

        _check_file(csv, [reference, picture, *([mask] if mask else [])])
        request = MeasureRequest(reference, picture, tuple(metric or ()), mask, (prompt, to), weights, resize)
        with watched() as bench:
            measurement = bench.measure(request)
        _write(measurement, csv)
        if csv != STDOUT:
            print_measurement(measurement, f"{picture.name} against {reference.name}")
        about = {"reference": str(reference), "picture": str(picture), "mask": mask and str(mask)}
        answer({**about, **measurement.report()})


def _about(metric: Metric, weights: Path | None) -> dict[str, Any]:
    """The facts on a metric, and how to get it where it is not here."""
    least, most = metric.range
    facts = {"better": metric.direction, "least": least, "most": most, "about": metric.about}
    return {**facts, "needs": metric.needs(weights) or None}


def _check_file(csv: Path | None, inputs: list[Path]) -> None:
    """Raise ``ValueError`` where a result would replace a file that is read or a folder, and where standard output has
    another answer; ``FileNotFoundError`` where there is no folder for it."""
    from iterinv.files import same_file

    if csv == STDOUT:
        if frame().json:
            raise ValueError("--csv - and --json both print on standard output: give --csv a file")
        return
    if csv is None:
        return
    if same_file(csv, inputs):
        raise ValueError(f"{csv} is measured itself: choose another file for the result")
    if csv.is_dir():
        raise ValueError(f"{csv} is a folder: name a file in it")
    if not csv.parent.is_dir():
        raise FileNotFoundError(f"{csv.parent} is no folder: make it, or choose another place for {csv.name}")


def _write(measurement: Measurement, csv: Path | None) -> None:
    from iterinv.files import whole

    if csv == STDOUT:
        typer.echo(measurement.csv(), nl=False)
    elif csv is not None:
        with whole(csv) as opened:
            opened.write(measurement.csv().encode())


def print_measurement(measurement: Measurement, title: str) -> None:
    """Print the means of all metrics, by region, and the worst picture of several."""
    several = len(measurement.rows) > 1
    head, rows = ["metric", "better", *measurement.regions, *(["worst"] if several else [])], []
    for name, metric in measurement.chosen.items():
        label = f"{name}, {metric.unit}" if metric.unit else name
        if name in measurement.sets:
            rows.append([label, metric.direction, four_digits(measurement.sets[name])])
            continue
        cells = [mean_cell(measurement, name, region) for region in measurement.regions]
        rows.append([label, metric.direction, *cells, *([measurement.worst(name)] if several else [])])
    print_table(head, rows, title, text=(0, 1, *([len(head) - 1] if several else [])))
    screen = console()
    if several:
        screen.print(f"Means of {len(measurement.rows)} pictures; (n): of the n that have a value.")
    if measurement.left_out:
        screen.print(f"Not here: {', '.join(measurement.left_out)}; `iterinv measure --list` says how to get them.")


def print_metrics(known: dict[str, Metric], weights: Path | None) -> None:
    """Print the names, directions and ranges of metrics, and how to get those that cannot run here."""
    rows = []
    reasons: dict[str, list[str]] = {}
    for name, metric in known.items():
        reason = metric.needs(weights)
        if reason:
            reasons.setdefault(reason, []).append(name)
        least, most = (f"{end:g}" for end in metric.range)
        rows.append([name, metric.direction, f"{least} to {most}", "no" if reason else "yes", metric.about])
    print_table(("metric", "better", "range", "here", "about"), rows, text=range(5))
    for reason, names in reasons.items():
        what, _, command = reason.partition(": ")
        for line in textwrap.wrap(f"{', '.join(names)}: {what}. Type:", WIDTH):
            say(line)
        say(f"  {command}")

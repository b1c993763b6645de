"""Tables that commands print, and the lines under them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from iterinv.cli.session import console, errors
from iterinv.files import printable

if TYPE_CHECKING:
    from iterinv.costs import Cost


def decibels(psnr: float | None) -> str:
    """Format a PSNR; ``None`` stands for equal pictures."""
    return "exact" if psnr is None else f"{psnr:.1f} dB"


def decibels_by_stage(row: dict[str, Any]) -> str:
    """Format the PSNR of each stage of a comparison's row as one cell."""
    cells = [decibels(stage["reconstruction"]["psnr"]).removesuffix(" dB") for stage in row["stages"]]
    return (cells[0] if len(set(cells)) == 1 else " / ".join(cells)) if cells else "failed"


@errors()
def print_comparison(rows: list[dict[str, Any]], title: str, out: Path) -> None:
    """Print a table of methods, and the reasons of those that failed."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=printable(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("method", "dB, stage by stage", "pixels", "calls", "back", "s", "MB", "noise"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in rows:
        cells = [
            row["method"],
            decibels_by_stage(row),
            "",
            "",
            "",
            f"{row['seconds']:.1f}",
            f"{row['peak_memory_mb']:.0f}",
            "",
        ]
        if row["stages"]:
            calls = row["network_calls"]
            cells[2:5] = f"{row['exact_pixels']:.2%}", str(calls["forward"]), str(calls["backward"])
            cells[-1] = f"{row['terminal_noise']['std']:.2f}"
        table.add_row(*cells)
    screen = console()
    screen.print(table)
    for row in rows:
        if not row["stages"]:
            screen.print(printable(f"{row['method']}: {row['why']}"))
    screen.print(
        "exact: every pixel equal; noise: the spread at stage I, 1 in a sampler's; "
        f"compare.json and compare.png in {printable(str(out))}"
    )


@errors()
def print_costs(stage_costs: list[Cost], rate: float, peaks: dict[str, int]) -> None:
    """Print what each stage costs, the peak of the device's memory and the time."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    rows = []
    for cost in stage_costs:
        name = f"{cost.name:3} {Path(cost.source).name}"
        rows.append(
            [
                name,
                str(cost.size),
                f"{cost.parameters / 1e6:,.0f} M",
                _gigabytes(cost.weights),
                _gigabytes(cost.activations),
                str(cost.forward) + (f" + {cost.backward}" if cost.backward else ""),
                _duration(cost.seconds(rate)),
            ]
        )
        if cost.text_parameters:
            rows.append(["    its words", "", f"{cost.text_parameters / 1e6:,.0f} M", _gigabytes(cost.text_weights)])
        if cost.codec_parameters:
            sizes = _gigabytes(cost.codec_weights), _gigabytes(cost.codec_activations)
            rows.append(["    its autoencoder", "", f"{cost.codec_parameters / 1e6:,.0f} M", *sizes])
    for k, column in enumerate(("", "px", "size", "weights", "other", "calls", "time")):
        widest = max(len(row[k]) for row in [*rows, [column] * 9] if k < len(row))
        table.add_column(column, justify="right" if k else "left", no_wrap=True, min_width=widest if k else None)
    for row in rows:
        table.add_row(*row)
    screen = console()
    screen.print(table)
    words = {"resident": "all networks at once", "staged": "a network at a time", "layered": "a layer at a time"}
    peak = ", ".join(f"{_gigabytes(size)} with {words[mode]}" for mode, size in peaks.items())
    whole = _duration(sum(cost.seconds(rate) for cost in stage_costs))
    lines = [
        f"Peak memory of the device: {peak}.",
        f"Inverting and reconstructing a picture: {whole} at the {rate / 1e9:,.0f} GFLOP/s that convolutions "
        "reach here. Other memory holds the activations of a call and the path. Calls are forward + backward; those of "
        "a solver are estimates.",
    ]
    for line in lines:
        screen.print(printable(line))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size > 5e7 else f"{size / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def print_summary(summary: list[dict[str, Any]], out: Path) -> None:
    """Print the summary of an evaluation of editors."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = {
        "success": "{:.0%}",
        "kept": "{:.0%}",
        "good": "{:.0%}",
        "inside": "{:.1f}",
        "outside": "{:.1f}",
        "sharpness": "{:.2f}",
        "leakage": "{:.0%}",
    }
    for column in ("kind", "tasks", *columns):
        table.add_column(column.removeprefix("outside_"), justify="left" if column == "kind" else "right", no_wrap=True)
    for row in summary:
        cells = ["" if row[key] is None else form.format(row[key]) for key, form in columns.items()]
        table.add_row(row["kind"], str(row["tasks"]), *cells)
    screen = console()
    screen.print(table)
    screen.print(printable(f"rows.jsonl, summary.json, edited/ and three sheets in {out}"))


@errors()
def print_report(report: dict[str, Any], out: Path) -> None:
    """Print the short report of an inversion or an edit."""
    from rich.table import Table

    from iterinv.images import sides

    table = Table(title=printable(f"{report['method']}, {report['steps']} steps"), title_justify="left")
    whole, lines = report.get("reconstruction"), []
    columns = ("reconstruction", "exact pixels", "noise std") if whole else ("levels inverted",)
    for column in ("stage", "size", "network calls", "seconds", *columns):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for s in report["stages"]:
        calls, fidelity = s["network_calls"], s.get("reconstruction")
        cells = [
            s["stage"],
            sides((s["height"], s["width"])),
            f"{calls['forward']} + {calls['backward']} back",
            f"{s['seconds']:.1f}",
        ]
        if fidelity:
            cells += decibels(fidelity["psnr"]), f"{fidelity['exact_pixels']:.2%}", f"{s['terminal_noise']['std']:.2f}"
        else:
            cells.append(f"{s['depth']} of {report['steps']}")
        table.add_row(*cells)
    screen = console()
    screen.print(table)
    if whole:
        lines = [f"reconstruction: {decibels(whole['psnr'])}, {whole['exact_pixels']:.2%} of pixels equal"]
        lines.append(report["why"])
    for edited in report.get("edits", ()):
        lines.append(f"edit: {edited['editor']} to {edited['to']!r}")
        if edited.get("background_exact_pixels") is not None:
            lines.append(
                f"mask: {edited['mask']:.1%} of the picture; outside it "
                f"{edited['background_exact_pixels']:.2%} of pixels equal"
            )
        if own := edited.get("own_size"):
            worked_at = own["worked_at"]
            lines.append(
                f"size: {own['width']}x{own['height']} px, worked out at {worked_at['width']}x{worked_at['height']}; "
                f"{1 - own['region']:.1%} of the pixels are the file's own"
            )
            lines += own["notes"]
    lines.append(f"{report['seconds']:.1f} s, {report['peak_memory_mb']:.0f} MB at most; files in {out}")
    for line in lines:
        screen.print(printable(line))

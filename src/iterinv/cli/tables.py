"""Tables that commands print, and the lines under them."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iterinv.cells import decibels, decibels_by_stage
from iterinv.cli.session import console, errors
from iterinv.files import printable

if TYPE_CHECKING:
    from iterinv.costs import Cost


GAPS = (2, 1)
"""The columns between two cells, and those where there is no room for as many."""


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", text: Collection[int] = (0,)
) -> None:
    """Print a table as wide as the screen at most, with every cell whole.

    Cells of the columns ``text`` stand at the left and are folded between words where there is no room; those of others
    stand at the right in one line. Heads are folded too. A table that still is too wide has a line for each cell.
    """
    from rich.cells import cell_len

    screen = console()
    title, head, rows = (
        printable(title),
        [printable(each) for each in head],
        [[printable(each) for each in row] for row in rows],
    )
    rows = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    least, most = [], []
    for k, name in enumerate(head):
        cells = [row[k] for row in rows]
        words = [word for cell in [name, *(cells if k in text else ())] for word in cell.split()]
        least.append(max(map(cell_len, [*words, *(() if k in text else cells)]), default=0))
        most.append(max(map(cell_len, [name, *cells]), default=0))
    rooms = {gap: screen.width - gap * (len(head) - 1) - sum(least) for gap in GAPS}
    gap, room = next(((gap, room) for gap, room in rooms.items() if room >= 0), (0, -1))
    if room < 0:
        _print_turned(head, rows, title)
        return
    for k in (*text, *(k for k in range(len(head)) if k not in text)):
        more = min(room, most[k] - least[k])
        least[k], room = least[k] + more, room - more
    _print_columns(head, rows, title, text, least, gap)


def _print_columns(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str,
    text: Collection[int],
    widths: Sequence[int],
    gap: int,
) -> None:
    from rich.box import SIMPLE_HEAD, Box
    from rich.table import Table

    screen = console()
    plain = Box("\n".join(["    ", "    ", " -- ", *["    "] * 5]), ascii=True)
    box = SIMPLE_HEAD if screen.is_terminal else plain
    table = Table(
        title=title or None, title_justify="left", box=box, pad_edge=False, padding=(0, gap - 1, 0, 0), show_edge=False
    )
    for k, (name, width) in enumerate(zip(head, widths, strict=True)):
        table.add_column(name, justify="left" if k in text else "right", width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    screen.print(table)


def _print_turned(head: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    """Print a block for each row: its first cell, and a line for each other one that is not empty."""
    screen = console()
    if title:
        screen.print(title)
    for row in rows:
        screen.print(row[0], overflow="fold")
        for name, cell in zip(head[1:], row[1:], strict=True):
            if cell:
                screen.print(f"  {name}: {cell}" if name else f"  {cell}", overflow="fold")


def print_entry(name: str, said: str) -> None:
    """Print a name, and text beside it that is folded at the width of the screen."""
    screen = console()
    beside = max(1, screen.width - len(name) - 1)
    lines = [
        part
        for line in printable(said).split("\n")
        for part in textwrap.wrap(line, beside, break_on_hyphens=False) or [""]
    ]
    for k, line in enumerate(lines):
        screen.print(f"{printable(name) if k == 0 else ' ' * len(name)} {line}".rstrip(), soft_wrap=True)


@errors()
def print_comparison(rows: list[dict[str, Any]], title: str, out: Path) -> None:
    """Print a table of methods, and the reasons of those that failed."""
    cells_of = []
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
        cells_of.append(cells)
    print_table(("method", "dB, stage by stage", "pixels", "calls", "back", "s", "MB", "noise"), cells_of, title)
    screen = console()
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
    rows = []
    for cost in stage_costs:
        name = f"{cost.name:3} {Path(cost.source).name}"
        rows.append(
            [
                name,
                str(cost.size),
                f"{cost.parameters / 1e6:,.0f} M",
                gigabytes(cost.weights),
                gigabytes(cost.activations),
                str(cost.forward) + (f" + {cost.backward}" if cost.backward else ""),
                duration(cost.seconds(rate)),
            ]
        )
        if cost.text_parameters:
            rows.append(["    its words", "", f"{cost.text_parameters / 1e6:,.0f} M", gigabytes(cost.text_weights)])
        if cost.codec_parameters:
            sizes = gigabytes(cost.codec_weights), gigabytes(cost.codec_activations)
            rows.append(["    its autoencoder", "", f"{cost.codec_parameters / 1e6:,.0f} M", *sizes])
    print_table(("", "px", "size", "weights", "other", "calls", "time"), rows)
    screen = console()
    words = {"resident": "all networks at once", "staged": "a network at a time", "layered": "a layer at a time"}
    peak = ", ".join(f"{gigabytes(size)} with {words[mode]}" for mode, size in peaks.items())
    whole = duration(sum(cost.seconds(rate) for cost in stage_costs))
    lines = [
        f"Peak memory of the device: {peak}.",
        f"Inverting and reconstructing a picture: {whole} at the {rate / 1e9:,.0f} GFLOP/s that convolutions "
        "reach here. Other memory holds the activations of a call and the path. Calls are forward + backward; those of "
        "a solver are estimates.",
    ]
    for line in lines:
        screen.print(printable(line))


def gigabytes(size: float) -> str:
    """A number of bytes in GB, or in MB where it is small."""
    return f"{size / 1e9:.1f} GB" if size > 5e7 else f"{size / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    return (
        f"{seconds:.1f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


@errors()
def print_summary(summary: list[dict[str, Any]], out: Path) -> None:
    """Print the summary of an evaluation of editors."""
    columns = {
        "success": "{:.0%}",
        "kept": "{:.0%}",
        "both": "{:.0%}",
        "good": "{:.0%}",
        "inside": "{:.1f}",
        "outside": "{:.1f}",
        "sharpness": "{:.2f}",
        "leakage": "{:.0%}",
    }
    rows = []
    for row in summary:
        cells = ["" if row[key] is None else form.format(row[key]) for key, form in columns.items()]
        rows.append([row["kind"], str(row["tasks"]), *cells])
    print_table(("kind", "tasks", *columns), rows)
    console().print(printable(f"rows.jsonl, summary.json, edited/ and three sheets in {out}"))


@errors()
def print_report(report: dict[str, Any], out: Path) -> None:
    """Print the short report of an inversion or an edit."""
    from iterinv.images import sides

    whole, lines, rows = report.get("reconstruction"), [], []
    columns = ("reconstruction", "exact pixels", "noise std") if whole else ("levels inverted",)
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
        rows.append(cells)
    title = f"{report['method']}, {report['steps']} steps"
    print_table(("stage", "size", "network calls", "seconds", *columns), rows, title)
    screen = console()
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

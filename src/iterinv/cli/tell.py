"""What a command prints of what came of it: tables, and lines under them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from iterinv.cli.session import errors


def decibels(psnr: float | None) -> str:
    return "exact" if psnr is None else f"{psnr:.1f} dB"


def kept(row: dict[str, Any]) -> str:
    """What a row of a comparison says of its stages."""
    kept = [decibels(stage["reconstruction"]["psnr"]).removesuffix(" dB") for stage in row["stages"]]
    return (kept[0] if len(set(kept)) == 1 else " / ".join(kept)) if kept else "failed"


@errors()
def tell_rows(rows: list[dict[str, Any]], title: str, out: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("method", "dB, stage by stage", "pixels", "calls", "back", "s", "MB", "noise"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in rows:
        cells = [row["method"], kept(row), "", "", "", f"{row['seconds']:.1f}", f"{row['peak_memory_mb']:.0f}", ""]
        if row["stages"]:
            calls = row["network_calls"]
            cells[2:5] = f"{row['exact_pixels']:.2%}", str(calls["forward"]), str(calls["backward"])
            cells[-1] = f"{row['terminal_noise']['std']:.2f}"
        table.add_row(*cells)
    console = Console(file=sys.stdout)
    console.print(table)
    for row in rows:
        if not row["stages"]:
            console.print(f"{row['method']}: {row['why']}", markup=False, highlight=False)
    console.print(
        "exact: every pixel equal; noise: the spread at stage I, 1 in a sampler's; "
        f"compare.json and compare.png in {out}", markup=False, highlight=False,
    )  # fmt: skip


def tell_summary(summary: list[dict[str, Any]], out: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = {
        "success": "{:.1%}", "kept": "{:.1%}", "inside": "{:.1f}", "outside": "{:.1f}", "ssim": "{:.3f}",
        "features": "{:.2f}", "iou": "{:.2f}",
    }  # fmt: skip
    for column in ("kind", "tasks", *columns):
        table.add_column(column, justify="left" if column == "kind" else "right", no_wrap=True)
    for row in summary:
        cells = ["" if row[key] is None else form.format(row[key]) for key, form in columns.items()]
        table.add_row(row["kind"], str(row["tasks"]), *cells)
    console = Console(file=sys.stdout)
    console.print(table)
    console.print(f"rows.jsonl, summary.json, edited/ and three sheets in {out}", markup=False, highlight=False)


@errors()
def tell(told: dict[str, Any], out: Path) -> None:
    """The short report of an inversion or an edit."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{told['method']}, {told['steps']} steps", title_justify="left")
    for column in ("stage", "size", "network calls", "seconds", "reconstruction", "exact pixels", "noise std"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for s in told["stages"]:
        calls, fidelity = s["network_calls"], s["reconstruction"]
        table.add_row(
            s["stage"], str(s["size"]), f"{calls['forward']} + {calls['backward']} back", f"{s['seconds']:.1f}",
            decibels(fidelity["psnr"]), f"{fidelity['exact_pixels']:.2%}", f"{s['terminal_noise']['std']:.2f}",
        )  # fmt: skip
    console = Console(file=sys.stdout)
    console.print(table)
    whole = told["reconstruction"]
    lines = [f"reconstruction: {decibels(whole['psnr'])}, {whole['exact_pixels']:.2%} of pixels equal"]
    lines.append(told["why"])
    if "edit" in told:
        edited = told["edit"]
        lines.append(f"edit: {edited['editor']} to {edited['to']!r}")
        if edited.get("background_exact_pixels") is not None:
            lines.append(
                f"mask: {edited['mask']:.1%} of the picture; outside it {edited['background_exact_pixels']:.2%} of pixels equal"
            )
    lines.append(f"{told['seconds']:.1f} s, {told['peak_memory_mb']:.0f} MB at most; files in {out}")
    for line in lines:
        console.print(line, markup=False, highlight=False)

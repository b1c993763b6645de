"""The answer of ``--dry-run``: network calls and time before any work."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from iterinv.cli.session import answer, console
from iterinv.cli.tables import duration, print_table
from iterinv.files import printable

if TYPE_CHECKING:
    from iterinv.estimates import Estimate


def print_estimate(estimate: Estimate) -> None:
    """Print the network calls of each stage and the time, and give them as the answer."""
    rows = []
    for stage in estimate.stages:
        each, whole = stage.seconds_per_call, stage.seconds
        times = ["", ""] if each is None or whole is None else [f"{1000 * each:.0f} ms", duration(whole)]
        rows.append([stage.name, str(stage.size), f"{stage.forward} + {stage.backward} back", *times])
    print_table(("stage", "px", "network calls", "a call", "time"), rows)
    screen = console()
    if estimate.seconds is None:
        said = f"the time is not known: {', '.join(estimate.missing)} would have to be fetched"
    else:
        most = "at most about" if estimate.at_most else "about"
        said = f"{most} {duration(estimate.seconds)} of network calls here"
    screen.print(printable(f"{said}; the calls of a solver with a tolerance are estimates."))
    screen.print("Nothing was written.")
    stages = [{**asdict(stage), "seconds": stage.seconds} for stage in estimate.stages]
    facts = {"seconds": estimate.seconds, "at_most": estimate.at_most, "missing": estimate.missing}
    answer({"dry_run": True, "stages": stages, **facts})

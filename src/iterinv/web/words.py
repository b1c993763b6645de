"""Reports and progress as HTML. All text that a user or a file may hold is escaped."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from iterinv.cells import decibels, decibels_by_stage, mean_cell
from iterinv.evaluate.measure import Measurement
from iterinv.metrics import Metric
from iterinv.reports import edit_sentences
from iterinv.workbench import Event, Note

NOISE = {"mean": 0, "std": 1, "kurtosis": 3, "autocorrelation": 0}
"""The statistics of the noise on the page, and their values in the noise of a sampler."""


class Meter:
    """The progress of one piece of work: a bar for each stage and phase, with the time left, and the notes."""

    def __init__(self, title: str) -> None:
        self.title, self.calls, self.began = title, 0, time.monotonic()
        self.notes: list[str] = []
        self.bars: dict[tuple[str, str], tuple[int, int | None, float]] = {}

    def add(self, events: Sequence[Event]) -> None:
        """Take in events."""
        for event in events:
            if isinstance(event, Note):
                self.notes.append(event.text)
                continue
            self.calls = event.calls
            if event.phase != "network call":
                bar = event.stage, event.phase
                *_, began = self.bars.get(bar, (0, None, time.monotonic()))
                self.bars[bar] = event.done, event.total, time.monotonic() if event.done <= 1 else began

    def html(self, state: str = "running", with_notes: bool = True) -> str:
        """The bars while the work runs, the number of network calls, and the notes."""
        title, seconds = "Done in" if state == "done" else self.title, time.monotonic() - self.began
        head = f"<b>{escape(title)}</b> {seconds:.0f} s, {self.calls} network calls"
        bars = "" if state == "done" else "".join(self._bar(*bar) for bar in self.bars.items())
        return _status(head, bars + (notes(self.notes) if with_notes else ""), state)

    def _bar(self, bar: tuple[str, str], values: tuple[int, int | None, float]) -> str:
        (stage, phase), (done, total, began) = bar, values
        name = escape(f"stage {stage}: {phase}")
        if total is None:
            return f"<label>{name}<progress></progress><span>{done}</span></label>"
        left = (time.monotonic() - began) / (done - 1) * (total - done) if done > 1 else None
        said = f"{done} of {total}" + (f", {left:.0f} s left" if left is not None and done < total else "")
        return f'<label>{name}<progress max="{total}" value="{done}"></progress><span>{said}</span></label>'


def _status(head: str, body: str, state: str) -> str:
    role = "alert" if state == "problem" else "status"
    return f'<div class="status {state}" role="{role}"><p>{head}</p>{body}</div>'


def problem(sentence: str) -> str:
    """A sentence on an error."""
    return _status(f"<b>This did not work.</b> {escape(sentence)}", "", "problem")


def message(sentence: str) -> str:
    """A sentence on the state of the page."""
    return _status(escape(sentence), "", "idle")


def notes(sentences: Sequence[str]) -> str:
    """Notes as a list, without repetitions; empty where there are none."""
    items = "".join(f"<li>{escape(each)}</li>" for each in dict.fromkeys(sentences))
    return f"<ul>{items}</ul>" if items else ""


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first cell of a row is its name."""
    heads = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(each)}</td>" for each in row[1:]) + "</tr>"
        for row in rows
    )
    scroll = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
    caption = f"<caption>{escape(caption)}</caption>"
    return f"{scroll}<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def inversion_words(report: dict[str, Any]) -> str:
    """The report of a whole inversion in words, and a table of its stages."""
    back, stages = report["reconstruction"], report["stages"]
    if back["psnr"] is None:
        head = "Every pixel comes back." if all(s["reconstruction"]["psnr"] is None for s in stages) else report["why"]
    else:
        head = (
            f"The picture comes back at {back['psnr']:.1f} dB, {back['exact_pixels']:.1%} of its pixels exactly. "
            f"{report['why']}"
        )
    calls = sum(stage["network_calls"]["forward"] + stage["network_calls"]["backward"] for stage in stages)
    methods = report["method"] if isinstance(report["method"], str) else ", ".join(report["method"])
    body = f"{calls} network calls by {methods}, in {report['seconds']:.1f} s."
    rows = [
        [
            f"{stage['stage']}, {stage['size']} px",
            decibels(stage["reconstruction"]["psnr"]),
            f"{stage['reconstruction']['exact_pixels']:.1%}",
            *(f"{stage['terminal_noise'][key]:.2f}" for key in NOISE),
        ]
        for stage in stages
    ]
    rows.append(["a sampler's noise", "", "", *(str(value) for value in NOISE.values())])
    columns = ["stage", "comes back", "exact pixels", *(f"noise: {name}" for name in NOISE)]
    lead = f'<p class="lead">{escape(head)}</p><p>{escape(body)}</p>'
    return lead + table("Stages", columns, rows) + notes(report["notes"])


def noise_words(stage: str, noise: np.ndarray) -> str:
    """A histogram of a terminal noise, whose values are of unit spread in a sampler's, over the bell curve of that."""
    wide, high, most = 320, 88, 4.0
    counts, edges = np.histogram(noise[np.isfinite(noise)], 64, (-most, most))
    heights = counts / max(1, noise.size) / (edges[1] - edges[0])
    top = max(0.45, float(heights.max()))

    def point(x: float, density: float) -> str:
        return f"{(x + most) / (2 * most) * wide:.1f},{high * (1 - density / top):.1f}"

    steps = [point(x, each) for k, each in enumerate(heights) for x in edges[k : k + 2]]
    bell = [point(x, math.exp(-x * x / 2) / math.sqrt(2 * math.pi)) for x in edges]
    about = f"Values of the terminal noise of stage {stage}, and the bell curve of a sampler's"
    return (
        f'<figure><svg viewBox="0 0 {wide} {high + 14}" role="img" aria-label="{escape(about)}">'
        f'<polygon class="bars" points="0,{high} {" ".join(steps)} {wide},{high}"/>'
        f'<polyline class="bell" points="{" ".join(bell)}"/><path d="M0 {high}H{wide}" class="axis"/>'
        + "".join(f'<text x="{(x + 4) * wide / 8}" y="{high + 12}">{x}</text>' for x in (-3, -2, -1, 0, 1, 2, 3))
        + f"</svg><figcaption>{escape(about)}.</figcaption></figure>"
    )


def edit_words(report: dict[str, Any]) -> str:
    """The report of the one edit of a report in words."""
    (edit,) = report["edits"]
    editor = f"{edit['editor']} chose {edit['chose']}" if edit.get("chose") else edit["editor"]
    said = [f"{editor}: “{edit['to']}”.", *edit_sentences(edit)]
    if own := edit.get("own_size"):
        said.append(f"The file has the picture's own size, {own['width']} x {own['height']} px.")
    return f"<p>{escape(' '.join(said))}</p>" + notes(report["notes"])


def measured_words(measurement: Measurement) -> str:
    """A table of the metrics of two pictures, whole and by region, and the notes on it."""
    rows = []
    for name, metric in measurement.chosen.items():
        cells = [mean_cell(measurement, name, region) for region in measurement.regions]
        rows.append([name, metric.about, metric.direction, ends(metric), *cells])
    columns = ["metric", "about", "better", "range", *measurement.regions]
    return table("Measured", columns, rows) + notes(measurement.notes)


def ends(metric: Metric) -> str:
    """The range of a metric."""
    least, most = metric.range
    return f"{least:g} to {most:g}"


def comparison(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of a comparison of methods as a table, and the reason for each loss."""
    cells = [
        [
            row["method"],
            decibels_by_stage(row),
            f"{row['exact_pixels']:.1%}" if row["stages"] else "",
            str(row["network_calls"]["forward"]) if row["stages"] else "",
            str(row["network_calls"]["backward"]) if row["stages"] else "",
            f"{row['seconds']:.1f}",
            f"{row['terminal_noise']['std']:.2f}" if row["stages"] else "",
        ]
        for row in rows
    ]
    columns = ["method", "dB by stage", "exact pixels", "forward calls", "backward calls", "seconds", "noise: std"]
    reasons = notes([f"{row['method']}: {row['why']}" for row in rows])
    return table("Methods on this picture", columns, cells) + reasons

"""The report of an evaluation as one HTML file that asks for nothing else: tables that can be sorted, a plot, pictures
with a slider between before and after, and the manifest."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from iterinv.evaluate.rows import rows
from iterinv.evaluate.run import PICTURES, SHOWN
from iterinv.evaluate.summary import LEGEND, Group, number, settings_of, tables
from iterinv.files import printable

WIDEST, MOST = 384, 96
"""Pictures in the page are at most this wide, in px, and at most so many, or those of one task; files hold all."""

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 0 0 1.5rem; } .wide { overflow-x: auto; }
th, td { border-bottom: 1px solid #ccc; padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th button { font: inherit; font-weight: 600; border: 0; background: none; cursor: pointer; padding: 0; }
th button:focus-visible, input:focus-visible { outline: 2px solid #06c; outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; width: 16rem; }
.pair { position: relative; } .pair img { display: block; width: 100%; image-rendering: auto; }
.pair img + img { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at, 50%)); }
figcaption { font-size: .85rem; } input[type=range] { width: 100%; margin: .2rem 0; } svg text { font-size: 12px; }
"""

SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, table = head.closest("table"), body = table.tBodies[0];
  const k = [...head.parentElement.children].indexOf(head), down = head.getAttribute("aria-sort") === "ascending";
  for (const each of head.parentElement.children) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => { const text = row.children[k].textContent, n = parseFloat(text); return isNaN(n) ? text : n; };
  const less = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  [...body.rows].sort((a, b) => (down ? -1 : 1) * less(value(a), value(b))).forEach(row => body.append(row));
};
for (const input of document.querySelectorAll("input[type=range]"))
  input.oninput = () => input.previousElementSibling.style.setProperty("--at", input.value + "%");
"""


def page(folder: Path, every: Sequence[Group]) -> Iterator[str]:
    """Yield the page of a folder's groups in parts, so that not all pictures are in memory at once. Raises as
    :func:`iterinv.evaluate.summary.settings_of` does."""
    manifest = settings_of(folder)
    title = f"Evaluation on {manifest.get('dataset')}"
    yield (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<h1>{_text(title)}</h1>\n<p>{_text(LEGEND.replace('`', '').replace('*', ''))}</p>\n"
    )
    for name, head, cells in tables(every):
        yield f"<h2>{_text(name)}</h2>\n{_table(head, cells)}\n"
    for edits in (False, True):
        yield plot([group for group in every if not group.kind and bool(group.editor) == edits])
    if failures := [group for group in every if group.failed and not group.kind]:
        items = "".join(f"<li>{_text(f'{each.name}: {each.failed}, first: {each.error}')}</li>" for each in failures)
        yield f"<h2>Failures</h2>\n<ul>{items}</ul>\n"
    yield from _sheet(folder)
    cells = [[key, value if isinstance(value, str) else json.dumps(value)] for key, value in manifest.items()]
    yield f"<h2>Manifest</h2>\n{_table(['setting', 'value'], cells)}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"


def plot(every: Sequence[Group]) -> str:
    """Bars of the first metric's mean with two standard errors each way, as SVG; empty where no group has a number."""
    name = next((name for group in every for name in group.columns), None)
    bars = [(group.name, group.columns[name]) for group in every if name in group.columns]
    top = max((column.mean + 2 * (column.error or 0) for _, column in bars if column.mean is not None), default=0)
    if top <= 0 or name is None:
        return ""
    left, wide, line, parts = 240, 420, 24, []
    for k, (label, column) in enumerate(bars):
        y = line * k
        parts.append(f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{_text(label)}</text>')
        if column.mean is None:
            parts.append(f'<text x="{left}" y="{y + 16}">all {column.missing} without a number</text>')
            continue
        length, spread = (max(0.0, value) / top * wide for value in (column.mean, 2 * (column.error or 0)))
        middle = y + line / 2
        parts.append(f'<rect x="{left}" y="{y + 4}" width="{length:.1f}" height="{line - 8}" fill="#6a9fd4"/>')
        ends = f'x1="{left + max(0.0, length - spread):.1f}" x2="{left + length + spread:.1f}"'
        parts.append(f'<line {ends} y1="{middle}" y2="{middle}" stroke="#1a1a1a"/>')
        parts.append(f'<text x="{left + length + spread + 8:.1f}" y="{y + 16}">{number(column.mean)}</text>')
    said = f"mean {name} with two standard errors each way"
    height = line * len(bars)
    return (
        f'<figure style="width: auto"><svg role="img" aria-label="{_text(said)}" width="760" height="{height}" '
        f'viewBox="0 0 760 {height}">{"".join(parts)}</svg><figcaption>{_text(said)}</figcaption></figure>\n'
    )


def _sheet(folder: Path) -> Iterator[str]:
    """The pictures that were kept: each result over its source, with a slider."""
    tasks: dict[str, list[dict[str, Any]]] = {}
    for row in rows(folder):
        if row["metrics"] is not None and (row["task"] in tasks or len(tasks) < SHOWN) and _file(folder, row).is_file():
            tasks.setdefault(row["task"], []).append(row)
    if tasks:
        yield (
            "<h2>Pictures</h2>\n<p>Each slider, which arrow keys move too, has the source on its left. Pictures are at "
            f"most {WIDEST} px wide here; the folder {PICTURES} has all of them, at their size.</p>\n"
        )
    count = 0
    for task, these in tasks.items():
        count += len(these)
        if len(these) < count > MOST:
            return
        truth = folder / PICTURES / task / "truth.png"
        yield f'<h3>{_text(task)}</h3>\n<div class="pictures">\n'
        if truth.is_file() and any(row["editor"] for row in these):
            yield _figure(folder, task, truth, "true answer", "")
        for row in these:
            name = row["method"] + (f" + {row['editor']}" if row["editor"] else "")
            metric, value = next(iter(row["metrics"].items()), ("", None))
            caption = f"{metric}: {'no number' if value is None else number(value)}" if metric else ""
            yield _figure(folder, task, _file(folder, row), name, caption)
        yield "</div>\n"


def _figure(folder: Path, task: str, picture: Path, name: str, caption: str) -> str:
    before, after = _uri(folder / PICTURES / task / "source.png"), _uri(picture)
    shown = _text(f"{name}; {caption}" if caption else name)
    return (
        f'<figure><div class="pair"><img src="{before}" alt="{_text(task)}, the source">'
        f'<img src="{after}" alt="{_text(f"{task}, {name}")}"></div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{_text(f"source or {name}, {task}")}">'
        f"<figcaption>{shown}</figcaption></figure>\n"
    )


def _file(folder: Path, row: dict[str, Any]) -> Path:
    return folder / PICTURES / row["task"] / f"{row['method']}{'+' + row['editor'] if row['editor'] else ''}.png"


def _uri(path: Path) -> str:
    """A picture as a data URI, an empty one where it cannot be read."""
    buffer = io.BytesIO()
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return "data:,"
    small.thumbnail((WIDEST, WIDEST))
    small.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _table(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col"><button type="button">{_text(each)}</button></th>' for each in head)
    lines = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in line)}</tr>\n" for line in cells)
    return f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table></div>'


def _text(value: str) -> str:
    return html.escape(printable(value))

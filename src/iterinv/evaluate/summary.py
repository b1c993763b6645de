"""The summary of an evaluation: means by method and editor, as values and as tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iterinv.evaluate.rows import rows, seconds


@dataclass
class Column:
    """The count and the mean of a metric, and the sum of squared deviations from it, kept up to date (Welford, 1962);
    ``missing`` counts rows without a number, as for the PSNR of equal pictures."""

    n: int = 0
    mean: float | None = None
    squares: float = 0.0
    missing: int = 0

    def add(self, value: float | None) -> None:
        """Count a value."""
        if value is None:
            self.missing += 1
        else:
            before, self.n = self.mean or 0.0, self.n + 1
            self.mean = before + (value - before) / self.n
            self.squares += (value - before) * (value - self.mean)

    @property
    def error(self) -> float | None:
        """The standard error of the mean, ``None`` for fewer than two numbers."""
        if self.n < 2:
            return None
        return math.sqrt(self.squares / (self.n - 1) / self.n)


@dataclass
class Group:
    """The rows of a method and an editor, which is empty for reconstructions; ``kind`` is empty for all kinds."""

    method: str
    editor: str
    kind: str
    rows: int = 0
    failed: int = 0
    error: str = ""
    columns: dict[str, Column] = field(default_factory=dict)
    calls: dict[str, Column] = field(default_factory=lambda: {"forward": Column(), "backward": Column()})
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The method, and the editor if there is one."""
        return f"{self.method} + {self.editor}" if self.editor else self.method

    def add(self, row: dict[str, Any]) -> None:
        """Count a row."""
        self.rows += 1
        if row["metrics"] is None:
            self.failed, self.error = self.failed + 1, self.error or row["error"]
            return
        for name, value in row["metrics"].items():
            self.columns.setdefault(name, Column()).add(value)
        for way, column in self.calls.items():
            column.add(row["calls"][way])


def groups(folder: Path) -> list[Group]:
    """The groups of a folder's rows: of all kinds first, then by kind if there are several; in the order of the
    settings."""
    made: dict[tuple[str, str, str], Group] = {}
    kinds: set[str] = set()
    for row in rows(folder):
        kinds.add(str(row.get("kind") or ""))
        for kind in dict.fromkeys(("", str(row.get("kind") or ""))):
            key = row["method"], row["editor"] or "", kind
            made.setdefault(key, Group(*key)).add(row)
    for (method, editor), (total, n) in seconds(folder).items():
        if group := made.get((method, editor, "")):
            group.seconds = total / n
    settings = settings_of(folder)
    order = [str(settings.get(name, "")).split(",") for name in ("methods", "editors")]
    chosen = (group for group in made.values() if not group.kind or len(kinds) > 1)
    return sorted(chosen, key=lambda group: (group.kind, bool(group.editor), _place(order, group)))


def _place(order: Sequence[Sequence[str]], group: Group) -> tuple[tuple[int, str], ...]:
    """The place of a group's method and editor in the settings, and their names where they are not in it."""
    pairs = zip(order, (group.method, group.editor), strict=True)
    return tuple((names.index(name) if name in names else len(names), name) for names, name in pairs)


def settings_of(folder: Path) -> dict[str, Any]:
    """The manifest of a folder. Raises ``FileNotFoundError`` where there is none, and ``ValueError`` for a damaged
    one."""
    file = folder / "manifest.json"
    try:
        values = json.loads(file.read_bytes())
    except OSError:
        raise FileNotFoundError(f"{folder} holds no evaluation: there is no {file}") from None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{file} is damaged: run the evaluation's command again")
    return values


def tables(every: Sequence[Group], errors: bool = True) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield the tables of groups: a title, columns and cells. Reconstructions and edits have tables of their own, for
    they have other columns; where there are several kinds, both have one by kind too. ``errors`` adds standard errors
    to means."""
    for by_kind in (False, True):
        for edits in (False, True):
            these = [group for group in every if bool(group.editor) == edits and bool(group.kind) == by_kind]
            if not these:
                continue
            names = list(dict.fromkeys(name for group in these for name in group.columns))
            head = ["method and editor" if edits else "method", "rows", "failed", *names, "forward", "backward"]
            cells = [
                [group.name, str(group.rows), str(group.failed), *_figures(group, names, errors)] for group in these
            ]
            if by_kind:
                head = ["kind", *head]
                cells = [[group.kind, *line] for line, group in zip(cells, these, strict=True)]
            else:
                head.append("seconds")
                seconds = ["" if group.seconds is None else f"{group.seconds:.2f}" for group in these]
                cells = [[*line, each] for line, each in zip(cells, seconds, strict=True)]
            yield f"{'Edits' if edits else 'Reconstructions'}{' by kind' if by_kind else ''}", head, cells


def _figures(group: Group, names: Iterable[str], errors: bool) -> list[str]:
    calls = [column.mean for column in group.calls.values()]
    cells = [shown(group.columns.get(name), name, errors) for name in names]
    return cells + ["" if n is None else f"{n:.0f}" for n in calls]


def shown(column: Column | None, name: str, errors: bool = True) -> str:
    """The mean of a metric's column, with its standard error if that is wanted, and the number of rows without a number
    if there are any: of PSNR those whose pictures are equal, which are *exact*."""
    if column is None or (column.mean is None and not column.missing):
        return ""
    exact = name.startswith("psnr")
    if column.mean is None:
        return "exact" if exact else f"none ({column.missing} without)"
    text = number(column.mean) + ("" if column.error is None or not errors else f" ± {number(column.error)}")
    return f"{text} ({column.missing} {'exact' if exact else 'without'})" if column.missing else text


def number(value: float) -> str:
    """A number in four digits."""
    return f"{value:.4g}"


def markdown(folder: Path, every: Sequence[Group]) -> str:
    """The report as Markdown: tables, failures and the manifest."""
    manifest = settings_of(folder)
    lines = [f"# Evaluation on {manifest.get('dataset')}", "", LEGEND, ""]
    for title, head, cells in tables(every):
        lines += [f"## {title}", "", table(head, cells), ""]
    if failures := [group for group in every if group.failed and not group.kind]:
        lines += [
            "## Failures",
            "",
            *(f"* {group.name}: {group.failed}, first: {group.error}" for group in failures),
            "",
        ]
    lines += ["## Manifest", "", table(["setting", "value"], ([key, _plain(manifest[key])] for key in manifest)), ""]
    return "\n".join(lines)


LEGEND = (
    "Means with standard errors. *Exact* counts rows whose pictures are equal, which have no PSNR, and *without* other "
    "rows that have no number. "
    "`_source`: against the picture; `_outside`: against it outside the region; `_truth`: against the true answer; "
    "`_inside`: against it inside the region. *Forward* and *backward* are network calls of one picture: of a "
    "reconstruction, those of its inversion and rerun; of an edit, those of the editor alone."
)


def table(head: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

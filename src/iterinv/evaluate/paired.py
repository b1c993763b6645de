"""Two evaluations side by side: the differences of the same tasks, with bootstrap intervals (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iterinv.evaluate.measures import better
from iterinv.evaluate.rows import rows
from iterinv.evaluate.summary import number, settings_of, table

DRAWS, SHARE = 10_000, 0.95
"""Samples of the bootstrap, and the share of them that an interval holds."""

BLOCK = 1_000_000
"""Numbers that are drawn at once."""


class Paired(NamedTuple):
    """The second run less the first in one metric: the number of pairs, both means, the mean difference and its
    interval, ``None`` for fewer than two pairs; and the tasks that have no number in the first and in the second."""

    method: str
    editor: str
    metric: str
    pairs: int
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    first_without: int
    second_without: int

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval does not hold 0 and one of them is known; else empty."""
        wanted = better(self.metric)
        if self.low is None or self.high is None or not wanted or self.low <= 0 <= self.high:
            return ""
        return "better" if (self.low > 0) == (wanted == "higher") else "worse"


def bootstrap(differences: np.ndarray, seed: int = 0, draws: int = DRAWS) -> tuple[float, float] | None:
    """The percentile interval of the mean of values (n,) over samples with replacement, ``None`` for n below 2."""
    n = len(differences)
    if n < 2:
        return None
    generator, means = np.random.default_rng(seed), np.empty(draws)
    step = max(1, BLOCK // n)
    for first in range(0, draws, step):
        picks = generator.integers(0, n, (min(step, draws - first), n))
        means[first : first + len(picks)] = differences[picks].mean(1)
    low, high = np.quantile(means, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)


def paired(
    first: Path, second: Path, of_first: str = "", of_second: str = "", seed: int = 0, draws: int = DRAWS
) -> list[Paired]:
    """The differences of two folders, a row for each method, editor and metric that both have.

    ``of_first`` and ``of_second`` choose a method, or ``method/editor``, of each, so that unlike ones may be compared,
    those of one folder too. Raises ``FileNotFoundError`` for a folder without an evaluation, and ``ValueError`` where
    nothing is common and where a task has another picture in each.
    """
    if bool(of_first) != bool(of_second):
        raise ValueError("one of the two is chosen and the other is not: choose both, or none")
    one, other = _values(first, of_first), _values(second, of_second)
    results = []
    for group in one:
        common = [task for task in one[group] if task in other.get(group, {})]
        for task in common:
            if one[group][task].picture != other[group][task].picture:
                raise ValueError(
                    f"the task {task} has another picture in {second} than in {first}: compare runs on one dataset"
                )
        pairs = [(one[group][task].values, other[group][task].values) for task in common]
        names = dict.fromkeys(name for values, _ in pairs for name in values)
        both = [name for name in names if any(name in values for _, values in pairs)]
        named = (f"{of_first} → {of_second}", "") if of_first else group
        results += [_compared(*named, name, pairs, seed, draws) for name in both]
    if not results:
        raise ValueError(
            f"{first} and {second} have no task, method and editor in common: choose those to compare by --first and "
            "--second, as bdia or bdia/redraw"
        )
    return results


class _Row(NamedTuple):
    """The hash of a row's picture, and its metrics and network calls by name."""

    picture: str
    values: dict[str, float | None]


def _values(folder: Path, chosen: str) -> dict[tuple[str, str], dict[str, _Row]]:
    """The rows of a folder that did not fail, by method and editor and by task; all under one name if one is
    chosen."""
    settings_of(folder)
    method, _, editor = chosen.partition("/")
    values: dict[tuple[str, str], dict[str, _Row]] = {}
    for row in rows(folder):
        group = row["method"], row["editor"] or ""
        if row["metrics"] is not None and (not chosen or group == (method, editor)):
            calls = {f"{way}_calls": n for way, n in row["calls"].items()}
            values.setdefault(("chosen", "") if chosen else group, {})[row["task"]] = _Row(
                row["picture"], {**row["metrics"], **calls}
            )
    if chosen and not values:
        raise ValueError(f"{folder} has no rows of {chosen}: choose a method, or method/editor")
    return values


def _compared(
    method: str,
    editor: str,
    metric: str,
    pairs: Sequence[tuple[dict[str, float | None], dict[str, float | None]]],
    seed: int,
    draws: int,
) -> Paired:
    every = [(one.get(metric), other.get(metric)) for one, other in pairs]
    numbers = np.array([pair for pair in every if None not in pair], float).reshape(-1, 2)
    first, second = numbers.mean(0).tolist() if len(numbers) else (None, None)
    differences = numbers[:, 1] - numbers[:, 0]
    low, high = bootstrap(differences, seed, draws) or (None, None)
    mean = float(differences.mean()) if len(numbers) else None
    without = (sum(pair[k] is None for pair in every) for k in (0, 1))
    return Paired(method, editor, metric, len(numbers), first, second, mean, low, high, *without)


COLUMNS = ("method and editor", "metric", "pairs", "first", "second", "difference", "95 %", "", "without")
"""The columns of the table."""


def cells(results: Sequence[Paired]) -> list[list[str]]:
    """The cells of the table of differences."""
    lines = []
    for each in results:
        name = f"{each.method} + {each.editor}" if each.editor else each.method
        figures = ["" if value is None else number(value) for value in (each.first, each.second, each.difference)]
        interval = "" if each.low is None or each.high is None else f"{number(each.low)} to {number(each.high)}"
        without = f"{each.first_without}, {each.second_without}" if each.first_without or each.second_without else ""
        lines.append([name, each.metric, str(each.pairs), *figures, interval, each.verdict, without])
    return lines


def markdown(first: Path, second: Path, results: Sequence[Paired]) -> str:
    """The differences and the settings that differ, as Markdown."""
    one, other = settings_of(first), settings_of(second)
    unlike = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    settings = table(["setting", "first", "second"], ([key, str(one.get(key)), str(other.get(key))] for key in unlike))
    parts = [f"# {second} less {first}", LEGEND, table(COLUMNS, cells(results)), "## Settings that differ", settings]
    return "\n\n".join(parts) + "\n"


LEGEND = (
    "Means over the tasks that have a number in both runs; the difference is the second less the first, with a "
    f"bootstrap interval of {SHARE:.0%} over tasks. *Without* counts the tasks that have no number in the first and in "
    "the second: for PSNR, those whose pictures are equal."
)

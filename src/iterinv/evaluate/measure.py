"""Metrics of two pictures, or of the pictures of two folders, whole and inside and outside of masks."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from iterinv.evaluate.pairs import Pair, read_pair
from iterinv.manifest import versions
from iterinv.metrics import Metric, frechet, metrics
from iterinv.metrics.registry import USUAL

REGIONS = ("whole", "inside", "outside")


@dataclass(frozen=True, eq=False)
class Measurement:
    """Values of metrics.

    ``rows`` has an entry per pair: ``picture``, ``pixels`` and ``values``, both by region, the values by metric too.
    ``sets`` has the values of metrics that compare all pictures at once, ``left_out`` the reason of each usual metric
    that cannot run here.
    """

    chosen: dict[str, Metric]
    regions: tuple[str, ...]
    rows: list[dict[str, Any]]
    sets: dict[str, float]
    left_out: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def mean(self, name: str, region: str) -> tuple[float | None, int]:
        """The mean of a metric over the pictures that have a value, and their number; ``None`` where none has."""
        values = [row["values"][region][name] for row in self.rows]
        values = [value for value in values if value is not None]
        return (float(np.mean(values)) if values else None), len(values)

    def worst(self, name: str) -> str:
        """The name of the picture with the worst value of a metric; empty where none has a value."""
        values = [(row["values"]["whole"][name], row["picture"]) for row in self.rows]
        values = [each for each in values if each[0] is not None]
        choose = max if self.chosen[name].direction == "lower" else min
        return str(choose(values)[1]) if values else ""

    def report(self) -> dict[str, Any]:
        """All values as JSON has them: ``null`` where there is none, and for a range without an end."""
        about = {
            name: {
                "about": metric.about,
                "better": metric.direction,
                "range": [end if math.isfinite(end) else None for end in metric.range],
                "unit": metric.unit,
            }
            for name, metric in self.chosen.items()
        }
        pairs = [name for name in self.chosen if name not in self.sets]
        means: dict[str, Any] = {region: {} for region in self.regions}
        for region in self.regions:
            for name in pairs:
                value, count = self.mean(name, region)
                means[region][name] = {"mean": value, "n": count}
        return {
            "n": len(self.rows),
            "metrics": about,
            "means": means,
            "sets": self.sets,
            "pictures": self.rows,
            "left_out": self.left_out,
            "notes": self.notes,
            "versions": versions(),
        }

    def csv(self) -> str:
        """A line per picture and region, and a column per metric; empty where there is no value."""
        names = [name for name in self.chosen if name not in self.sets]
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["picture", "region", "pixels", *names])
        for row in self.rows:
            for region in self.regions:
                values = (row["values"][region][name] for name in names)
                lines.writerow([row["picture"], region, row["pixels"][region], *values])
        return text.getvalue()


def choose(names: Sequence[str], weights: Path | None = None) -> tuple[dict[str, Metric], dict[str, str]]:
    """The metrics of these names; the usual ones that can run here where none is named, and the reasons of those that
    cannot.

    Raises ``ValueError`` for a name that is none, and ``ModuleNotFoundError`` for a named metric that cannot run here.
    """
    known = metrics()
    left_out: dict[str, str] = {}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no metric {name!r}: the metrics are {', '.join(known)}")
        if reason := known[name].needs(weights):
            raise ModuleNotFoundError(f"the metric {name} {reason}")
    for name in () if names else USUAL:
        if reason := known[name].needs(weights):
            left_out[name] = reason
    return {name: known[name] for name in dict.fromkeys(names or USUAL) if name not in left_out}, left_out


def measure(
    pairs: Sequence[Pair],
    chosen: dict[str, Metric],
    weights: Path | None = None,
    prompts: tuple[str | None, str | None] = (None, None),
    resize: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Any]]:
    """Yield after each metric of each pair: a row of :class:`Measurement` at the last of a pair, empty before. Rows
    have the features of metrics of sets under ``features``.

    ``prompts`` are of all references and of all pictures; where one is ``None`` it is in the text file beside the
    picture. Raises ``ValueError`` for a picture that cannot be read, another size without ``resize``, an empty mask,
    a prompt that is missing, and a metric of sets where there is one pair.
    """
    for name in (name for name, metric in chosen.items() if metric.features is not None and len(pairs) < 2):
        raise ValueError(f"{name} compares folders of two pictures or more: give two folders")
    said: set[str] = set()

    def once(text: str, name: str) -> None:
        if text not in said:
            said.add(text)
            note(f"{name}: {text}")

    for pair in pairs:
        captions = _captions(pair, chosen, prompts)
        reference, picture, mask = read_pair(pair, resize, once)
        masks = {"whole": None} if mask is None else {"whole": None, "inside": mask, "outside": ~mask}
        pixels = {region: int(reference[..., 0].size if each is None else each.sum()) for region, each in masks.items()}
        values: dict[str, dict[str, float | None]] = {region: {} for region in masks}
        row: dict[str, Any] = {"picture": pair.name, "pixels": pixels, "values": values, "features": {}}
        for k, (name, metric) in enumerate(chosen.items(), 1):
            try:
                if metric.features is not None:
                    row["features"][name] = [metric.look(each, weights) for each in (reference, picture)]
                else:
                    for region, each in masks.items():
                        empty = pixels[region] == 0
                        value = None if empty else metric(reference, picture, each, captions, weights)
                        values[region][name] = value
            except ValueError as error:
                once(f"{name} has no value: {error}", pair.name)
                for region in () if metric.features else masks:
                    values[region][name] = None
            yield row if k == len(chosen) else {}


def compare_sets(rows: Sequence[dict[str, Any]], chosen: dict[str, Metric]) -> tuple[dict[str, float], list[str]]:
    """The Fréchet distances of the features in rows of :func:`measure`, which are taken out of these, and notes on
    distances of few pictures. Raises ``ValueError`` for fewer than two pictures."""
    import torch

    features, sets, notes = [row.pop("features") for row in rows], {}, []
    for name in (name for name, metric in chosen.items() if metric.features is not None):
        each = [row[name] for row in features if name in row]
        if len(each) < 2:
            raise ValueError(f"{name} compares folders of two pictures or more, and it can take {len(each)} here")
        there, here = (torch.stack(side) for side in zip(*each, strict=True))
        sets[name] = frechet(there, here)
        if len(each) <= there.shape[1]:
            notes.append(
                f"{name} is of {len(each)} pictures a side and {there.shape[1]} features: it is the larger the fewer "
                "the pictures, so compare it with distances of as many alone"
            )
    return sets, notes


def _captions(pair: Pair, chosen: dict[str, Metric], prompts: tuple[str | None, str | None]) -> tuple[str, str]:
    """The prompts of a pair's pictures, empty where no metric asks for them. Raises ``ValueError`` where one is
    missing."""
    captions = []
    for prompt, file, option, least in zip(
        prompts, (pair.reference, pair.picture), ("--prompt", "--to"), (2, 1), strict=True
    ):
        beside = file.with_suffix(".txt")
        needy = [name for name, metric in chosen.items() if metric.prompts >= least]
        if needy and prompt is None and not beside.is_file():
            raise ValueError(f"{needy[0]} compares {file} with words: give {option}, or write them to {beside}")
        captions.append(_read(beside) if needy and prompt is None else prompt or "")
    return captions[0], captions[1]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not text in UTF-8: write the description again") from None

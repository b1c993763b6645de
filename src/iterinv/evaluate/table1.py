"""The rows of Table I of IterInv (Tang, Wang, van de Weijer, 2023), for any cascade and dataset.

Autoencoders alone; DDIM inversion of the last stage, the last two, and so on; IterInv at several guidance scales; and
the exact methods of this package. Each row of DDIM is there twice: ``…-published`` makes the two mistakes of the public
code (:class:`iterinv.evaluate.recipes.UpperStages`), the other does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from iterinv.cascade import Cascade
from iterinv.costs import blueprints
from iterinv.evaluate.measure import choose
from iterinv.evaluate.recipes import Ceiling, Inverting, Recipe, UpperStages
from iterinv.evaluate.summary import Group, groups, settings_of, shown, table
from iterinv.methods import METHODS, plan
from iterinv.refine import NullText

SCALES = (1.0, 3.0, 5.0, 7.0)
"""The guidance scales of IterInv's rows in the paper."""

EXACT = ("bdia", "aligned", "iterinv-anderson")
"""Methods that stand beside those of the paper, unless others are named."""

PUBLISHED = ("mse", "lpips-alex", "ssim", "psnr", "clip-score")
"""The metrics of the paper's table."""


def stage_count(model: str, load: Callable[[], Cascade], size: int | None = None) -> int:
    """The number of stages of a cascade up to that of ``size``, from its configuration alone where that is known."""
    if size is not None:
        return len(load().up_to(size).stages)
    with suppress(FileNotFoundError):  # of a model that is known only once it is loaded
        return len(blueprints(model))
    return len(load().stages)


def recipes(
    stages: int,
    steps: int = 20,
    scales: Sequence[float] = SCALES,
    autoencoders: Sequence[str] = (),
    methods: Sequence[str] = EXACT,
) -> tuple[tuple[str, Recipe], ...]:
    """The rows for a cascade of so many stages, in the order of the table.

    ``scales`` are IterInv's at the first stage, where null-text optimisation follows DDIM inversion with the settings
    of the paper's code; at 1 it is DDIM inversion alone. The stages above have no guidance. ``autoencoders`` are names
    for :class:`iterinv.evaluate.recipes.Ceiling`, ``methods`` those beside the paper's, without guidance. Raises
    ``ValueError`` for settings that cannot work.
    """
    ddim, iterinv = plan("ddim", steps), plan("iterinv", steps)
    rows: list[tuple[str, Recipe]] = [(f"autoencoder-{_short(name)}", Ceiling(name)) for name in autoencoders]
    for first in range(stages, 0, -1):
        name = "ddim-" + "-".join(f"s{k}" for k in range(first, stages + 1))
        if first == stages == 1:  # no stage has a picture below, where the mistakes are made
            rows.append((name, UpperStages(first, ddim)))
            continue
        rows.append((f"{name}-published", UpperStages(first, ddim, "fresh", velocity_as_noise=True)))
        rows.append((name, UpperStages(first, ddim)))
    for scale in scales:
        refined = replace(ddim, refine=NullText.as_iterinv(), guidance=scale, method="null-text")
        rows.append((f"iterinv-w{scale:g}", Inverting((ddim if scale == 1 else refined, *[iterinv] * (stages - 1)))))
    for name in methods:
        if name not in METHODS:
            raise ValueError(f"there is no method {name!r}: the methods are {', '.join(METHODS)}")
        rows.append((name, Inverting(plan(name, steps))))
    names = [name for name, _ in rows]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the row {twice[0]} is there twice: give each scale, autoencoder and method once")
    return tuple(rows)


def _short(name: str) -> str:
    """A name for a row: letters, digits and dashes of the last part of a path or of a hub's name."""
    last = name.rstrip("/").rpartition("/")[2]
    return "".join(each if each.isalnum() else "-" for each in last).strip("-") or "1"


def published_metrics(weights: Path | None = None) -> tuple[tuple[str, ...], dict[str, str]]:
    """The metrics of the paper's table that can run here, with ST-LPIPS where LPIPS cannot, and the reasons of those
    that cannot; ``weights`` is a folder of weights that are in no cache."""
    chosen: list[str] = []
    reasons: dict[str, str] = {}
    for name in (*PUBLISHED, "st-lpips"):
        try:
            choose([name], weights)
        except ModuleNotFoundError as error:
            reasons[name] = str(error)
        else:
            if name != "st-lpips" or "lpips-alex" in reasons:
                chosen.append(name)
    return tuple(chosen), reasons


LABELS = {
    "mse": "MSE",
    "lpips-alex": "LPIPS",
    "st-lpips": "ST-LPIPS",
    "ssim": "SSIM",
    "psnr": "PSNR",
    "clip-score": "CLIP",
}
"""Heads of columns, as the paper has them."""

LEGEND = (
    "Means over the pictures; *exact* means that every pixel of every picture came back, where PSNR has no value. "
    "*Forward* and *backward* are network calls for each picture, of inverting and running again. Rows `-published` "
    "make the mistakes of the paper's public code: its inverse scheduler reads the velocity as the noise, and it runs "
    "a path again under other noise on the low-resolution condition."
)


def markdown(folder: Path) -> str:
    """The table of a folder and its legend, in Markdown."""
    return f"# Table I of IterInv\n\n{LEGEND}\n\n{table(*columns(folder))}\n"


def columns(folder: Path) -> tuple[list[str], list[list[str]]]:
    """The head and the cells of the table of a folder, a line for each row in their order."""
    names = str(settings_of(folder)["metrics"]).split(",")
    head = ["row", *(LABELS.get(name, name) for name in names), "pictures", "forward", "backward", "seconds"]
    return head, [_cells(group, names) for group in groups(folder) if not group.kind and not group.editor]


def _cells(group: Group, names: Sequence[str]) -> list[str]:
    values = [shown(group.columns.get(name), name, errors=False) for name in names]
    calls = ["" if (n := group.calls[way].mean) is None else f"{n:.0f}" for way in ("forward", "backward")]
    seconds = "" if group.seconds is None else f"{group.seconds:.1f}"
    return [group.name, *values, str(group.rows - group.failed), *calls, seconds]

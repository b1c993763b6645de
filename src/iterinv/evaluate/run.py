"""An evaluation: every task of a dataset by every method and editor.

Each row is a line of a file as soon as it is done. A run that was stopped or killed goes on, and its file ends with the
same bytes as that of a run that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from iterinv import images
from iterinv.evaluate.datasets import Dataset, open_dataset
from iterinv.evaluate.folder import SETTINGS, append_line, exclusive, settle, write_json
from iterinv.evaluate.rows import RESULTS, TIMINGS, Key, rows, sort
from iterinv.evaluate.worker import Evaluation, Job
from iterinv.evaluate.workers import Workers
from iterinv.files import writing
from iterinv.manifest import commit, versions

if TYPE_CHECKING:
    from iterinv.evaluate.ray_workers import RayWorkers

PICTURES = "pictures"
"""The folder of the pictures that are kept."""

ENGINES = "local", "ray"

SHOWN = 12
"""Tasks whose pictures are kept, unless another number is given."""


class Progress(NamedTuple):
    """``done`` of ``total`` rows are there, those of earlier runs included; ``seconds_left`` is ``None`` until a row of
    this run is done. ``row`` is the latest."""

    done: int
    total: int
    seconds_left: float | None
    row: dict[str, Any] | None = None


def evaluate(
    evaluation: Evaluation, folder: Path, processes: int = 1, pictures: int = SHOWN, engine: str = "local"
) -> Iterator[Progress]:
    """Do the rows that a folder lacks; yield the progress at the start and after each. At the end ``results.jsonl`` is
    sorted.

    The pictures of ``pictures`` tasks are kept. ``engine`` is ``local``, for ``processes`` on this machine, or ``ray``,
    for as many actors of Ray's (:mod:`iterinv.evaluate.ray_workers`), whose machines share ``folder`` and the
    dataset's. Rows do not depend on it. Raises ``ValueError`` for settings that cannot work or that differ from
    the folder's, ``OSError`` where another run writes to it, and :class:`iterinv.files.CannotWrite`.
    """
    evaluation.check()
    if processes < 1 or pictures < 0:
        raise ValueError(f"processes is {processes} and pictures {pictures}; they are at least 1 and 0")
    dataset = open_dataset(evaluation.data, evaluation.count)
    if evaluation.editors and not any(dataset.edited):
        raise ValueError(
            f"no task of {evaluation.data} has a target prompt, so there is nothing to edit: leave out --editors"
        )
    if engine not in ENGINES:
        raise ValueError(f"there is no engine {engine!r}: the engines are {', '.join(ENGINES)}")
    folder = folder.resolve()
    if evaluation.threads is None and (processes > 1 or engine == "ray"):
        evaluation = replace(evaluation, threads=1)
    with exclusive(folder), _workers(engine, evaluation, processes) as workers:
        settings = settings_of(evaluation, dataset, workers.facts(), pictures)
        settle(folder, settings)
        _write_manifest(folder, {**settings, **dict(evaluation.about)}, processes, len(dataset))
        done = {Key.of(row) for row in rows(folder)}
        left = sum(len(job.editors) for job in jobs(evaluation, dataset, pictures, done))
        total = _count(evaluation, dataset)
        before = total - left
        yield Progress(before, total, None if left else 0.0)
        began = time.monotonic()
        todo = jobs(evaluation, dataset, pictures, done)
        for k, (row, seconds, shown) in enumerate(workers.rows(todo), 1):
            _keep(folder / PICTURES / row["task"], shown, _about(settings, row))
            append_line(folder / RESULTS, row)
            timing = {
                "task": row["task"],
                "method": row["method"],
                "editor": row["editor"],
                "seconds": round(seconds, 3),
            }
            append_line(folder / TIMINGS, timing)
            yield Progress(before + k, total, (left - k) * (time.monotonic() - began) / k, row)
        sort(folder)


def _workers(engine: str, evaluation: Evaluation, count: int) -> Workers | RayWorkers:
    if engine == "local":
        return Workers(evaluation, count)
    from iterinv.evaluate.ray_workers import RayWorkers

    return RayWorkers(evaluation, count)


def budget_there(folder: Path, seconds: float) -> int | None:
    """The budget of calls of the run in a folder that was given so many seconds; ``None`` where there is no such
    run. A machine is never twice of the same speed, and a run goes on with the settings that it began with."""
    try:
        there = json.loads((folder / SETTINGS).read_bytes())
        return int(there["budget"]) if there["seconds"] == seconds else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def settings_of(evaluation: Evaluation, dataset: Dataset, facts: dict[str, Any], pictures: int) -> dict[str, Any]:
    """Everything that rows depend on; two runs in one folder have the same. The number of tasks is not among it, so
    that a run may be continued with more. Where onnxruntime computes, its version is in ``kernels``."""
    return {
        "dataset": dataset.name,
        "content": dataset.digest,
        "methods": ",".join(evaluation.methods),
        "editors": ",".join(evaluation.editors),
        "metrics": ",".join(evaluation.metrics),
        "steps": evaluation.steps,
        "guidance": guidance
        if isinstance(guidance := evaluation.guidance, (int, float))
        else ",".join(map(str, guidance)),
        "seed": evaluation.seed,
        "fit": evaluation.fit,
        "give_mask": evaluation.give_mask,
        "pictures": pictures,
        **({"seconds": evaluation.seconds} if evaluation.seconds is not None else {}),
        **({"metric_weights": evaluation.weights.name} if evaluation.weights else {}),
        **({"recipes": {name: repr(each) for name, each in evaluation.recipes}} if evaluation.recipes else {}),
        **facts,
        **{name: number for name, number in versions().items() if name not in (*facts, "onnxruntime")},
    }


def jobs(evaluation: Evaluation, dataset: Dataset, pictures: int, done: set[Key]) -> Iterator[Job]:
    """Yield the jobs that have rows which are not done, task after task."""
    kept = _chosen(dataset.keys, pictures)
    for k, key in enumerate(dataset.keys):
        editors = (None, *evaluation.editors) if dataset.edited[k] else (None,)
        for method in evaluation.methods:
            if missing := tuple(each for each in editors if Key(key, method, each or "") not in done):
                yield Job(k, method, missing, k in kept)


def _keep(folder: Path, pictures: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write pictures with settings: of a result, those that made it."""
    if pictures:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        given = {"task": about["task"]} if name in ("source", "truth") else about
        images.save(picture, folder / f"{name}.png", {"what": f"a picture of an evaluation, {name}", **given})


def _about(settings: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The settings that the pictures of a row carry."""
    made = {key: row[key] for key in ("task", "method", "editor")}
    made |= {key: settings[key] for key in ("dataset", "steps", "guidance", "seed", "fit")}
    return made | {"weights": settings["model"]}


def _count(evaluation: Evaluation, dataset: Dataset) -> int:
    """The number of rows when all are done."""
    return len(evaluation.methods) * (len(dataset) + len(evaluation.editors) * sum(dataset.edited))


def _chosen(keys: Sequence[str], count: int) -> set[int]:
    """The numbers of ``count`` tasks, drawn by their keys: the same in every run, and not all of the first kind."""
    return set(sorted(range(len(keys)), key=lambda k: hashlib.sha256(keys[k].encode()).digest())[:count])


def _write_manifest(folder: Path, settings: dict[str, Any], processes: int, tasks: int) -> None:
    """Write ``manifest.json``: the settings, and the facts about the run that rows do not depend on."""
    machine = {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}
    write_json(
        folder / "manifest.json",
        {**settings, "tasks": tasks, "processes": processes, "commit": commit(), "machine": machine},
    )

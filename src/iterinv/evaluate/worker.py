"""Work on the tasks of a dataset: one worker holds a cascade and makes the rows of a task, one for the reconstruction
and one for each editor."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iterinv import images
from iterinv.cascade import Cascade
from iterinv.edits import EDITORS
from iterinv.evaluate import measures
from iterinv.evaluate.datasets import Task, open_dataset
from iterinv.evaluate.recipes import Inverting, Recipe, Reconstructed
from iterinv.images import Canvas
from iterinv.masks import resized, to_mask
from iterinv.methods import plans
from iterinv.models import CountingDenoiser
from iterinv.observer import Silent
from iterinv.plans import Plan


@dataclass(frozen=True)
class Evaluation:
    """The settings of an evaluation. ``load`` loads the cascade; ``size`` is that of its last stage that is run. A
    method is a name, or names with colons between them, one for each stage; ``guidance`` is one for all or for each.
    A method that ``recipes`` names is that recipe. With a ``budget`` a method takes as many steps at each stage as fit
    into so many network calls there (:func:`iterinv.costs.within`), and ``steps`` counts for nothing;
    ``seconds`` are those that the budget was made of, if it was (:func:`iterinv.estimates.calls_in`).
    ``weights`` is a folder of weights of metrics that are in no cache.

    ``editors`` edit each task that has a target; with ``give_mask`` they are given the dataset's region in place of
    their own. ``count`` is the number of tasks, ``None`` for all of a folder. Each process computes with ``threads``
    threads, by default as many as torch takes where there is one process, and one where there are several. ``about``
    holds names and values for the manifest, on how the model is loaded.
    """

    data: str
    load: Callable[[], Cascade]
    methods: tuple[str, ...] = ("bdia",)
    editors: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("psnr", "ssim", "mse")
    steps: int = 20
    guidance: float | tuple[float, ...] = 1.0
    seed: int = 0
    fit: str = "pad"
    size: int | None = None
    count: int | None = None
    give_mask: bool = False
    threads: int | None = None
    about: tuple[tuple[str, str], ...] = ()
    recipes: tuple[tuple[str, Recipe], ...] = ()
    budget: int | None = None
    seconds: float | None = None
    weights: Path | None = None

    def check(self) -> None:
        """Raise ``ValueError`` for names and settings that there are not, and ``ModuleNotFoundError`` for metrics that
        are not installed. No model is loaded."""
        for name, values in (("methods", self.methods), ("metrics", self.metrics)):
            if not values:
                raise ValueError(f"there are no {name}: give one or more, with commas between them")
        for name, values in (("method", self.methods), ("editor", self.editors), ("metric", self.metrics)):
            if twice := {each for each in values if values.count(each) > 1}:
                raise ValueError(f"the {name} {min(twice)} is given twice: give it once")
        for method in self.methods:
            self.recipe(method)
        for editor in self.editors:
            if editor not in EDITORS:
                raise ValueError(f"there is no editor {editor!r}: the editors are {', '.join(EDITORS)}")
        measures.metrics_of(self.metrics, self.weights)
        images.check_fit(self.fit)

    def recipe(self, method: str) -> Recipe:
        """The recipe of a method's name. Raises ``ValueError`` as :func:`iterinv.methods.plans` does."""
        if own := dict(self.recipes).get(method):
            return own
        names = method.split(":")
        how = plans(method if len(names) == 1 else names, self.steps, self.guidance)
        return Inverting(how if isinstance(how, Plan) else tuple(how))


class Job(NamedTuple):
    """The missing rows of a task by one method: ``editors`` holds names, and ``None`` for the reconstruction. With
    ``pictures`` the rows come with theirs."""

    task: int
    method: str
    editors: tuple[str | None, ...]
    pictures: bool = False


class Result(NamedTuple):
    """A row, the seconds that it took, and its pictures (h, w, 3) uint8 by name where they are wanted."""

    row: dict[str, Any]
    seconds: float
    pictures: dict[str, np.ndarray]


class Worker:
    """A cascade whose network calls are counted, and the dataset."""

    def __init__(self, evaluation: Evaluation) -> None:
        if evaluation.threads is not None:
            import torch

            torch.set_num_threads(evaluation.threads)
        self.evaluation, self.dataset = evaluation, open_dataset(evaluation.data, evaluation.count)
        cascade = evaluation.load()
        cascade = cascade if evaluation.size is None else cascade.up_to(evaluation.size)
        self.counters = [CountingDenoiser(stage.denoiser) for stage in cascade.stages]
        stages = zip(cascade.stages, self.counters, strict=True)
        self.cascade = replace(cascade, stages=tuple(replace(stage, denoiser=each) for stage, each in stages))
        self.recipes = {name: self._checked(name) for name in evaluation.methods}

    def _checked(self, name: str) -> Recipe:
        """The recipe of a method's name, within the budget. Raises ``ValueError`` where it cannot run."""
        recipe = self.evaluation.recipe(name)
        try:
            recipe.check(self.cascade)
            if self.evaluation.budget is not None:
                recipe = recipe.within(self.cascade, self.evaluation.budget)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return recipe

    def facts(self) -> dict[str, Any]:
        """The facts about the model and the arithmetic that rows depend on."""
        arithmetic = asdict(self.cascade.stages[0].arithmetic(1))
        facts = {"model": self.cascade.fingerprint, "px": self.cascade.size, **arithmetic}
        if self.evaluation.budget is None:
            return facts
        steps = {name: ",".join(map(str, each.steps(self.cascade))) for name, each in self.recipes.items()}
        return {**facts, "budget": self.evaluation.budget, "steps": steps}

    def rows(self, job: Job) -> Iterator[Result]:
        """Yield the rows of a job, the reconstruction's first. A picture that fails gives rows with the reason in
        ``error``."""
        key, began = self.dataset.keys[job.task], time.perf_counter()
        kind, made, picture, error = "", None, None, None
        try:
            task = self.dataset.make(job.task, self.cascade.size)
            kind, options = task.kind, self.evaluation
            picture = hashlib.sha256(images.to_array(task.picture)[0].tobytes()).hexdigest()[:16]
            with self._counted() as calls:
                made = self.recipes[job.method](self.cascade, task, options.seed, options.fit)
        except Exception as failure:
            error = _said(failure)
        head = {"task": key, "kind": kind, "method": job.method}
        for editor in sorted(job.editors, key=lambda each: each or ""):
            pictures: dict[str, np.ndarray] = {}
            values: dict[str, Any] = {"metrics": None, "calls": None, "error": error}
            if made is not None:
                try:
                    if editor is None:
                        metrics, pictures = self._reconstructed(job.method, task, made)
                        values = {"metrics": metrics, "calls": calls, "error": None}
                    else:
                        values, pictures = self._edited(job.method, task, made, editor)
                except Exception as failure:
                    values["error"] = _said(failure)
            row = {**head, "editor": editor, "picture": picture, **values}
            yield Result(row, time.perf_counter() - began, pictures if job.pictures else {})
            began = time.perf_counter()

    @contextmanager
    def _counted(self) -> Iterator[dict[str, int]]:
        """Yield a dictionary that holds the network calls of the block when it ends."""
        for counter in self.counters:
            counter.forward = counter.backward = 0
        calls: dict[str, int] = {}
        yield calls
        calls |= {way: sum(getattr(each, way) for each in self.counters) for way in ("forward", "backward")}

    def _reconstructed(
        self, method: str, task: Task, made: Reconstructed
    ) -> tuple[dict[str, measures.Value], dict[str, np.ndarray]]:
        """The metrics of a reconstruction, and its pictures."""
        canvas = made.canvas
        source, again = canvas.crop(canvas.image), canvas.crop(canvas.place(made.picture))
        options = self.evaluation
        metrics = measures.of_reconstruction(options.metrics, source, again, task.prompt, options.weights)
        return metrics, {"source": source, method: again}

    def _edited(
        self, method: str, task: Task, made: Reconstructed, editor: str
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The metrics and the network calls of an edit, and its pictures."""
        if made.inversion is None:
            raise ValueError(f"{method} makes no inversion of all stages, so there is nothing to edit")
        canvas, mask = made.canvas, task.mask if self.evaluation.give_mask else None
        with self._counted() as calls:
            edit = self.cascade.edit(made.inversion, task.target or "", editor, mask=mask, observer=Silent())
        source, edited = canvas.crop(canvas.image), canvas.crop(canvas.place(edit.pictures[-1]))
        truth, inside, prompts = None, None, (task.prompt, task.target or "")
        if task.truth is not None:
            true, _ = Canvas.fit(images.to_array(task.truth)[0], canvas.extent, self.evaluation.fit)
            truth = true.crop(true.image)
            if truth.shape != source.shape:
                raise ValueError(f"the true answer has another shape than the picture {task.key}")
        if task.mask is not None:
            inside = canvas.crop(resized(to_mask(task.mask), *canvas.image.shape[:2])) > 0
        options = self.evaluation
        metrics = measures.of_edit(options.metrics, source, edited, inside, truth, prompts, options.weights)
        pictures = {"source": source, f"{method}+{editor}": edited} | ({} if truth is None else {"truth": truth})
        return {"metrics": metrics, "calls": calls, "error": None}, pictures


def _said(error: Exception) -> str:
    """An error as one line: the sentence of those that are meant for users, else with the name of its class."""
    text = " ".join(str(error).split())
    known = isinstance(error, (ValueError, OSError, ArithmeticError, MemoryError)) and text
    return text if known else f"{type(error).__name__}: {text}"

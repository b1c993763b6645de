"""Work on the tasks of a dataset: one worker holds a cascade and makes the rows of a task, one for the reconstruction
and one for each editor."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iterinv import images
from iterinv.cascade import Cascade
from iterinv.edits import EDITORS
from iterinv.evaluate import measures
from iterinv.evaluate.datasets import Task, open_dataset
from iterinv.files import CannotWrite, writing
from iterinv.images import Canvas
from iterinv.inversion import Inversion
from iterinv.masks import resized, to_mask
from iterinv.methods import plans
from iterinv.models import CountingDenoiser
from iterinv.observer import Observer
from iterinv.plans import Plan


@dataclass(frozen=True)
class Evaluation:
    """The settings of an evaluation. ``load`` loads the cascade; ``size`` is that of its last stage that is run. A
    method is a name, or names with colons between them, one for each stage; ``guidance`` is one for all or for each.

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
            self.plans(method)
        for editor in self.editors:
            if editor not in EDITORS:
                raise ValueError(f"there is no editor {editor!r}: the editors are {', '.join(EDITORS)}")
        measures.metrics_of(self.metrics)
        images.check_fit(self.fit)

    def plans(self, method: str) -> Plan | tuple[Plan, ...]:
        """The plan of a method for all stages, or one for each. Raises ``ValueError`` as
        :func:`iterinv.methods.plans` does."""
        names = method.split(":")
        return plans(method if len(names) == 1 else names, self.steps, self.guidance)


class Job(NamedTuple):
    """The missing rows of a task by one method: ``editors`` holds names, and ``None`` for the reconstruction. With
    ``folder`` the pictures are written there."""

    task: int
    method: str
    editors: tuple[str | None, ...]
    folder: Path | None


class Silent(Observer):
    """An observer that ignores notes too: those of thousands of pictures would repeat each other."""

    def on_note(self, text: str) -> None:
        """Ignore a note."""


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
        self.plans = {name: self._checked(name) for name in evaluation.methods}

    def _checked(self, method: str) -> list[Plan]:
        """A plan for each stage. Raises ``ValueError`` for plans that are not as many, and that a stage refuses."""
        how, stages = self.evaluation.plans(method), self.cascade.stages
        each = [how] * len(stages) if isinstance(how, Plan) else list(how)
        if len(each) != len(stages):
            raise ValueError(
                f"{method} has {len(each)} methods or guidance scales for {len(stages)} stages: give one for each"
            )
        for one, stage in zip(each, stages, strict=True):
            one.check(stage)
        return each

    def facts(self) -> dict[str, Any]:
        """The facts about the model and the arithmetic that rows depend on."""
        arithmetic = asdict(self.cascade.stages[0].arithmetic(1))
        return {"model": self.cascade.fingerprint, "px": self.cascade.size, **arithmetic}

    def rows(self, job: Job) -> Iterator[tuple[dict[str, Any], float]]:
        """Yield the rows of a job with the seconds that each took, the reconstruction's first. A picture that fails
        gives rows with the reason in ``error``. Raises :class:`iterinv.files.CannotWrite`."""
        key, began = self.dataset.keys[job.task], time.perf_counter()
        kind, inversion, picture, error = "", None, None, None
        try:
            task = self.dataset.make(job.task, self.cascade.size)
            kind, options = task.kind, self.evaluation
            picture = hashlib.sha256(images.to_array(task.picture)[0].tobytes()).hexdigest()[:16]
            inversion = self.cascade.invert(
                task.picture, task.prompt, self.plans[job.method], seed=options.seed, fit=options.fit, observer=Silent()
            )
        except CannotWrite:
            raise
        except Exception as failure:
            error = _said(failure)
        head = {"task": key, "kind": kind, "method": job.method}
        for editor in sorted(job.editors, key=lambda each: each or ""):
            values: dict[str, Any] = {"metrics": None, "calls": None, "error": error}
            if inversion is not None:
                try:
                    one = self._reconstructed if editor is None else self._edited
                    values = {**one(job, task, inversion, editor or ""), "error": None}
                except CannotWrite:
                    raise
                except Exception as failure:
                    values["error"] = _said(failure)
            yield {**head, "editor": editor, "picture": picture, **values}, time.perf_counter() - began
            began = time.perf_counter()

    def _reconstructed(self, job: Job, task: Task, inversion: Inversion, editor: str) -> dict[str, Any]:
        (canvas,) = inversion.canvases
        source, again = canvas.crop(canvas.image), canvas.crop(canvas.place(inversion.picture))
        calls = [stage.report for stage in inversion.stages]
        self._keep(job, task, {"source": source, job.method: again})
        return {
            "metrics": measures.of_reconstruction(self.evaluation.metrics, source, again, task.prompt),
            "calls": {way: sum(getattr(each, way) for each in calls) for way in ("forward", "backward")},
        }

    def _edited(self, job: Job, task: Task, inversion: Inversion, editor: str) -> dict[str, Any]:
        (canvas,) = inversion.canvases
        for counter in self.counters:
            counter.forward = counter.backward = 0
        mask = task.mask if self.evaluation.give_mask else None
        edit = self.cascade.edit(inversion, task.target or "", editor, mask=mask, observer=Silent())
        source, edited = canvas.crop(canvas.image), canvas.crop(canvas.place(edit.pictures[-1]))
        truth, inside, prompts = None, None, (task.prompt, task.target or "")
        if task.truth is not None:
            true, _ = Canvas.fit(images.to_array(task.truth)[0], canvas.extent, self.evaluation.fit)
            truth = true.crop(true.image)
            if truth.shape != source.shape:
                raise ValueError(f"the true answer has another shape than the picture {task.key}")
        if task.mask is not None:
            inside = canvas.crop(resized(to_mask(task.mask), *canvas.image.shape[:2])) > 0
        pictures = {"source": source, f"{job.method}+{editor}": edited} | ({} if truth is None else {"truth": truth})
        self._keep(job, task, pictures, editor)
        return {
            "metrics": measures.of_edit(self.evaluation.metrics, source, edited, inside, truth, prompts),
            "calls": {way: sum(getattr(each, way) for each in self.counters) for way in ("forward", "backward")},
        }

    def _keep(self, job: Job, task: Task, pictures: dict[str, np.ndarray], editor: str = "") -> None:
        """Write the pictures of a job that keeps them, with settings: of a result, those that made it."""
        if job.folder is None:
            return
        with writing(job.folder):
            job.folder.mkdir(parents=True, exist_ok=True)
        options, about = self.evaluation, {"task": task.key, "prompt": task.prompt, "fit": self.evaluation.fit}
        made = {"method": job.method, "steps": options.steps, "guidance": options.guidance, "seed": options.seed}
        made |= {"edit": {"to": task.target, "editor": editor}} if editor else {}
        for name, picture in pictures.items():
            result = name not in ("source", "truth")
            settings = {"what": f"a picture of an evaluation, {name}", **about, **(made if result else {})}
            images.save(picture, job.folder / f"{name}.png", {**settings, "weights": self.cascade.fingerprint})


def _said(error: Exception) -> str:
    """An error as one line: the sentence of those that are meant for users, else with the name of its class."""
    text = " ".join(str(error).split())
    known = isinstance(error, (ValueError, OSError, ArithmeticError, MemoryError)) and text
    return text if known else f"{type(error).__name__}: {text}"

"""Estimates of the cost of a request before its work: network calls at each stage, and the time that they take here.

The request runs as it is, but on networks that predict a fixed field at once in place of what they learnt. So the
number of calls is exact where it follows from the settings. It is an estimate where a solver or an editor decides by
what the network predicts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from iterinv import costs
from iterinv.cascade import Cascade
from iterinv.conditions import Condition
from iterinv.edits import EDITORS, Pix2PixZero
from iterinv.evaluate.datasets import open_dataset
from iterinv.evaluate.recipes import Recipe, Reconstructed
from iterinv.evaluate.worker import Evaluation
from iterinv.guidance import unguided
from iterinv.inversion import Inversion, facts_of
from iterinv.levels import Level, Prediction
from iterinv.models import Stage
from iterinv.models.toy import gaussian
from iterinv.observer import Silent
from iterinv.presets import any_picture, presets
from iterinv.requests import CompareRequest, EditRequest, InvertRequest, Model, ReopenRequest, SampleRequest
from iterinv.workbench import Workbench

Rehearsed = InvertRequest | EditRequest | CompareRequest | SampleRequest | Sequence[EditRequest]

DEPTH = 3.0
"""The strength of the mark that other prompts than the source prompt leave in the field. So the prompts differ in a
small region and by more than colour, and the network never sees the target prompt: editors that try until it does then
try as often as they may."""

SPREAD = 0.15
"""The spread of the mark, in halves of the picture's sides."""

DECIDING = ("automatic", "adaptive-flow", "redraw", "flow-redraw")
"""The editors that try until the network sees the target prompt: their calls are the most that they take."""


@dataclass(frozen=True)
class StageEstimate:
    """The network calls of a stage, and the seconds of one; ``None`` where its weights are not here. A call is one
    picture's, of which guidance takes two."""

    name: str
    size: int
    forward: int
    backward: int
    seconds_per_call: float | None

    @property
    def seconds(self) -> float | None:
        """The time of all calls; a backward one counts as two."""
        each = self.seconds_per_call
        return None if each is None else (self.forward + 2 * self.backward) * each


@dataclass(frozen=True)
class Estimate:
    """The estimates of all stages, smallest first. ``missing`` names the weights that would have to be fetched;
    ``at_most`` says that an editor may stop earlier."""

    stages: tuple[StageEstimate, ...]
    missing: tuple[str, ...] = ()
    at_most: bool = False

    @property
    def seconds(self) -> float | None:
        """The time of all network calls, ``None`` where weights are missing."""
        each = [stage.seconds for stage in self.stages]
        return None if None in each else sum(value for value in each if value is not None)


def estimate(request: Rehearsed) -> Estimate:
    """Estimate a request, or a list of edits of one source. Nothing is written and no weights are fetched.

    Raises as the request itself does before its work, and ``ValueError`` for an edit of an inversion file of a model
    whose weights are not here.
    """
    first = request if not isinstance(request, Sequence) else request[0]
    source: Any = getattr(first, "source", first)
    stages = _Stages(source.model)
    if stages.missing and isinstance(source, ReopenRequest):
        raise ValueError(
            f"the cost of editing an inversion file is known only with the weights, and {stages.missing[0]} is not here"
        )
    edits = [each for each in _each(request) if isinstance(each, EditRequest)]
    editors = {each.editor or stages.cascade.defaults.editor for each in edits}
    # The networks themselves say which pictures they do not know.
    asks = bool(edits) and not edits[0].force and not stages.missing
    advice = stages.cascade.defaults.picture_advice

    def advice_of(of: Any, picture: Tensor) -> str:
        return advice(stages.cascade.at(*picture.shape[-2:]).stages, picture)

    def work(cascade: Cascade) -> None:
        defaults = replace(cascade.defaults, picture_advice=advice_of) if asks else cascade.defaults
        _run(request, _Rehearsed(cascade=replace(cascade, defaults=defaults)))

    stages.count(work, _source_prompt(first), editors)
    return stages.estimate()


def estimate_evaluation(evaluation: Evaluation, model: Model) -> Estimate:
    """Estimate an evaluation by its first task: the reconstruction of each by every method, and the edits of those that
    have a target. Raises as :func:`estimate` does."""
    evaluation.check()
    dataset, stages = open_dataset(evaluation.data, evaluation.count), _Stages(model, evaluation.size)
    edited = [k for k, each in enumerate(dataset.edited) if each]
    first = dataset.make(edited[0] if edited else 0, stages.cascade.size)
    for method in evaluation.methods:
        recipe = evaluation.recipe(method)
        recipe.check(stages.cascade)
        if evaluation.budget is not None:
            recipe = recipe.within(stages.cascade, evaluation.budget)
        made: list[Reconstructed] = []

        def reconstruct(cascade: Cascade, recipe: Recipe = recipe, made: list[Reconstructed] = made) -> None:
            made.append(recipe(cascade, first, evaluation.seed, evaluation.fit))

        stages.count(reconstruct, first.prompt, times=len(dataset))
        inversion = made[0].inversion
        for editor in evaluation.editors if edited and inversion is not None else ():

            def edit(cascade: Cascade, editor: str = editor, inversion: Inversion | None = inversion) -> None:
                mask = first.mask if evaluation.give_mask else None
                if inversion is not None:
                    cascade.edit(inversion, first.target or "", editor, mask=mask, observer=Silent())

            stages.count(edit, first.prompt, {editor}, times=len(edited))
    return stages.estimate()


def calls_in(seconds: float, model: Model, size: int | None = None) -> int:
    """The number of network calls that fit into so many seconds on this machine, as many at every stage up to ``size``.

    Raises ``ValueError`` where the weights are not here, and where one call of each stage takes longer.
    """
    stages = _Stages(model, size)
    if stages.missing:
        raise ValueError(f"the speed is known only with the weights, and {stages.missing[0]} is not here")
    each = sum(map(_seconds, stages.cascade.stages))
    if not each <= seconds < math.inf:
        raise ValueError(f"{seconds:g} seconds are not enough: one call of each stage takes {each:.2g} s here")
    return int(seconds / each)


class _Stages:
    """The stages of a model, whose networks are left out and whose calls are counted."""

    def __init__(self, model: Model, size: int | None = None) -> None:
        preset = presets().get(model.name) if isinstance(model.name, str) else None
        missing = [] if preset is None else preset.missing
        self.missing = tuple(str(getattr(each, "name", each)) for each in missing)
        if preset is not None and missing:
            self.sizes = preset.pixels
            if size is not None and size not in self.sizes:
                raise ValueError(f"no stage is of {size} px: the sizes are {', '.join(map(str, self.sizes))}")
            self.sizes = self.sizes if size is None else self.sizes[: self.sizes.index(size) + 1]
            self.cascade = _published(str(model.name), len(self.sizes))
        else:
            self.cascade = model.load()
            self.cascade = self.cascade if size is None else self.cascade.up_to(size)
            self.sizes = tuple(stage.size for stage in self.cascade.stages)
        self.forward, self.backward = ([0] * len(self.cascade.stages) for _ in range(2))
        self.at_most = False

    def count(
        self, work: Callable[[Cascade], None], prompt: str | None, editors: Set[str] = frozenset(), times: int = 1
    ) -> None:
        """Add the calls of some work, so many ``times``. It runs on a cascade without its networks; ``prompt`` is the
        source prompt of an edit by ``editors``."""
        self.at_most = self.at_most or not editors.isdisjoint(DECIDING)
        # One editor takes the maps of attention that the first network computes.
        reads = any(EDITORS.get(name) is Pix2PixZero for name in editors)
        hollow = [
            Hollow(stage.denoiser, None if prompt is None else stage.embed([prompt]).get("text"), k == 0 and reads)
            for k, stage in enumerate(self.cascade.stages)
        ]
        stages = tuple(
            replace(stage, denoiser=denoiser) for stage, denoiser in zip(self.cascade.stages, hollow, strict=True)
        )
        work(Cascade(stages, replace(self.cascade.defaults, picture_advice=any_picture)))
        for k, each in enumerate(hollow):
            self.forward[k] += times * each.forward
            self.backward[k] += times * each.backward

    def estimate(self) -> Estimate:
        """The estimate of all that was counted."""
        each = [None if self.missing else _seconds(stage) for stage in self.cascade.stages]
        names = [stage.name for stage in self.cascade.stages]
        rows = zip(names, self.sizes, self.forward, self.backward, each, strict=True)
        return Estimate(tuple(StageEstimate(*row) for row in rows), self.missing, self.at_most)


class Hollow:
    """A denoiser that predicts a fixed field of the sample and the prompt in place of its network's, and counts calls.

    ``source`` is the encoded source prompt (1, tokens, channels), which leaves no mark in the field. Other attributes
    are the network's. With ``real`` it calls the network too, whose prediction it returns.
    """

    def __init__(self, denoiser: Any, source: Tensor | None = None, real: bool = False) -> None:
        self.denoiser, self.source, self.real, self.forward, self.backward = denoiser, source, real, 0, 0
        self.field = gaussian()

    def __call__(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        self.forward += len(x)
        prediction = self.denoiser(x, level, condition) if self.real else self._predict(x, level, condition)
        if prediction.eps.requires_grad:
            rows = len(x)
            prediction.eps.register_hook(lambda _: self._went_back(rows))
        return prediction

    def _predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        eps = self.field(x, level).eps
        if self.source is not None and "text" in condition:
            rows, columns = (torch.linspace(-1, 1, side, device=x.device, dtype=x.dtype) for side in x.shape[-2:])
            mark = DEPTH * torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * SPREAD**2))
            other = (condition["text"] != self.source).flatten(1).any(1).to(x)
            # Signs that vary with the sample agree with no error of the prediction, so that none makes up for them.
            eps = eps + other.reshape(-1, 1, 1, 1) * mark * torch.sin(997 * x.detach()).sign()
        return Prediction.from_eps(x, level, eps)

    def _went_back(self, rows: int) -> None:
        self.backward += rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)


@dataclass(frozen=True)
class _Rehearsed(Model):
    """A model that is loaded already."""

    cascade: Any = None

    def load(self) -> Cascade:
        cascade: Cascade = self.cascade
        return cascade


def _each(request: Any) -> list[Any]:
    return list(request) if isinstance(request, Sequence) else [request]


def _source_prompt(request: Any) -> str | None:
    """The source prompt of an edit; ``None`` for a request without one."""
    if not isinstance(request, EditRequest):
        return None
    if isinstance(request.source, InvertRequest):
        return request.source.prompt
    return str(facts_of(request.source.inversion)["prompts"][0])


def _run(request: Any, model: Model) -> None:
    """Run a request on a model, to its end and without a trace."""
    bench = Workbench()
    first, *_ = _each(request)
    if isinstance(first, EditRequest):
        source = replace(first.source, model=model)
        edits = [replace(each, source=source, keep_path=False) for each in _each(request)]
        for _ in bench.edit_each(edits):
            pass
    elif isinstance(first, CompareRequest):
        for _ in bench.compare(replace(first, source=replace(first.source, model=model))):
            pass
    else:
        work: Callable[[Any], Any] = bench.invert if isinstance(first, InvertRequest) else bench.sample
        work(replace(first, model=model))


def _published(name: str, count: int) -> Cascade:
    """The embedded stages with the schedules of the first ``count`` of a published cascade, whose weights are not
    here."""
    embedded = Model().load()
    stages = []
    for k, (_, family, blueprint) in enumerate(costs.blueprints(name)[:count]):
        stage = embedded.stages[min(k, len(embedded.stages) - 1)]
        stages.append(replace(stage, schedule=family.schedule(blueprint.schedule), name="I" * (k + 1)))
    return Cascade(tuple(stages), presets()[name].defaults)


@torch.no_grad()
def _seconds(stage: Stage) -> float:
    """Measure the seconds of a network call of one picture: the quicker of two, after a first."""
    low = torch.zeros(1, 3, *stage.extent)
    condition = stage.condition("a picture", None if stage.low_level is None else low)
    field, level = unguided(stage.denoiser, condition), stage.schedule.grid(10)[4]
    x = level.noise_scale * torch.ones(1, *stage.shape, device=stage.device)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        field(x, level).eps.sum().item()
        times.append(time.perf_counter() - began)
    return min(times[1:])

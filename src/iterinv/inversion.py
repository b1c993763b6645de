"""How a stage is run and inverted, and what inverting leaves behind.

A method is a rule, a way of inverting it, and a refinement or none.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from iterinv.conditions import Condition
from iterinv.guidance import CFG, Denoiser, Guidance
from iterinv.inverters import Inverter, Undo
from iterinv.levels import Field, Grid, State
from iterinv.models import CountingDenoiser, Stage
from iterinv.roots import rms
from iterinv.steps import BDIA, OneStep, Step, Wrapped
from iterinv.steps.run import NotFinite, run

Progress = Callable[[str, str, int, int | None], None]
"""``progress(stage, doing, done, total)``, called after every step; ``total`` is ``None`` while it is not known.

An exception that it raises stops the work.
"""

WILD = 1e4
"""By how much rounding may be multiplied before the noise found is far from a sampler's."""

LARGEST_GROWTH = {"float32": 1e4, "float64": 1e9}
"""By how much rounding may be multiplied and still leave the 8-bit picture alone."""

_T = TypeVar("_T")


class Refinement(ABC):
    """A change of an inversion made without guidance, so that a rerun under the plan's guidance stays on its path.

    It is called with the stage, whose network calls are counted, and the inversion. A subclass is a frozen dataclass.
    """

    @abstractmethod
    def __call__(self, stage: Stage, found: StageInversion) -> StageInversion: ...

    def fitted(self, found: StageInversion) -> dict[str, Tensor]:
        """The tensors (steps, ...) of one picture that were computed, which an inversion file keeps, by name."""
        return {}

    def restored(self, stage: Stage, found: StageInversion, fitted: Mapping[str, Tensor]) -> StageInversion:
        """The refined inversion with fitted tensors from a file. Raises ``ValueError`` for tensors of other shapes."""
        return self(stage, found)


@dataclass(frozen=True)
class Plan:
    """How a stage is run and inverted.

    ``inverter`` finds the path of ``rule`` backwards. ``guidance`` is the classifier-free guidance scale of inversion and
    reconstruction alike, 1 for none; with a refinement that of reconstruction, inversion having none. ``spacing`` is one of
    :data:`iterinv.schedule.SPACINGS` for a schedule of discrete timesteps, ``None`` for the schedule's own. ``dtype`` is the
    state's, whatever the network's. ``method`` is the name it goes by, no part of what it computes: plans compare without it.
    Raises ``ValueError`` for parts that do not fit each other, and for settings that leave nothing to do.
    """

    rule: Step = dataclasses.field(default_factory=BDIA)
    inverter: Inverter = dataclasses.field(default_factory=Undo)
    refine: Refinement | None = None
    steps: int = 20
    guidance: float = 1.0
    spacing: str | None = None
    dtype: str = "float64"
    method: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        self.inverter.check(self.rule)
        if self.refine is not None and (self.inverter.exact or not isinstance(self.rule, OneStep)):
            raise ValueError(f"{type(self.refine).__name__} needs a one-step rule that does not undo itself, such as DDIM")
        if self.dtype not in LARGEST_GROWTH:
            raise ValueError(f"a state in {self.dtype} costs the picture: use float32 or float64")
        if self.steps <= self.first:
            raise ValueError(
                f"{self.steps} step(s) leave {type(self.rule).__name__} nothing to undo: take {self.first + 1} or more"
            )
        if not math.isfinite(self.guidance):
            raise ValueError(f"guidance is {self.guidance}; it is a finite number, 1 for none")
        if not self.method:
            refine = type(self.refine).__name__ if self.refine else ""
            parts = [part for part in (type(self.rule).__name__, self.inverter.name, refine) if part]
            object.__setattr__(self, "method", "+".join(parts))

    @property
    def first(self) -> int:
        """The index of the level that a run starts from."""
        return self.inverter.first(self.rule)

    def check(self, stage: Stage) -> Grid:
        """The grid of a stage. Raises ``ValueError`` where undoing it would multiply rounding beyond what the dtype carries."""
        grid, limit = stage.schedule.grid(self.steps, self.spacing), LARGEST_GROWTH[self.dtype]
        if (growth := self.inverter.growth(self.rule, grid)) > limit:
            grids = (stage.schedule.grid(n, self.spacing) for n in range(max(self.first + 1, 2), self.steps))
            fits = [len(each) - 1 for each in grids if self.inverter.growth(self.rule, each) <= limit]
            ways = [f"{max(fits)} steps"] if fits else []
            if isinstance(self.rule, BDIA):
                ways.append(f"a gamma of {math.ceil(1e3 * limit ** (-1 / (self.steps - self.first))) / 1e3:.3f} or more")
            raise ValueError(
                f"undoing {self.steps} steps of {self.rule} multiplies rounding by {growth:.0e}, more than {self.dtype} "
                f"carries; take {' or '.join([*ways, 'another method'])}"
            )
        return grid


@dataclass(frozen=True)
class StageReport:
    """What inverting and reconstructing at one stage cost, and how well the two met. ``seconds`` are of the last run.

    ``residual_max`` is the largest rms, over the levels, between the states found by inverting and those of the rerun.
    ``root_error_max`` is the largest error that the root finder measured, ``None`` where none is measured.
    """

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0
    residual_max: float | None = None
    root_error_max: float | None = None


@dataclass(frozen=True, eq=False)
class Corrected(Wrapped):
    """A rule, and after each of its steps an offset: ``step(...) + offsets[i]``."""

    offsets: tuple[Tensor, ...]

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        new, *rest = self.rule.step(field, state, grid, i)
        return (new + self.offsets[i], *rest)


@dataclass(frozen=True, eq=False)
class StageInversion:
    """The inversion of one stage: ``state`` at ``grid[start]``, the conditions and the guidance that rerun the picture.

    ``path`` holds the states that an editor may start from and blend with, one for each level of the grid, noisy to clean:
    those of the rerun for a reversible rule, those found for a solved one. ``picture`` is the reconstruction (batch, 3, size,
    size), unclamped. ``offsets``, one a step, are what a refinement adds after it. ``lost`` is what a latent stage's codec
    loses of the picture: it is added to what the states decode to, and is the only part that was not inverted.
    """

    plan: Plan
    grid: Grid
    condition: Condition
    negative: Condition
    guidance: Guidance
    start: int
    state: State
    path: tuple[Tensor, ...] | None = None
    picture: Tensor | None = None
    report: StageReport = StageReport()
    offsets: tuple[Tensor, ...] | None = None
    lost: Tensor | None = None

    @property
    def noise(self) -> Tensor:
        """The terminal noise (batch, channels, h, w): the state at the noisiest level."""
        return self.state[-1]

    def field(self, denoiser: Denoiser) -> Field:
        """The field that it is rerun under."""
        return self.guidance(denoiser, self.condition, self.negative)

    @property
    def rule(self) -> Step:
        """The rule that it is rerun by."""
        return self.plan.rule if self.offsets is None else Corrected(self.plan.rule, self.offsets)

    def row(self, k: int) -> StageInversion:
        """The inversion of the ``k``-th picture of a batch alone."""

        def rows(tensors: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
            return None if tensors is None else tuple(x[k : k + 1] for x in tensors)

        condition = self.condition.row(k)  # guidance asks whether the two are one
        negative = condition if self.negative is self.condition else self.negative.row(k)
        picture, lost = (None if x is None else x[k : k + 1] for x in (self.picture, self.lost))
        state = tuple(x[k : k + 1] for x in self.state)
        return replace(
            self, condition=condition, negative=negative, guidance=self.guidance.row(k), state=state,
            path=rows(self.path), picture=picture, offsets=rows(self.offsets), lost=lost,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Inversion:
    """A picture turned back, stage by stage. It can be saved, reopened, rerun and edited."""

    prompt: str
    seed: int
    fingerprint: str
    stages: tuple[StageInversion, ...]

    @property
    def picture(self) -> Tensor:
        """The reconstruction at the largest stage (batch, 3, size, size), clamped to [-1, 1]."""
        picture = self.stages[-1].picture
        if picture is None:
            raise ValueError("this inversion was not rerun yet: call Cascade.rerun")
        return picture.clamp(-1, 1)


def told(items: Iterable[_T], stage: Stage, doing: str, total: int, progress: Progress | None) -> Iterator[_T]:
    """The items, each told of as it comes."""
    for done, item in enumerate(items, 1):
        if progress is not None:
            progress(stage.name, doing, done, total)
        yield item


def invert_stage(
    stage: Stage, plan: Plan, condition: Condition, x: Tensor, seed: int = 0, progress: Progress | None = None
) -> StageInversion:
    """Invert a picture (batch, 3, size, size) at one stage, and rerun it. ``seed`` draws what a scattered path needs.

    Raises :class:`iterinv.steps.run.NotFinite`.
    """
    with annotate_errors(stage, plan):
        return _invert(stage, plan, condition, x, seed, progress)


def finish(
    work: Generator[object, None, _T], stage: Stage, doing: str, total: int | None = None, progress: Progress | None = None
) -> _T:
    """Run a generator to its end, report every step, and return its result.

    ``total`` is the largest number of steps; the last report says that all were done.
    """
    done = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            if progress is not None and done != total:
                progress(stage.name, doing, total or done, total or done)
            result: _T = end.value
            return result
        done += 1
        if progress is not None:
            progress(stage.name, doing, done, total)


@contextmanager
def annotate_errors(stage: Stage, plan: Plan, editor: str = "") -> Iterator[None]:
    """Add the stage, the method and the editor to the message of a state that is not finite and of memory that ran out."""
    where = f"stage {stage.name} by {plan.method}" + (f", edited by {editor}" if editor else "")
    try:
        yield
    except (NotFinite, OverflowError) as error:
        layer = stage.first_nonfinite_layer(error.sample, error.level) if isinstance(error, NotFinite) else ""
        raise NotFinite(f"{where}: {error}{layer}") from None
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise MemoryError(
            f"{where} ran out of memory on {stage.device}: say how much there is, "
            "load(..., memory='auto') or --memory auto, and networks take turns; `iterinv plan` says what each way needs"
        ) from None


def _invert(stage: Stage, plan: Plan, condition: Condition, x: Tensor, seed: int, progress: Progress | None) -> StageInversion:
    began, grid = time.perf_counter(), plan.check(stage)
    picture = x.to(stage.device, getattr(torch, plan.dtype))
    x = stage.encode(picture)
    lost = None if stage.codec is None else (picture - stage.decode(x)).float()
    calls = CountingDenoiser(stage.denoiser, len(x))
    counted = replace(stage, denoiser=calls)
    negative, guidance = stage.with_prompt(condition, ""), CFG(plan.guidance)
    field = (CFG() if plan.refine else guidance)(calls, condition, negative)
    rule, inverter = plan.rule, plan.inverter
    if not inverter.exact and plan.refine is None and plan.guidance != 1:
        warnings.warn(
            f"{plan.method} inverts under guidance {plan.guidance:g}, where a solver converges slowly or not at all and the "
            "noise leaves its distribution: take guidance 1, a refinement (null-text, negative-prompt) or bdia",
            stacklevel=3,
        )
    if (growth := inverter.growth(rule, grid)) > WILD:
        warnings.warn(
            f"undoing {plan.steps} steps of {plan.method} multiplies what is small by {growth:.0e}: the picture comes back "
            "but its noise may be far from a sampler's (look at noise std); bdia at gamma 1 multiplies nothing",
            stacklevel=3,
        )
    work = inverter(rule, field, x, grid, seed)
    state, path, error = finish(work, stage, "inverting", inverter.updates(rule, grid), progress)
    found = StageInversion(plan, grid, condition, negative, guidance, plan.first, state, lost=lost)
    if plan.refine is not None:
        found = plan.refine(counted, replace(found, path=tuple(path)))
    residual = 0.0
    for i, y in enumerate(rerun_stage(counted, found, progress)):
        residual = max(residual, float(rms(path[i] - y).max()))
        if inverter.exact:
            path[i] = y  # in its place: a path is the largest thing that an inversion holds
    measured = None if error is None else float(error.max())
    report = StageReport(calls.forward, calls.backward, time.perf_counter() - began, residual, measured)
    # A solved path is kept in float32, as a file holds it. That of an exact inverter is the rerun's, computed again at will.
    kept = tuple(path) if inverter.exact else tuple(x.float() for x in path)
    return replace(found, path=kept, picture=reconstructed(stage, found, y), report=report)


def reconstructed(stage: Stage, found: StageInversion, state: Tensor) -> Tensor:
    """The picture of the clean state that a rerun arrives at."""
    return stage.decode(state) if found.lost is None else stage.decode(state) + found.lost


def rerun_stage(stage: Stage, found: StageInversion, progress: Progress | None) -> Iterator[Tensor]:
    """The samples at every level of the grid when an inversion is run again, those that its state starts from included."""
    states = run(found.rule, found.field(stage.denoiser), found.state, found.grid, found.start)
    yield from found.state[found.start : 0 : -1]
    for state in told(states, stage, "reconstructing", len(found.grid) - found.start, progress):
        yield state[0]

"""The inversion of one stage: how it is made, and what it leaves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from iterinv.arithmetic import Arithmetic
from iterinv.conditions import Condition
from iterinv.guidance import CFG, Denoiser, Guidance
from iterinv.images import to_uint8
from iterinv.levels import Field, Grid, State
from iterinv.locks import Lock
from iterinv.models import CountingDenoiser, Stage
from iterinv.observer import Observer
from iterinv.plans import Plan
from iterinv.roots import rms
from iterinv.steps import Step, Wrapped
from iterinv.steps.run import NotFinite, run
from iterinv.typed import Natural, Positive

_T = TypeVar("_T")


@dataclass(frozen=True)
class StageReport:
    """The cost of inverting and reconstructing at one stage, and how well the two met. ``seconds`` are of the last run.

    ``residual_max`` is the largest rms, over the levels, between the states found by inverting and those of the rerun.
    ``root_error_max`` is the largest error that the root finder measured, ``None`` where none is measured.
    ``unguided_rms`` is the rms in [-1, 1] that a rerun without guidance loses of the picture, measured where only the
    rerun is guided; its calls are not counted.
    """

    forward: Natural = 0
    backward: Natural = 0
    seconds: Positive = 0.0
    residual_max: Positive | None = None
    root_error_max: Positive | None = None
    unguided_rms: Positive | None = None


@dataclass(frozen=True, eq=False)
class Origin:
    """The picture (batch, 3, size, size) in [-1, 1] that a stage was inverted from, and what its rerun gave.

    ``pixels`` is a hash of each 8-bit reconstruction, ``arithmetic`` that in which it was made. ``path`` holds the
    states (batch, channels, h, w) that were found, where a file keeps those of an exact inverter.
    """

    picture: Tensor
    seeds: tuple[int, ...]
    pixels: tuple[str, ...]
    arithmetic: Arithmetic
    path: tuple[Tensor, ...] | None = None

    def row(self, k: int) -> Origin:
        """The origin of the ``k``-th picture of a batch."""
        path = None if self.path is None else tuple(x[k : k + 1] for x in self.path)
        picture, seeds, pixels = self.picture[k : k + 1], self.seeds[k : k + 1], self.pixels[k : k + 1]
        return Origin(picture, seeds, pixels, self.arithmetic, path)


@dataclass(frozen=True)
class Rerun:
    """A rerun compared with the inversion it was made from.

    ``pixels`` says whether every 8-bit pixel of the reconstruction is as it was. Where it is not, ``remedy`` says what
    the stage's trajectory is now: ``inverted again`` from the picture, ``kept path`` of the file, ``refined again``, or
    empty where the method promises no exact reconstruction.
    """

    made: Arithmetic
    here: Arithmetic
    pixels: bool
    remedy: str = ""


@dataclass(frozen=True, eq=False)
class Corrected(Wrapped):
    """A rule, and after each of its steps an offset: ``step(...) + offsets[i]``."""

    offsets: tuple[Tensor, ...]

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        new, *rest = self.rule.step(field, state, grid, i)
        return (new + self.offsets[i], *rest)


class Trajectory:
    """The inverted states of one stage and the picture that they end in, computed when they are first asked for.

    ``states`` holds a sample (batch, channels, h, w) for each level of the grid, noisy to clean: those of the rerun for
    an exact inverter, those that were found for a solver. ``picture`` (batch, 3, size, size) is the reconstruction,
    unclamped.
    """

    def __init__(self, compute: Callable[[], tuple[tuple[Tensor, ...], Tensor]]) -> None:
        self._compute, self._lock = compute, Lock()
        self._known: tuple[tuple[Tensor, ...], Tensor] | None = None

    @classmethod
    def of(cls, states: Sequence[Tensor], picture: Tensor) -> Trajectory:
        """A trajectory that is known already."""
        known = cls(lambda: (tuple(states), picture))
        known._all()
        return known

    def _all(self) -> tuple[tuple[Tensor, ...], Tensor]:
        with self._lock:
            if self._known is None:
                self._known = self._compute()
            return self._known

    @property
    def states(self) -> tuple[Tensor, ...]:
        """The samples (batch, channels, h, w), noisy to clean."""
        return self._all()[0]

    @property
    def picture(self) -> Tensor:
        """The reconstruction (batch, 3, size, size), unclamped."""
        return self._all()[1]

    @property
    def known(self) -> bool:
        """Tell whether it was computed already."""
        return self._known is not None

    def row(self, k: int) -> Trajectory:
        """The trajectory of the ``k``-th picture of a batch."""
        if self.known:
            return Trajectory.of([x[k : k + 1] for x in self.states], self.picture[k : k + 1])
        return Trajectory(lambda: (tuple(x[k : k + 1] for x in self.states), self.picture[k : k + 1]))


@dataclass(frozen=True, eq=False)
class StageInversion:
    """The inversion of one stage: ``state`` at ``grid[start]``, the conditions and the guidance that rerun the picture.

    ``offsets``, one a step, are what a refinement adds after it. ``lost`` is what a latent stage's codec loses of the
    picture: it is added to what the states decode to, and is the only part that was not inverted. ``trajectory`` holds
    the states that an editor may start from and blend with, and the reconstruction. ``origin`` is what it was made of;
    ``rerun`` says whether running it again gave the same, ``None`` before.
    """

    plan: Plan
    grid: Grid
    condition: Condition
    negative: Condition
    guidance: Guidance
    start: int
    state: State
    trajectory: Trajectory
    report: StageReport = StageReport()
    offsets: tuple[Tensor, ...] | None = None
    lost: Tensor | None = None
    origin: Origin | None = None
    rerun: Rerun | None = None

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.noise.shape))
        return f"StageInversion({self.plan.method}, {self.plan.steps} steps, guidance {self.plan.guidance:g}, {shape})"

    @property
    def noise(self) -> Tensor:
        """The terminal noise z_T (batch, channels, h, w): the sample at the noisiest level, ``grid[0]``."""
        return self.state[-1]

    @property
    def path(self) -> tuple[Tensor, ...]:
        """The states of the trajectory."""
        return self.trajectory.states

    @property
    def picture(self) -> Tensor:
        """The reconstruction (batch, 3, size, size), unclamped."""
        return self.trajectory.picture

    @property
    def rule(self) -> Step:
        """The rule that it is rerun by."""
        return self.plan.rule if self.offsets is None else Corrected(self.plan.rule, self.offsets)

    def field(self, denoiser: Denoiser) -> Field:
        """The field that it is rerun under."""
        return self.guidance(denoiser, self.condition, self.negative)

    def row(self, k: int) -> StageInversion:
        """The inversion of the ``k``-th picture of a batch alone."""
        condition = self.condition.row(k)  # guidance asks whether the two are one
        return replace(
            self,
            condition=condition,
            negative=condition if self.negative is self.condition else self.negative.row(k),
            guidance=self.guidance.row(k),
            state=tuple(x[k : k + 1] for x in self.state),
            trajectory=self.trajectory.row(k),
            offsets=None if self.offsets is None else tuple(x[k : k + 1] for x in self.offsets),
            lost=None if self.lost is None else self.lost[k : k + 1],
            origin=None if self.origin is None else self.origin.row(k),
        )


def invert_stage(
    stage: Stage,
    plan: Plan,
    condition: Condition,
    picture: Tensor,
    seeds: Sequence[int] = (0,),
    observer: Observer | None = None,
) -> StageInversion:
    """Invert pictures (batch, 3, size, size) at one stage and rerun them. ``seeds``, one a picture, draw what a path
    needs.

    Raises :class:`iterinv.steps.run.NotFinite`, and :class:`NotExact` where an exact rule loses a pixel all the same:
    in float32 states, or though it multiplies no rounding.
    """
    with annotate_errors(stage, plan):
        return _invert(stage, plan, condition, picture, seeds, observer or Observer())


def _invert(
    stage: Stage, plan: Plan, condition: Condition, picture: Tensor, seeds: Sequence[int], observer: Observer
) -> StageInversion:
    began, grid, rule, inverter = time.perf_counter(), plan.check(stage), plan.rule, plan.inverter
    for advice in plan.advice(grid):
        observer.on_note(advice)
    picture = picture.to(stage.device, getattr(torch, plan.dtype))
    x = stage.encode(picture)
    lost = None if stage.codec is None else (picture - stage.decode(x)).float()
    calls = CountingDenoiser(stage.denoiser, len(x))
    counted = replace(stage, denoiser=calls)
    negative, guidance = stage.with_prompt(condition, None), CFG(plan.guidance)
    field = (CFG() if plan.refine else guidance)(calls, condition, negative)
    work = inverter(rule, field, x, grid, seeds)
    total = inverter.updates(rule, grid)
    timesteps = [level.t for level in reversed(grid)] if total <= len(grid) else None
    state, path, error = finish(reported(work, stage, "inverting", observer, total, timesteps))
    known = Trajectory.of(path, picture)
    found = StageInversion(plan, grid, condition, negative, guidance, plan.first, state, known, lost=lost)
    if plan.refine is not None:
        found = plan.refine(counted, found)
    unguided = None
    if plan.refine is not None and plan.guidance != 1 and found.offsets is None:
        *_, clean = rerun_states(stage, replace(found, guidance=CFG()), Observer())
        unguided = float(rms(reconstructed(stage, found, clean) - picture).max())
    residual = float(rms(path[-1] - x).max())  # a state of fixed point is the picture's to its last bit only
    for i, y in enumerate(rerun_states(counted, found, observer)):
        residual = max(residual, float(rms(path[i] - y).max()))
        if inverter.exact:
            path[i] = y  # in its place: a path is the largest thing that an inversion holds
    measured = None if error is None else float(error.max())
    report = StageReport(calls.forward, calls.backward, time.perf_counter() - began, residual, measured, unguided)
    # A solved path is kept in float32, as a file holds it. That of an exact inverter is the rerun's, computed again at
    # will.
    states, again = path if inverter.exact else [x.float() for x in path], reconstructed(stage, found, y)
    if inverter.exact and (plan.dtype == "float32" or inverter.growth(rule, grid) <= 1):
        refuse_loss(picture, again, plan)
    arithmetic = stage.arithmetic(len(x))
    origin = Origin(picture, tuple(seeds), pixels_of(again), arithmetic)
    return replace(found, trajectory=Trajectory.of(states, again), report=report, origin=origin)


def rerun_states(stage: Stage, found: StageInversion, observer: Observer) -> Generator[Tensor, None, None]:
    """The samples (batch, channels, h, w) at every level of the grid when an inversion is run again."""
    yield from found.state[found.start : 0 : -1]
    timesteps = [level.t for level in found.grid[found.start :]]
    states = run(found.rule, found.field(stage.denoiser), found.state, found.grid, found.start)
    for state in reported(states, stage, "reconstructing", observer, len(timesteps), timesteps):
        yield state[0]


def reconstructed(stage: Stage, found: StageInversion, clean: Tensor) -> Tensor:
    """The picture (batch, 3, size, size) of the clean state that a rerun ends in."""
    return stage.decode(clean) if found.lost is None else stage.decode(clean) + found.lost


class NotExact(ArithmeticError):
    """A rule that undoes itself does not give the picture back."""


def refuse_loss(picture: Tensor, again: Tensor, plan: Plan) -> None:
    """Raise :class:`NotExact` where a reconstruction (batch, 3, size, size) is an 8-bit step off the picture or more.

    The rounding of a float state may fall either way in the input of the network. Where the network makes much of that,
    in half precision, under strong guidance, or from a level with nearly no signal, the way back leaves the path.
    """
    lost = int(((again.clamp(-1, 1) - picture).abs() >= 1 / 255).any(1).sum())
    if lost:
        ways = "" if plan.method == "bdia-fixed" else "bdia-fixed, which is exact by construction, or "
        ways += "" if plan.dtype == "float64" else "float64 states, "
        raise NotExact(
            f"{lost} of {picture[:, 0].numel()} pixels do not come back: the network makes too much of the rounding of "
            f"its input; take {ways}float32 networks, less guidance or other steps. If none helps, the network does "
            "not predict the same twice, which `iterinv doctor` tries"
        )


def pixels_of(picture: Tensor) -> tuple[str, ...]:
    """A hash of the 8-bit pixels of each picture (batch, 3, size, size)."""
    return tuple(hashlib.sha256(to_uint8(x[None]).tobytes()).hexdigest() for x in picture)


def rerun_stage(stage: Stage, found: StageInversion, observer: Observer) -> StageInversion:
    """An inversion with the trajectory of a rerun; a solved path stays as it was found.

    The arithmetic of a network depends on threads, the batch and the machine. Where the rerun gives other pixels than
    the inversion had, a method that reconstructs exactly does so here too: by the path in the file if it is there, else
    by inverting the picture again in the arithmetic of here.
    """
    began = time.perf_counter()
    origin, plan = found.origin, found.plan
    with annotate_errors(stage, plan):
        states = tuple(rerun_states(stage, found, observer))
        picture = reconstructed(stage, found, states[-1])
    kept = states if plan.inverter.exact else found.path
    again = replace(found, trajectory=Trajectory.of(kept, picture))
    if origin is not None:
        check = Rerun(origin.arithmetic, stage.arithmetic(len(picture)), pixels_of(picture) == origin.pixels)
        again = replace(again, rerun=check)
        if not check.pixels:
            del states, picture, kept
            again = _remade(stage, again, origin, check, observer)
    return replace(again, report=replace(again.report, seconds=time.perf_counter() - began))


def _remade(stage: Stage, found: StageInversion, origin: Origin, check: Rerun, observer: Observer) -> StageInversion:
    """The inversion in the arithmetic of here, if its method reconstructs exactly; else as it is."""
    refine, picture = found.plan.refine, origin.picture.to(found.noise)
    if origin.path is None and found.plan.inverter.exact:
        made = invert_stage(stage, found.plan, found.condition, picture, origin.seeds, observer)
        return replace(made, rerun=replace(check, remedy="inverted again"))
    if origin.path is None and not (refine is not None and refine.exact):
        return found
    # The last state of the path is the clean one, which is as it was; a decoder's last digits are not.
    path = origin.path or found.path
    clean = stage.decode(path[-1].to(found.noise))
    lost = None if found.lost is None else (picture - clean).float()
    found = replace(found, lost=lost, trajectory=Trajectory.of(path, clean if lost is None else clean + lost))
    if origin.path is not None or refine is None:
        return replace(found, rerun=replace(check, remedy="kept path"))
    refined = refine(stage, replace(found, offsets=None))
    *_, clean = rerun_states(stage, refined, observer)
    states = Trajectory.of(path, reconstructed(stage, refined, clean))
    return replace(refined, trajectory=states, rerun=replace(check, remedy="refined again"))


def reported(
    work: Iterator[State],
    stage: Stage,
    phase: str,
    observer: Observer,
    total: int | None = None,
    timesteps: Sequence[float] | None = None,
) -> Generator[State, None, Any]:
    """Yield the states of some work, report each, and return what a generator returns.

    ``total`` is the largest number of states, ``None`` where it is not known before the end.
    """
    done = 0
    while True:
        try:
            state = next(work)
        except StopIteration as end:
            if 0 < done != total:
                observer.on_step(stage.name, phase, total or done, total or done, None, state)
            return end.value
        done += 1
        timestep = timesteps[done - 1] if timesteps is not None and done <= len(timesteps) else None
        observer.on_step(stage.name, phase, done, total, timestep, state)
        yield state


def finish(work: Generator[object, None, _T]) -> _T:
    """Run a generator to its end and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result


@contextmanager
def annotate_errors(stage: Stage, plan: Plan, editor: str = "") -> Iterator[None]:
    """Add the stage, the method and the editor to the message of a state that is not finite and of memory that ran
    out."""
    where = f"stage {stage.name} by {plan.method}" + (f", edited by {editor}" if editor else "")
    try:
        yield
    except (NotFinite, OverflowError) as error:
        layer = stage.first_nonfinite_layer(error.sample, error.level) if isinstance(error, NotFinite) else ""
        raise NotFinite(f"{where}: {error}{layer}") from None
    except NotExact as error:
        raise NotExact(f"{where}: {error}") from None
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise MemoryError(
            f"{where} ran out of memory on {stage.device}: say how much there is, "
            "load(..., memory='auto') or --memory auto, and networks take turns; `iterinv cost` says what each "
            "way needs"
        ) from None

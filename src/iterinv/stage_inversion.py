"""The inversion of one stage: its computation and its result."""

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
from iterinv.inverters.inverter import Walk
from iterinv.levels import Field, Grid, State
from iterinv.models import CountingDenoiser, Stage
from iterinv.observer import Observer
from iterinv.plans import Plan
from iterinv.roots import rms
from iterinv.steps import Step, Wrapped
from iterinv.steps.run import NotFinite, run
from iterinv.trajectory import Deferred, Known, StageReport, Trajectory, Walked, row_of

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Origin:
    """The picture (batch, 3, h, w) in [-1, 1] that a stage was inverted from, and a record of its rerun.

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
    """A comparison of a rerun with the inversion it was made from.

    ``pixels`` says whether every 8-bit pixel of the reconstruction is as it was. Where it is not, ``remedy`` names the
    stage's new trajectory: ``inverted again`` from the picture, ``kept path`` of the file, ``refined again``, or
    empty where the method promises no exact reconstruction.
    """

    made: Arithmetic
    here: Arithmetic
    pixels: bool
    remedy: str = ""


@dataclass(frozen=True, eq=False)
class Corrected(Wrapped):
    """A rule with an offset added after each of its steps: ``step(...) + offsets[i]``."""

    offsets: tuple[Tensor, ...]

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        new, *rest = self.rule.step(field, state, grid, i)
        return (new + self.offsets[i], *rest)


@dataclass(frozen=True, eq=False)
class StageInversion:
    """The inversion of one stage: ``state`` at ``grid[start]``, the conditions and the guidance that rerun the picture.

    ``offsets``, one a step, are what a refinement adds after it. ``lost`` is what a latent stage's codec loses of the
    picture: it is added to what the states decode to, and is the only part that was not inverted. ``trajectory`` holds
    ``state``, the states that an editor may start from and blend with, and the reconstruction, as far as they are asked
    for. ``origin`` is what it was made of; ``rerun`` says whether running it again gave the same, ``None`` before.
    """

    plan: Plan
    grid: Grid
    condition: Condition
    negative: Condition
    guidance: Guidance
    start: int
    trajectory: Trajectory
    offsets: tuple[Tensor, ...] | None = None
    lost: Tensor | None = None
    origin: Origin | None = None
    rerun: Rerun | None = None

    def __repr__(self) -> str:
        return f"StageInversion({self.plan.method}, {self.plan.steps} steps, guidance {self.plan.guidance:g})"

    @property
    def state(self) -> State:
        """The rule's state at ``grid[start]``, where a rerun starts."""
        return self.trajectory.state

    @property
    def report(self) -> StageReport:
        """The cost, and how well inversion and rerun met."""
        return self.trajectory.report

    @property
    def noise(self) -> Tensor:
        """The terminal noise z_T (batch, channels, h, w): the sample at the noisiest level, ``grid[0]``."""
        return self.state[-1]

    @property
    def path(self) -> Sequence[Tensor]:
        """The states of the trajectory, noisy to clean."""
        return self.trajectory.states

    @property
    def picture(self) -> Tensor:
        """The reconstruction (batch, 3, h, w), unclamped."""
        return self.trajectory.picture

    @property
    def rule(self) -> Step:
        """The rule of a rerun."""
        rule = (
            self.plan.inverter.rerun_rule(self.plan.rule, self.path)
            if self.plan.inverter.reads_path
            else self.plan.rule
        )
        return rule if self.offsets is None else Corrected(rule, self.offsets)

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
            trajectory=row_of(self.trajectory, k),
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
    as_needed: bool = False,
) -> StageInversion:
    """Invert pictures (batch, 3, h, w) at one stage and rerun them. ``seeds``, one a picture, draw what a path
    needs. With ``as_needed`` an exact rule is undone only as deep as its states are asked for, and nothing is rerun.

    Raises :class:`iterinv.steps.run.NotFinite`, and :class:`NotExact` where an exact rule loses a pixel all the same:
    in float32 states, or though it multiplies no rounding.
    """
    observer = observer or Observer()
    with annotate_errors(stage, plan):
        if as_needed and plan.inverter.exact and plan.refine is None:
            return _walked(stage, plan, condition, picture, seeds, observer)
        return _invert(stage, plan, condition, picture, seeds, observer)


@dataclass(frozen=True, eq=False)
class _Start:
    """The walk back from pictures at one stage, before its first step."""

    grid: Grid
    picture: Tensor
    x: Tensor
    lost: Tensor | None
    calls: CountingDenoiser
    negative: Condition
    begin: Callable[[], Walk]


def _start(
    stage: Stage, plan: Plan, condition: Condition, picture: Tensor, seeds: Sequence[int], observer: Observer
) -> _Start:
    grid = plan.check(stage)
    for advice in plan.advice(grid):
        observer.on_note(advice)
    picture = picture.to(stage.device, getattr(torch, plan.dtype))
    x = stage.encode(picture)
    lost = None if stage.codec is None else (picture - stage.decode(x)).float()
    calls = CountingDenoiser(stage.denoiser, len(x))
    negative = stage.with_prompt(condition, None)
    field = CFG(1.0 if plan.refine else plan.guidance)(calls, condition, negative)
    return _Start(grid, picture, x, lost, calls, negative, lambda: plan.inverter(plan.rule, field, x, grid, seeds))


def _walked(
    stage: Stage,
    plan: Plan,
    condition: Condition,
    picture: Tensor,
    seeds: Sequence[int],
    observer: Observer,
    known: Sequence[Tensor] = (),
) -> StageInversion:
    """The inversion by an exact rule, undone as deep as its states are asked for beyond those that are known."""
    start = _start(stage, plan, condition, picture, seeds, observer)
    grid = start.grid

    def on_state(done: int, total: int, state: State) -> None:
        observer.on_step(stage.name, "inverting", done, total, grid[len(grid) - 1 - done].t, state)

    states = Walked(start.begin, start.x, len(grid), start.picture, lambda: start.calls.forward, on_state, known)
    origin = Origin(start.picture, tuple(seeds), pixels_of(start.picture), stage.arithmetic(len(picture)))
    guidance = CFG(plan.guidance)
    return StageInversion(
        plan, grid, condition, start.negative, guidance, plan.first, states, lost=start.lost, origin=origin
    )


def _invert(
    stage: Stage, plan: Plan, condition: Condition, picture: Tensor, seeds: Sequence[int], observer: Observer
) -> StageInversion:
    began, rule, inverter = time.perf_counter(), plan.rule, plan.inverter
    start = _start(stage, plan, condition, picture, seeds, observer)
    grid, picture, x, lost, calls = start.grid, start.picture, start.x, start.lost, start.calls
    counted = replace(stage, denoiser=calls)
    total = inverter.updates(rule, grid)
    timesteps = [level.t for level in reversed(grid)] if total <= len(grid) else None
    state, path, error = finish(reported(start.begin(), stage, "inverting", observer, total, timesteps))
    known = Known(path, state, picture)
    inversion = StageInversion(plan, grid, condition, start.negative, CFG(plan.guidance), plan.first, known, lost=lost)
    if plan.refine is not None:
        inversion = plan.refine(counted, inversion)
    unguided = None
    if plan.refine is not None and plan.guidance != 1 and inversion.offsets is None:
        *_, clean = rerun_states(stage, replace(inversion, guidance=CFG()), Observer())
        unguided = float(rms(reconstructed(stage, inversion, clean) - picture).max())
    residual = float(rms(path[-1] - x).max())  # a state of fixed point is the picture's to its last bit only
    for i, y in enumerate(rerun_states(counted, inversion, observer)):
        residual = max(residual, float(rms(path[i] - y).max()))
        if inverter.exact:
            path[i] = y  # in its place: a path is the largest thing that an inversion holds
    measured = None if error is None else float(error.max())
    report = StageReport(calls.forward, calls.backward, time.perf_counter() - began, residual, measured, unguided)
    # A solved path is kept in float32, as a file holds it, unless the rerun reads it. That of an exact
    # inverter is the rerun's, computed again at will.
    states, again = (
        path if inverter.exact or inverter.reads_path else [x.float() for x in path],
        reconstructed(stage, inversion, y),
    )
    if inverter.exact and (plan.dtype == "float32" or inverter.growth(rule, grid) <= 1):
        refuse_loss(picture, again, plan)
    arithmetic = stage.arithmetic(len(x))
    origin = Origin(picture, tuple(seeds), pixels_of(again), arithmetic)
    return replace(inversion, trajectory=Known(tuple(states), state, again, report), origin=origin)


def as_needed(
    stage: Stage, inversion: StageInversion, observer: Observer, states: Sequence[Tensor] = ()
) -> StageInversion:
    """The inversion with a trajectory for an edit, which runs nothing again: the states that are known or in the file;
    else those of the picture in the file, inverted as deep as they are asked for, in the arithmetic of here. ``states``
    (batch, channels, h, w), clean to noisy, are known from an earlier edit."""
    origin, plan = inversion.origin, inversion.plan
    if not isinstance(inversion.trajectory, Deferred) or origin is None:
        return inversion
    path = origin.path if plan.inverter.exact else inversion.path
    if path is not None:
        return replace(inversion, trajectory=Known(path, inversion.state, origin.picture))
    return _walked(stage, plan, inversion.condition, origin.picture, origin.seeds, observer, states)


def rerun_states(stage: Stage, inversion: StageInversion, observer: Observer) -> Generator[Tensor, None, None]:
    """Yield the samples (batch, channels, h, w) at every level of the grid when an inversion is run again."""
    yield from inversion.state[inversion.start : 0 : -1]
    timesteps = [level.t for level in inversion.grid[inversion.start :]]
    states = run(inversion.rule, inversion.field(stage.denoiser), inversion.state, inversion.grid, inversion.start)
    for state in reported(states, stage, "reconstructing", observer, len(timesteps), timesteps):
        yield state[0]


def reconstructed(stage: Stage, inversion: StageInversion, clean: Tensor) -> Tensor:
    """The picture (batch, 3, h, w) of the clean state that a rerun ends in."""
    return stage.decode(clean) if inversion.lost is None else stage.decode(clean) + inversion.lost


class NotExact(ArithmeticError):
    """A rule that undoes itself does not give the picture back."""


def refuse_loss(picture: Tensor, again: Tensor, plan: Plan) -> None:
    """Raise :class:`NotExact` where a reconstruction (batch, 3, h, w) is an 8-bit step off the picture or more.

    The rounding of a float state may fall either way in the input of the network. Where the network makes much of that,
    in half precision, under strong guidance, or from a level with nearly no signal, the way back leaves the path.
    """
    lost = int(((again.clamp(-1, 1) - picture).abs() >= 1 / 255).any(1).sum())
    if lost:
        ways = "" if plan.method == "bdia-fixed" else "bdia-fixed, which is exact by construction, or "
        ways += "" if plan.dtype == "float64" else "float64 states, "
        raise NotExact(
            f"{lost} of {picture[:, 0].numel()} pixels do not come back: the network amplifies the rounding of its "
            f"input too much; take {ways}float32 networks, less guidance or other steps. If none helps, the network "
            "may not predict the same twice: run `iterinv doctor` to check it"
        )


def pixels_of(picture: Tensor) -> tuple[str, ...]:
    """A hash of the 8-bit pixels of each picture (batch, 3, h, w)."""
    return tuple(hashlib.sha256(to_uint8(x[None]).tobytes()).hexdigest() for x in picture)


def rerun_stage(stage: Stage, inversion: StageInversion, observer: Observer) -> StageInversion:
    """Run an inversion again and replace its trajectory; the path of a solver stays as it is.

    The arithmetic of a network depends on threads, the batch and the machine. Where the rerun gives other pixels than
    the inversion had, a method that reconstructs exactly does so here too: by the path in the file if it is there, else
    by inverting the picture again in the arithmetic of this process.
    """
    began = time.perf_counter()
    origin, plan = inversion.origin, inversion.plan
    with annotate_errors(stage, plan):
        states = tuple(rerun_states(stage, inversion, observer))
        picture = reconstructed(stage, inversion, states[-1])
    path = states if plan.inverter.exact else inversion.path
    again = replace(inversion, trajectory=Known(path, inversion.state, picture, inversion.report))
    if origin is not None:
        check = Rerun(origin.arithmetic, stage.arithmetic(len(picture)), pixels_of(picture) == origin.pixels)
        again = replace(again, rerun=check)
        if not check.pixels:
            del states, picture, path
            again = _remade(stage, again, origin, check, observer)
    report = replace(again.report, seconds=time.perf_counter() - began)
    return replace(again, trajectory=Known(again.path, again.state, again.picture, report))


def _remade(
    stage: Stage, inversion: StageInversion, origin: Origin, check: Rerun, observer: Observer
) -> StageInversion:
    """Repair the inversion in the arithmetic of this process, if its method reconstructs exactly; else return it
    unchanged."""
    refine, picture = inversion.plan.refine, origin.picture.to(inversion.noise)
    if origin.path is None and inversion.plan.inverter.exact:
        made = invert_stage(stage, inversion.plan, inversion.condition, picture, origin.seeds, observer)
        return replace(made, rerun=replace(check, remedy="inverted again"))
    if origin.path is None and not (refine is not None and refine.exact):
        return inversion
    # The last state of the path is the clean one, which is as it was; a decoder's last digits are not.
    path = origin.path or inversion.path
    clean = stage.decode(path[-1].to(inversion.noise))
    lost = None if inversion.lost is None else (picture - clean).float()
    known = Known(path, inversion.state, clean if lost is None else clean + lost, inversion.report)
    inversion = replace(inversion, lost=lost, trajectory=known)
    if origin.path is not None or refine is None:
        return replace(inversion, rerun=replace(check, remedy="kept path"))
    refined = refine(stage, replace(inversion, offsets=None))
    *_, clean = rerun_states(stage, refined, observer)
    known = Known(path, inversion.state, reconstructed(stage, refined, clean), inversion.report)
    return replace(refined, trajectory=known, rerun=replace(check, remedy="refined again"))


def reported(
    work: Iterator[State],
    stage: Stage,
    phase: str,
    observer: Observer,
    total: int | None = None,
    timesteps: Sequence[float] | None = None,
) -> Generator[State, None, Any]:
    """Report each state of some work, yield it, and return the work's result.

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
    """Add the stage, the method and the editor to the message of a state that is not finite and of an out-of-memory
    error."""
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
            f"{where} ran out of memory on {stage.device}: load with memory='auto' or --memory auto, so that "
            "networks take turns; `iterinv cost` prints the memory that each mode needs"
        ) from None

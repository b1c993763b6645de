"""How a stage is run and inverted, and what inverting leaves behind.

A method is a rule, a way to find the path where the rule cannot undo itself, and a refinement or none.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from iterinv import drive
from iterinv.levels import Eps, Grid, State
from iterinv.models import Calls, Condition, Stage, guide
from iterinv.roots import RootFinder, rms
from iterinv.steps import BDIA, OneStep, Reversible, Step, Wrapped

Progress = Callable[[str, str, int, int | None], None]
"""``progress(stage, doing, done, total)``, called after every step; ``total`` is ``None`` while it is not known.

An exception that it raises stops the work.
"""

WILD = 1e4
"""By how much rounding may be multiplied before the noise found is far from a sampler's."""

LARGEST_GROWTH = {"float32": 1e4, "float64": 1e9}
"""By how much rounding may be multiplied and still leave the 8-bit picture alone."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Scatter:
    """A path that no rule takes: at every level the picture under noise of its own, ``alpha x0 + sigma n_i``.

    The noises are independent of each other. With :class:`iterinv.refine.Offsets` it is edit-friendly DDPM inversion
    (Huberman-Spiegelglas, Kulikov, Michaeli, 2024), https://arxiv.org/abs/2304.06140
    """


@dataclass(frozen=True)
class Sweeps:
    """The path of a multistep rule, by at most ``count`` walks over the grid, one call a level each, until they move no state
    by more than ``tolerance`` (:func:`iterinv.drive.relax`)."""

    count: int = 30
    tolerance: float = 3e-4


class Refine(Protocol):
    """What is fitted to an inversion made without guidance so that a rerun under the plan's guidance stays on its path.

    It calls ``stage``'s denoiser, and so is counted.
    """

    def __call__(self, stage: Stage, found: StageInversion) -> StageInversion: ...


@dataclass(frozen=True)
class Plan:
    """How a stage is run and inverted.

    ``find`` is there for a rule that does not undo itself. ``guidance`` is the classifier-free guidance scale of inversion and
    reconstruction alike, 1 for none; with a refinement that of reconstruction, inversion having none. ``dtype`` is the
    state's, whatever the network's. ``method`` is the name it goes by. Raises ``ValueError`` for a rule that can neither undo
    itself nor be solved, and for settings that leave nothing to do.
    """

    rule: Step = field(default_factory=BDIA)
    find: RootFinder | Sweeps | Scatter | None = None
    refine: Refine | None = None
    steps: int = 20
    guidance: float = 1.0
    spacing: str = "leading"
    dtype: str = "float64"
    method: str = ""

    def __post_init__(self) -> None:
        name = type(self.rule).__name__
        if self.find is None and not isinstance(self.rule, Reversible):
            ways = "sweeps" if isinstance(self.rule, drive.Remembering) else "a root finder"
            raise ValueError(f"{name} cannot undo itself: give the plan {ways}")
        if isinstance(self.find, Sweeps) and not isinstance(self.rule, drive.Remembering):
            raise ValueError(f"sweeps are for multistep rules such as DPM-Solver++ 2M; {name} is none: take a root finder")
        if self.refine is not None and (self.find is None or not isinstance(self.rule, OneStep)):
            raise ValueError(f"{type(self.refine).__name__} needs a one-step rule that does not undo itself, such as DDIM")
        if self.find is not None and not isinstance(self.find, Sweeps) and not isinstance(self.rule, OneStep):
            raise ValueError(
                f"{name} remembers more than one state, so its steps cannot be solved one by one: take DDIM or bdia"
            )
        if self.dtype not in LARGEST_GROWTH:
            raise ValueError(f"a state in {self.dtype} costs the picture: use float32 or float64")
        if self.steps <= self.first:
            raise ValueError(
                f"{self.steps} step(s) leave {type(self.rule).__name__} nothing to undo: take {self.first + 1} or more"
            )
        if not math.isfinite(self.guidance):
            raise ValueError(f"guidance is {self.guidance}; it is a finite number, 1 for none")
        if not self.method:
            parts = [type(part).__name__ for part in (self.rule, self.find, self.refine) if part is not None]
            object.__setattr__(self, "method", "+".join(parts))

    @property
    def first(self) -> int:
        """The index of the level that a run starts from."""
        return int(getattr(self.rule, "first", 0)) if self.find is None else 0

    def check(self, stage: Stage) -> Grid:
        """The grid of a stage. Raises ``ValueError`` where undoing it would multiply rounding beyond what the dtype carries."""
        grid, limit = stage.schedule.grid(self.steps, self.spacing), LARGEST_GROWTH[self.dtype]
        if self.find is None and isinstance(self.rule, Reversible) and (growth := self.rule.growth(grid)) > limit:
            grids = (stage.schedule.grid(n, self.spacing) for n in range(max(self.first + 1, 2), self.steps))
            fits = [len(each) - 1 for each in grids if self.rule.growth(each) <= limit]
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


@dataclass(frozen=True)
class Corrected(Wrapped):
    """A rule, and after each of its steps an offset: ``step(...) + offsets[i]``."""

    offsets: tuple[Tensor, ...]

    def step(self, eps: Eps, state: State, grid: Grid, i: int) -> State:
        new, *rest = self.rule.step(eps, state, grid, i)
        return (new + self.offsets[i], *rest)


@dataclass(frozen=True)
class StageInversion:
    """What inverting one stage leaves: ``state`` at ``grid[start]`` and the condition; with them the picture is rerun.

    ``path`` holds the states that an editor may start from and blend with, one for each level of the grid, noisy to clean:
    those of the rerun for a reversible rule, those found for a solved one. ``picture`` is the reconstruction (batch, 3, size,
    size), unclamped. ``offsets``, one a step, are what a refinement adds after it. ``lost`` is what a latent stage's codec
    loses of the picture: it is added to what the states decode to, and is the only part that was not inverted.
    """

    plan: Plan
    grid: Grid
    condition: Condition
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

    @property
    def rule(self) -> Step:
        """The rule that it is rerun by."""
        return self.plan.rule if self.offsets is None else Corrected(self.plan.rule, self.offsets)

    def row(self, k: int) -> StageInversion:
        """The inversion of the ``k``-th picture of a batch alone."""

        def rows(tensors: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
            return None if tensors is None else tuple(x[k : k + 1] for x in tensors)

        picture, lost = (None if x is None else x[k : k + 1] for x in (self.picture, self.lost))
        state = tuple(x[k : k + 1] for x in self.state)
        return replace(
            self, condition=self.condition.row(k), state=state, path=rows(self.path), picture=picture,
            offsets=rows(self.offsets), lost=lost,
        )  # fmt: skip


@dataclass(frozen=True)
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

    Raises :class:`iterinv.drive.NotFinite`.
    """
    with annotate_errors(stage, plan):
        return _invert(stage, plan, condition, x, seed, progress)


def finish(
    work: Generator[object, None, _T], stage: Stage, doing: str, total: int | None = None, progress: Progress | None = None
) -> _T:
    """Run a generator to its end, report every step, and return its result. Without a ``total`` the last step is the total."""
    done = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            if progress is not None and total is None:
                progress(stage.name, doing, done, done)
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
    except (drive.NotFinite, OverflowError) as error:
        blame = stage.blame(error.sample, error.level) if isinstance(error, drive.NotFinite) else ""
        raise drive.NotFinite(f"{where}: {error}{blame}") from None
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise MemoryError(
            f"{where} ran out of memory on {stage.device}: say how much there is, "
            "load(..., memory='auto') or --memory auto, and networks take turns; `iterinv plan` says what each way needs"
        ) from None


def _invert(stage: Stage, plan: Plan, condition: Condition, x: Tensor, seed: int, progress: Progress | None) -> StageInversion:
    began, grid, n = time.perf_counter(), plan.check(stage), plan.steps + 1
    picture = x.to(stage.device, getattr(torch, plan.dtype))
    x = stage.encode(picture)
    lost = None if stage.codec is None else (picture - stage.decode(x)).float()
    calls = Calls(stage.denoiser, len(x))
    counted = replace(stage, denoiser=calls)
    eps = guide(calls, condition, 1.0 if plan.refine else plan.guidance)
    if plan.find is not None and plan.refine is None and plan.guidance != 1:
        warnings.warn(
            f"{plan.method} inverts under guidance {plan.guidance:g}, where a solver converges slowly or not at all and the "
            "noise leaves its distribution: take guidance 1, a refinement (null-text, negative-prompt) or bdia",
            stacklevel=3,
        )
    errors: list[float] = []
    if plan.find is None:
        assert isinstance(plan.rule, Reversible)
        if (growth := plan.rule.growth(grid)) > WILD:
            warnings.warn(
                f"undoing {plan.steps} steps of {plan.method} multiplies what is small by {growth:.0e}: the picture comes back "
                "but its noise may be far from a sampler's (look at noise std); bdia at gamma 1 multiplies nothing",
                stacklevel=3,
            )
        walk = []
        for state in told(drive.undo(plan.rule, eps, x, grid), stage, "inverting", n - plan.first, progress):
            walk.append(state[0])
        path = [*state[plan.first : 0 : -1], *reversed(walk)]
        del walk
    elif isinstance(plan.find, Scatter):
        path = list(told(_scatter(x, grid, seed), stage, "inverting", n, progress))
        state = plan.rule.init(path[0])
    elif isinstance(plan.find, Sweeps):
        assert isinstance(plan.rule, drive.Remembering)
        total = n + plan.find.count * plan.steps + 1
        paths = drive.relax(plan.rule, eps, x, grid, plan.find.count, plan.find.tolerance)
        *_, (last, error) = told(paths, stage, "inverting", total, progress)
        path = list(last)
        if progress is not None:
            progress(stage.name, "inverting", total, total)
        errors = [float(error.max())]
        state = plan.rule.init(path[0])
    else:
        solved = list(told(drive.solve(plan.rule, eps, x, grid, plan.find), stage, "inverting", n, progress))
        state = plan.rule.init(solved[-1][0][0])
        path = [each[0] for each, _ in reversed(solved)]
        errors = [float(root.error.max()) for _, root in solved if root is not None]
    found = StageInversion(plan, grid, condition, plan.first, state, lost=lost)
    if plan.refine is not None:
        found = plan.refine(counted, replace(found, path=tuple(path)))
    residual = 0.0
    for i, y in enumerate(rerun_stage(counted, found, progress)):
        residual = max(residual, float(rms(path[i] - y).max()))
        if plan.find is None:
            path[i] = y  # in its place: a path is the largest thing that an inversion holds
    measured = max((error for error in errors if not math.isnan(error)), default=None)
    report = StageReport(calls.forward, calls.backward, time.perf_counter() - began, residual, measured)
    # A solved path is kept as found, in float32: it is what a file holds. A reversible one is the rerun's, made again at will.
    kept = tuple(path) if plan.find is None else tuple(x.float() for x in path)
    return replace(found, path=kept, picture=reconstructed(stage, found, y), report=report)


def reconstructed(stage: Stage, found: StageInversion, state: Tensor) -> Tensor:
    """The picture of the clean state that a rerun arrives at."""
    return stage.decode(state) if found.lost is None else stage.decode(state) + found.lost


def rerun_stage(stage: Stage, found: StageInversion, progress: Progress | None) -> Iterator[Tensor]:
    """The samples at every level of the grid when an inversion is run again, those that its state starts from included."""
    eps = guide(stage.denoiser, found.condition, found.plan.guidance)
    states = drive.run(found.rule, eps, found.state, found.grid, found.start)
    yield from found.state[found.start : 0 : -1]
    for state in told(states, stage, "reconstructing", len(found.grid) - found.start, progress):
        yield state[0]


def _scatter(x: Tensor, grid: Grid, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for level in grid[:-1]:
        noise = torch.randn((1, *x.shape[1:]), generator=generator).to(x)
        yield level.alpha * x + level.sigma * noise
    yield x

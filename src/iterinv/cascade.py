"""A cascade of stages, and what happens to a picture in it: invert, rerun, edit.

Every stage works on the picture resized to its own size. A super-resolution stage is conditioned on the *reconstruction*
that the stage below made, since that is what it will see when it is run again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv import drive
from iterinv.levels import Eps, Grid, State
from iterinv.models import Calls, Condition, Stage, guide
from iterinv.roots import Anderson, FixedPoint, RootFinder, rms
from iterinv.steps import BDIA, DDIM, Reversible, Step

METHODS: dict[str, tuple[Step, RootFinder | None]] = {
    "bdia": (BDIA(), None),
    "ddim": (DDIM(), FixedPoint(1)),
    "iterinv": (DDIM(), Anderson()),
}
"""Inversion methods by name: a rule, and a root finder where the rule does not undo itself."""

Progress = Callable[[str, str, int, int], None]
"""``progress(stage, doing, done, total)``, called after every step. Whatever it raises stops the work."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Plan:
    """How a stage is run and inverted.

    ``guidance`` is the classifier-free guidance scale of inversion and reconstruction alike; 1 is none. ``dtype`` is the
    state's, whatever the network's. Raises ``ValueError`` for a rule that can neither undo itself nor be solved, for a gamma
    whose growth over the steps the dtype cannot carry, and for settings that leave nothing to do.
    """

    rule: Step = field(default_factory=BDIA)
    find: RootFinder | None = None
    steps: int = 20
    guidance: float = 1.0
    spacing: str = "leading"
    dtype: str = "float64"

    def __post_init__(self) -> None:
        if self.find is None and not isinstance(self.rule, Reversible):
            raise ValueError(f"{type(self.rule).__name__} cannot undo itself: give the plan a root finder")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"a state in {self.dtype} costs the picture: use float32 or float64")
        if self.steps <= (first := getattr(self.rule, "first", 0)):
            raise ValueError(f"{self.steps} step(s) leave {type(self.rule).__name__} nothing to undo: take {first + 1} or more")
        if not math.isfinite(self.guidance):
            raise ValueError(f"guidance is {self.guidance}; it is a finite number, 1 for none")
        growth, limit = getattr(self.rule, "gamma", 1.0) ** -self.steps, {"float32": 1e3, "float64": 1e9}[self.dtype]
        if growth > limit:
            raise ValueError(
                f"gamma ** -steps = {growth:.1e} multiplies rounding beyond what {self.dtype} carries; use a gamma of at "
                f"least {limit ** (-1 / self.steps):.3f} for {self.steps} steps"
            )

    @classmethod
    def of(cls, method: str = "bdia", steps: int = 20, guidance: float = 1.0) -> Plan:
        """The plan of a method's name, one of :data:`METHODS`."""
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}: the methods are {', '.join(METHODS)}")
        rule, find = METHODS[method]
        return cls(rule, find, steps, guidance)

    @property
    def method(self) -> str:
        """The name in :data:`METHODS` of this kind of rule and root finder, else the names of the two."""
        kinds = (type(self.rule), type(self.find))
        names = [name for name, pair in METHODS.items() if tuple(map(type, pair)) == kinds]
        return names[0] if names else "+".join(kind.__name__ for kind in kinds)


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
class StageInversion:
    """What inverting one stage leaves: ``state`` at ``grid[start]`` and the condition; with them the picture is rerun.

    ``path`` holds the states that an editor may start from and blend with, one for each level of the grid, noisy to clean:
    those of the rerun for a reversible rule, those found for a solved one. ``picture`` is the reconstruction (batch, 3, size,
    size), unclamped.
    """

    plan: Plan
    grid: Grid
    condition: Condition
    start: int
    state: State
    path: tuple[Tensor, ...] | None = None
    picture: Tensor | None = None
    report: StageReport = StageReport()

    @property
    def noise(self) -> Tensor:
        """The terminal noise (batch, 3, size, size): the state at the noisiest level."""
        return self.state[-1]


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


class Editor(Protocol):
    """Where and how an inversion is run again with other words."""

    @property
    def strength(self) -> float:
        """The share of the levels that are run again at the first stage, in (0, 1]."""
        ...

    @property
    def detail(self) -> float:
        """The same share at the super-resolution stages."""
        ...

    @property
    def guidance(self) -> float:
        """Guidance of the first stage, from the source's words to the target's: 1 is none."""
        ...

    @property
    def rule(self) -> Step:
        """The rule it is run by."""
        ...

    def mask(self, stage: Stage, found: StageInversion, target: Condition) -> Tensor | None:
        """Where stage I may change (batch, 1, size, size), 1 inside; ``None`` for everywhere."""
        ...


class Edit(NamedTuple):
    """``pictures`` one a stage, clamped to [-1, 1]; ``masks`` likewise, or ``None`` where all may change."""

    pictures: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] | None


@dataclass(frozen=True)
class Blend:
    """A rule, and after each of its steps the background put back: ``mask * new + (1 - mask) * path[i + 1]``.

    It blends with the state of the level that the step arrives at, so the last step puts back the picture itself.
    """

    rule: Step
    mask: Tensor
    path: Sequence[Tensor]

    @property
    def order(self) -> int:
        return self.rule.order

    def init(self, x: Tensor, *older: Tensor) -> State:
        return self.rule.init(x, *older)

    def step(self, eps: Eps, state: State, grid: Grid, i: int) -> State:
        new, *rest = self.rule.step(eps, state, grid, i)
        return (torch.where(self.mask > 0, self.mask * new + (1 - self.mask) * self.path[i + 1], self.path[i + 1]), *rest)


@dataclass(frozen=True)
class Cascade:
    """Stages from small to large, each fed with the picture of the one before."""

    stages: tuple[Stage, ...]

    @property
    def size(self) -> int:
        return self.stages[-1].size

    @property
    def fingerprint(self) -> str:
        return "-".join(stage.fingerprint for stage in self.stages)

    @torch.no_grad()
    def invert(
        self, picture: Tensor, prompt: str, plan: Plan | Sequence[Plan] | None = None, seed: int = 0,
        progress: Progress | None = None,
    ) -> Inversion:  # fmt: skip
        """Invert a picture (batch, 3, size, size) in [-1, 1] through all stages, and reconstruct it.

        ``plan`` is one for all stages or one for each. ``seed`` draws the noise on the low-resolution conditions. The
        reconstruction and the path of every stage are in what comes back. Raises ``ValueError`` for a picture of another
        shape or range.
        """
        if picture.ndim != 4 or picture.shape[1] != 3 or picture.shape[-2:] != (self.size, self.size):
            raise ValueError(f"the picture is {tuple(picture.shape)}; this cascade takes (batch, 3, {self.size}, {self.size})")
        if not bool(torch.isfinite(picture).all()) or float(picture.abs().max()) > 1 + 1e-6:
            raise ValueError("the picture's values must be finite and lie in [-1, 1]")
        plan = Plan() if plan is None else plan
        plans = [plan] * len(self.stages) if isinstance(plan, Plan) else list(plan)
        if len(plans) != len(self.stages):
            raise ValueError(f"there are {len(plans)} plans for {len(self.stages)} stages")
        found: list[StageInversion] = []
        for k, (stage, how) in enumerate(zip(self.stages, plans, strict=True)):
            low = found[-1].picture if found else None
            condition = stage.condition(prompt, low, seed=seed + k)
            found.append(_invert(stage, how, condition, resize(picture, stage.size), progress))
        return Inversion(prompt, seed, self.fingerprint, tuple(found))

    @torch.no_grad()
    def rerun(self, inversion: Inversion, progress: Progress | None = None) -> Inversion:
        """Reconstruct an inversion: the same, with every stage's picture and, for reversible rules, its path filled in.

        Raises ``ValueError`` for an inversion made with other weights.
        """
        self._check(inversion)
        stages = []
        for stage, found in zip(self.stages, inversion.stages, strict=True):
            began = time.perf_counter()
            path = _rerun(stage, found, guide(stage.denoiser, found.condition, found.plan.guidance), progress)
            report = replace(found.report, seconds=time.perf_counter() - began)
            kept = path if found.plan.find is None else found.path
            stages.append(replace(found, path=kept, picture=path[-1], report=report))
        return replace(inversion, stages=tuple(stages))

    @torch.no_grad()
    def edit(self, inversion: Inversion, prompt: str, editor: Editor, progress: Progress | None = None) -> Edit:
        """Run an inversion again with other words: stage I as the editor says, the others under its edited picture.

        Stage I is guided away from the words that the inversion was made with, not from the empty prompt, so guidance acts on
        what the two differ in (negative-prompt inversion: Miyake, Iohara, Saito, Tanaka, 2023,
        https://arxiv.org/abs/2305.16807). Every stage starts from its own inverted state and, where the editor gives a mask,
        keeps everything outside it. The state of a super-resolution stage is first moved by what the stage below changed: it
        holds the old picture's colours, times alpha, and they are exchanged for the new one's while its noise is kept. Raises
        ``ValueError`` for an inversion made with other weights.
        """
        if any(found.path is None or found.picture is None for found in inversion.stages):
            inversion = self.rerun(inversion, progress)
        self._check(inversion)
        pictures: list[Tensor] = []
        masks: list[Tensor] = []
        for stage, found in zip(self.stages, inversion.stages, strict=True):
            assert found.path is not None
            kept = found.condition.low
            low = pictures[-1] if kept else None
            target = stage.condition(prompt, low, kept.noise if kept else None)
            if not pictures:
                target = replace(target, null=found.condition.text)
                mask = editor.mask(stage, found, target)
                if mask is not None:
                    masks.append(mask)
            elif masks:
                masks.append(enlarge(masks[0], stage.size))
            start = start_index(found.grid, editor.detail if kept else editor.strength)
            scale = found.plan.guidance if kept else editor.guidance
            rule = Blend(editor.rule, masks[-1], found.path) if masks else editor.rule
            samples = found.path[start::-1]
            if kept and target.low:
                moved = target.low.enlarged() - kept.enlarged()
                samples = tuple(x + a.alpha * moved for x, a in zip(samples, found.grid[start::-1], strict=True))
            states = drive.run(rule, guide(stage.denoiser, target, scale), rule.init(*samples), found.grid, start)
            last = _last(states, stage, "editing", len(found.grid) - start, progress)
            pictures.append(last[0].clamp(-1, 1))
        return Edit(tuple(pictures), tuple(masks) or None)

    @torch.no_grad()
    def sample(
        self, prompt: str, steps: int = 20, guidance: float = 3.0, seed: int = 0, batch: int = 1, rule: Step | None = None,
        detail: float = 0.8, progress: Progress | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Draw pictures (batch, 3, size, size) in [-1, 1] from the words alone, one tensor a stage.

        Guidance acts on the first stage. The noise of every stage comes from CPU generators seeded with ``seed``. A
        super-resolution stage runs the last ``detail`` of its levels, from the enlarged picture noised to the first of them:
        at the levels before, a small error of the predicted noise is a large one of colour, which the stage below settled.
        """
        rule = rule or DDIM()
        pictures: list[Tensor] = []
        for k, stage in enumerate(self.stages):
            noise = torch.randn((batch, 3, stage.size, stage.size), generator=torch.Generator().manual_seed(seed + 1000 + k))
            condition = stage.condition(prompt, pictures[-1] if pictures else None, seed=seed + k)
            eps = guide(stage.denoiser, condition, 1.0 if pictures else guidance)
            grid = stage.schedule.grid(steps)
            start, x = 0, noise.to(stage.device).double()
            if condition.low:
                start = start_index(grid, detail)
                x = grid[start].alpha * condition.low.enlarged() + grid[start].sigma * x
            states = drive.run(rule, eps, rule.init(x), grid, start)
            pictures.append(_last(states, stage, "sampling", len(grid) - start, progress)[0].clamp(-1, 1))
        return tuple(pictures)

    def _check(self, inversion: Inversion) -> None:
        if inversion.fingerprint != self.fingerprint:
            raise ValueError(
                f"this inversion was made by the cascade {inversion.fingerprint}, not by the one loaded "
                f"({self.fingerprint}): load that one, or invert the picture again"
            )


def resize(picture: Tensor, size: int) -> Tensor:
    """A picture (batch, 3, h, w) in [-1, 1] at a stage's size: area averages, rounded to 8 bits.

    Rounded, because a stage's reconstruction is judged by its 8-bit pixels, and an average may lie just between two.
    """
    if picture.shape[-2:] == (size, size):
        return picture
    small = F.interpolate(picture, (size, size), mode="area")
    return ((small + 1) * 127.5).round() / 127.5 - 1


def enlarge(mask: Tensor, size: int) -> Tensor:
    """A mask (batch, 1, h, w) at a larger size: nearest, then grown by half a small pixel, so that no edited pixel is cut."""
    grow = size // mask.shape[-1] // 2
    large = F.interpolate(mask, (size, size), mode="nearest")
    return F.max_pool2d(large, 2 * grow + 1, stride=1, padding=grow)


def start_index(grid: Grid, share: float) -> int:
    """The index of the level from which the last ``share`` of a grid's steps is run, at least one step."""
    steps = len(grid) - 1
    return min(steps - 1, round((1 - share) * steps))


def _told(items: Iterable[_T], stage: Stage, doing: str, total: int, progress: Progress | None) -> Iterator[_T]:
    for done, item in enumerate(items, 1):
        if progress is not None:
            progress(stage.name, doing, done, total)
        yield item


def _last(states: Iterable[State], stage: Stage, doing: str, total: int, progress: Progress | None) -> State:
    *_, last = _told(states, stage, doing, total, progress)
    return last


def _invert(stage: Stage, plan: Plan, condition: Condition, x: Tensor, progress: Progress | None) -> StageInversion:
    began, grid, n = time.perf_counter(), stage.schedule.grid(plan.steps, plan.spacing), plan.steps + 1
    x = x.to(stage.device, getattr(torch, plan.dtype))
    calls = Calls(stage.denoiser, len(x))
    eps = guide(calls, condition, plan.guidance)
    errors: list[float] = []
    if plan.find is None:
        assert isinstance(plan.rule, Reversible)
        undone = list(_told(drive.undo(plan.rule, eps, x, grid), stage, "inverting", n - plan.rule.first, progress))
        start, state = plan.rule.first, undone[-1]
        path = (*state[:0:-1], *(each[0] for each in reversed(undone)))
    else:
        solved = list(_told(drive.solve(plan.rule, eps, x, grid, plan.find), stage, "inverting", n, progress))
        start, state = 0, solved[-1][0]
        path = tuple(each[0] for each, _ in reversed(solved))
        errors = [float(root.error.max()) for _, root in solved if root is not None]
    found = StageInversion(plan, grid, condition, start, state, path)
    rerun = _rerun(stage, found, eps, progress)
    residual = max(float(rms(a - b).max()) for a, b in zip(path, rerun, strict=True))
    report = StageReport(
        calls.forward, calls.backward, time.perf_counter() - began, residual,
        max((e for e in errors if e == e), default=None),
    )  # fmt: skip
    # A solved path is kept as found, in float32: it is what a file holds. A reversible one is the rerun's, made again at will.
    kept = rerun if plan.find is None else tuple(x.float() for x in path)
    return replace(found, path=kept, picture=rerun[-1], report=report)


def _rerun(stage: Stage, found: StageInversion, eps: Eps, progress: Progress | None) -> tuple[Tensor, ...]:
    """The samples at every level of the grid when the inversion is run again, those that its state starts from included."""
    states = drive.run(found.plan.rule, eps, found.state, found.grid, found.start)
    states = _told(states, stage, "reconstructing", len(found.grid) - found.start, progress)
    return (*found.state[:0:-1], *(state[0] for state in states))

"""What it takes to run an inversion again with other words, besides the words: what editors are and share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.inversion import Scatter, StageInversion
from iterinv.levels import Eps, Grid, State
from iterinv.models import Condition, Stage
from iterinv.steps import Step, Wrapped


class Run(NamedTuple):
    """What is run at a stage: ``rule`` from ``state`` at ``grid[start]`` to the last level. Where nothing changes, it is
    ``background[i]`` that it arrives at, at level ``i``. ``again``, told what came out and the noise predicted for the target's
    words without guidance, gives what is to be run in its stead, or ``None`` where it will do."""

    rule: Step
    state: State
    background: Sequence[Tensor]
    grid: Grid
    start: int = 0
    again: Callable[[Tensor, Eps], Run | None] | None = None

    @property
    def strength(self) -> float:
        """The share of the levels that are run, in (0, 1]."""
        run, levels = set(self.grid[self.start :]), set(self.grid)  # a level may be run more than once
        return (len(run) - 1) / (len(levels) - 1)


class Editor(Protocol):
    """Where and how an inversion is run again with other words."""

    @property
    def detail(self) -> float:
        """The share of the levels that are run again at the super-resolution stages, in (0, 1]."""
        ...

    @property
    def guidance(self) -> float:
        """Guidance of the first stage, from the source's words to the target's: 1 is none."""
        ...

    @property
    def rule(self) -> Step:
        """The rule that the super-resolution stages are run by."""
        ...

    @property
    def visible(self) -> float:
        """By how much, in [-1, 1], the stage below must have changed a pixel for its mask to reach there at this one."""
        ...

    def mask(self, stage: Stage, found: StageInversion, target: Condition) -> Tensor | None:
        """Where stage I may change (batch, 1, size, size), 1 inside; ``None`` for everywhere."""
        ...

    def run(self, stage: Stage, found: StageInversion, mask: Tensor | None, fewer: bool = False) -> Run:
        """What stage I runs, under the target's words, within the mask; ``fewer``: they are :func:`fewer` than the source's."""
        ...


def fewer(source: str, target: str) -> bool:
    """Whether a prompt only leaves away some of another's words: then something is to be taken away, and nothing put there."""
    old, new = (Counter(re.findall(r"[^\W_]+", prompt.lower())) for prompt in (source, target))
    return new < old


class Edit(NamedTuple):
    """``pictures`` one a stage, clamped to [-1, 1]; ``masks`` likewise, or ``None`` where all may change.

    ``rule`` names what stage I was run by, ``strength`` is the share of the levels that it was run over, and ``guidance`` its
    scale: the editor's, or the inversion's where it has its own.
    """

    pictures: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] | None
    rule: str
    strength: float
    guidance: float


@dataclass(frozen=True)
class Blend(Wrapped):
    """A rule, and after each of its steps the background put back: ``mask * new + (1 - mask) * path[i + 1]``.

    It blends with the state of the level that the step arrives at, so the last step puts back the picture itself.
    """

    mask: Tensor
    path: Sequence[Tensor]

    def step(self, eps: Eps, state: State, grid: Grid, i: int) -> State:
        new, *rest = self.rule.step(eps, state, grid, i)
        return (torch.where(self.mask > 0, self.mask * new + (1 - self.mask) * self.path[i + 1], self.path[i + 1]), *rest)


def along(found: StageInversion, rule: Step, strength: float, moved: Tensor | None = None) -> Run:
    """``rule`` along the last ``strength`` of the inverted path, its states first moved by ``alpha * moved``.

    A scattered path belongs to no rule but the one whose noise maps were kept along it, which is then run in its place.
    """
    assert found.path is not None
    own = found.rule if isinstance(found.plan.find, Scatter) else rule
    start = start_index(found.grid, strength)
    samples = found.path[start::-1]
    if moved is not None:
        samples = tuple(x + a.alpha * moved for x, a in zip(samples, found.grid[start::-1], strict=True))
    return Run(own, own.init(*samples), found.path, found.grid, start)


def guided(target: Condition, found: StageInversion) -> Condition:
    """The words to guide towards, with what to guide away from: embeddings that were fitted, else the source's words."""
    if found.condition.nulls is not None:
        return replace(target, nulls=found.condition.nulls)
    return replace(target, null=found.condition.text, shape=found.condition.shape)


def enlarge(mask: Tensor, size: int) -> Tensor:
    """A mask (batch, 1, h, w) at a larger size: nearest, then grown by half a small pixel, so that no edited pixel is cut."""
    grow = size // mask.shape[-1] // 2
    large = F.interpolate(mask, (size, size), mode="nearest")
    return F.max_pool2d(large, 2 * grow + 1, stride=1, padding=grow)


def start_index(grid: Grid, share: float) -> int:
    """The index of the level from which the last ``share`` of a grid's steps is run, at least one step."""
    steps = len(grid) - 1
    return min(steps - 1, round((1 - share) * steps))

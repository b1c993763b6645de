"""One stage of an inversion while it is edited, and the result an editor leaves there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from iterinv.conditions import Condition
from iterinv.guidance import CFG, unguided
from iterinv.images import Canvas, Picture, Pictures, output, sides, to_own_pixels
from iterinv.levels import Field, Grid, State, move
from iterinv.masks import resized
from iterinv.models import Stage
from iterinv.reading import Original
from iterinv.stage_inversion import StageInversion
from iterinv.steps import OneStep, Step, Wrapped
from iterinv.steps.run import run

if TYPE_CHECKING:
    from iterinv.edits.own_size import OwnSize


@dataclass(frozen=True, eq=False)
class StageEdit:
    """The result of an editor at one stage.

    ``picture`` (batch, 3, h, w) is clamped to [-1, 1]. ``mask`` (batch, 1, h, w) is 1 where the picture may
    differ from the original, ``None`` for everywhere. ``reports`` holds the settings that were used, one mapping a
    picture.
    """

    picture: Tensor
    mask: Tensor | None
    reports: tuple[Mapping[str, Any], ...] = ()

    def __repr__(self) -> str:
        mask = "everywhere" if self.mask is None else f"mask of {float(self.mask.mean()):.0%}"
        return f"StageEdit({tuple(self.picture.shape)}, {mask}, {self.reports})"

    @staticmethod
    def stack(edits: Sequence[StageEdit]) -> StageEdit:
        """The edits of single pictures as one batch."""
        if len(edits) == 1:
            return edits[0]
        masks = [edit.mask for edit in edits if edit.mask is not None]
        if masks and len(masks) < len(edits):  # one picture may change everywhere: give it a full mask
            masks = [torch.ones_like(masks[0]) if edit.mask is None else edit.mask for edit in edits]
        reports = tuple(report for edit in edits for report in edit.reports)
        return StageEdit(torch.cat([edit.picture for edit in edits]), torch.cat(masks) if masks else None, reports)


@dataclass(frozen=True, eq=False)
class Edit:
    """An edit of every stage of a cascade, small to large, of the pictures on ``canvases``, by ``prompts``.

    ``limits`` (h, w), of any size, are true where the user's masks let each picture change; there are none without
    masks.
    """

    stages: tuple[StageEdit, ...]
    canvases: tuple[Canvas, ...]
    output_type: str = "pil"
    prompts: tuple[str, ...] = ()
    limits: tuple[np.ndarray, ...] = ()

    def __repr__(self) -> str:
        px = sides(self.pictures[-1].shape[-2:])
        return f"Edit({len(self.canvases)} of {px} px: {self.reports[0] if self.reports else {}})"

    @property
    def images(self) -> Pictures:
        """The edited pictures, at their own shape and the model's scale."""
        arrays = [canvas.place(self.pictures[-1][k : k + 1]) for k, canvas in enumerate(self.canvases)]
        return output(arrays, self.output_type)

    def at_own_size(self, original: Picture | Original | Sequence[Picture | Original] | None = None) -> list[OwnSize]:
        """The edited pictures at their files' own size, upright, with their depth, alpha and colours: outside its
        region every pixel is the file's own.

        ``original`` is the picture that was inverted, or one for each picture of the batch; it may be left out where
        the inversion was made in this process and not reopened. See :func:`iterinv.edits.own_size.carry_up`. Raises
        ``ValueError`` for another picture than the inverted one and where none is known.
        """
        from iterinv.edits.own_size import carry_up

        each = list(original) if isinstance(original, (list, tuple)) else [original] * len(self.canvases)
        if len(each) != len(self.canvases):
            raise ValueError(f"there are {len(each)} originals for {len(self.canvases)} pictures: give one for each")
        results = []
        for k, (one, canvas) in enumerate(zip(each, self.canvases, strict=True)):
            picture = canvas.source if one is None else one
            if picture is None:
                raise ValueError(
                    "an inversion that was reopened holds its picture at the model's size alone: give the original"
                )
            own = picture if isinstance(picture, Original) else to_own_pixels(picture)  # type: ignore[arg-type]
            canvas.check_original(own)
            edited, limit = canvas.place(self.pictures[-1][k : k + 1]), self._limit(k, *own.values.shape[:2])
            results.append(carry_up(own, canvas.image, edited, self.region(k), limit))
        return results

    def region(self, k: int) -> np.ndarray:
        """The region (h, w) uint8 of the ``k``-th picture at the model's scale, 0 where no pixel may change."""
        canvas, mask = self.canvases[k], self.stages[-1].mask
        whole = torch.ones(1, 1, *canvas.extent, device="cpu")
        return canvas.place_mask(whole if mask is None else mask[k : k + 1])

    def _limit(self, k: int, height: int, width: int) -> np.ndarray | None:
        """The pixels (height, width) of a picture that may change: inside the user's mask and what the cascade
        works on. ``None`` for all of them."""
        canvas, limits = self.canvases[k], []
        covered = np.zeros(canvas.image.shape[:2], np.uint8)
        canvas.crop(covered)[:] = 1
        if not covered.all():
            limits.append(np.asarray(Image.fromarray(covered).resize((width, height), Image.Resampling.NEAREST)) > 0)
        if self.limits:
            limits.append(resized(self.limits[k], height, width) > 0)
        return np.logical_and.reduce(limits) if limits else None

    @property
    def pictures(self) -> tuple[Tensor, ...]:
        """The edited picture (batch, 3, h, w) in [-1, 1] of each stage."""
        return tuple(stage.picture for stage in self.stages)

    @property
    def masks(self) -> tuple[Tensor, ...] | None:
        """The mask (batch, 1, h, w) of each stage, ``None`` where a stage may change everywhere."""
        masks = tuple(stage.mask for stage in self.stages if stage.mask is not None)
        return masks if len(masks) == len(self.stages) else None

    @property
    def reports(self) -> tuple[Mapping[str, Any], ...]:
        """The settings that the first stage was edited with, one mapping a picture."""
        return self.stages[0].reports


Running = Generator[State, None, StageEdit]
"""An edit in progress: the states as they are computed, and the result at the end."""


@dataclass(frozen=True, eq=False)
class Site:
    """One stage of an inversion while it is edited: everything that an editor is given.

    ``target`` is the condition of the new prompt; at a super-resolution stage it holds the edited picture of the stage
    below. ``below`` is the edit of that stage, ``None`` at the first. ``limit`` (batch, 1, h, w) is the user's mask at
    the size of the largest stage, 1 where the picture may change; ``None`` without one.
    """

    stage: Stage
    inversion: StageInversion
    target: Condition
    source_prompts: tuple[str, ...]
    target_prompts: tuple[str, ...]
    below: StageEdit | None = None
    limit: Tensor | None = None

    @property
    def source_prompt(self) -> str:
        """The prompt that the first picture was inverted with."""
        return self.source_prompts[0]

    @property
    def target_prompt(self) -> str:
        """The prompt that the first picture is edited by."""
        return self.target_prompts[0]

    @property
    def path(self) -> Sequence[Tensor]:
        """The inverted states (batch, channels, h, w), one for each level of the grid, noisy to clean.

        Those of an exact method are inverted as deep as they are asked for: ``path[-1]`` costs nothing.
        """
        return self.inversion.path

    @property
    def picture(self) -> Tensor:
        """The picture at this stage (batch, 3, h, w), as it was inverted."""
        return self.inversion.picture if self.inversion.origin is None else self.inversion.origin.picture

    @property
    def grid(self) -> Grid:
        """The levels of the inversion, noisy to clean."""
        return self.inversion.grid

    def region(self, default: Region) -> Tensor | None:
        """The region (batch, 1, h, w) of the edit at the size of the states: the user's mask if there is one, else the
        editor's own."""
        return default(self) if self.limit is None else self.limit_at(self.stage.shape[1:])

    def limit_at(self, size: tuple[int, ...]) -> Tensor:
        """The user's mask at a size; no small part of it is lost. Ones where there is none."""
        if self.limit is None:
            return torch.ones(len(self.path[-1]), 1, *size, device=self.path[-1].device)
        return F.adaptive_max_pool2d(self.limit, size)

    def guidance_scale(self, scale: float) -> float:
        """The scale that an edit runs at: the one given, or the inversion's own where its negative condition was
        fitted."""
        return self.inversion.guidance.with_scale(scale).scale

    def towards(self, scale: float) -> Field:
        """The field that is guided from the source prompt to the target prompt.

        Guidance acts on the difference between the two prompts, since the source prompt takes the place of the empty
        one (negative-prompt inversion: Miyake, Iohara, Saito, Tanaka, 2023, https://arxiv.org/abs/2305.16807). Null
        embeddings that were fitted to the inversion are used instead, at the scale they were fitted for.
        """
        guidance = self.inversion.guidance.with_scale(scale)
        negative = self.inversion.negative if guidance.fitted else self.inversion.condition
        return guidance(self.stage.denoiser, self.target, negative)

    def guided(self, scale: float) -> Field:
        """The field of the target prompt, guided from the empty prompt."""
        return CFG(scale)(self.stage.denoiser, self.target, self.stage.with_prompt(self.target, None))

    def unguided(self) -> Field:
        """The field of the target prompt without guidance."""
        return unguided(self.stage.denoiser, self.target)

    def source(self, guided: bool = False) -> Field:
        """The field of the source prompt without guidance; ``guided``, with fitted null embeddings if there are any."""
        if guided and self.inversion.guidance.fitted:
            return self.inversion.field(self.stage.denoiser)
        return unguided(self.stage.denoiser, self.inversion.condition)

    def noised(self, noise: Tensor) -> list[Tensor]:
        """The picture's clean state under ``noise`` (batch, channels, h, w) at each level, and as it is at the last."""
        clean, grid = self.path[-1], self.grid
        return [*(move(clean, noise, grid[-1], level) for level in grid[:-1]), clean]

    def follow_path(
        self,
        rule: Step,
        share: float,
        field: Field,
        mask: Tensor | None = None,
        shift: Tensor | None = None,
        wrap: Callable[[Step], Step] = lambda rule: rule,
    ) -> Generator[State, None, State]:
        """Run a rule over the last ``share`` of the levels, from the inverted state there; returns the clean state.

        Outside ``mask`` (batch, 1, h, w) every state is the inverted one. ``shift`` (batch, channels, h, w) is a change
        of the clean data that is added to the starting states, times alpha. A path of independent noise lies on no
        rule's trajectory, so the rule whose noise maps were kept runs in place of ``rule``. ``wrap`` returns the
        rule that steps, made of that rule.
        """
        own = self.rule_for(rule)
        start = start_index(self.grid, share)
        kept = 1 if isinstance(own, OneStep) else min(2, start + 1)  # rules remember the level before, at most
        samples = [self.path[start - k] for k in range(kept)]
        if shift is not None:
            samples = [x + self.grid[start - k].alpha * shift for k, x in enumerate(samples)]
        state = own.init(*samples)
        own = wrap(own)
        return last_state(run(own if mask is None else Blend(own, mask, self.path), field, state, self.grid, start))

    def rule_for(self, rule: Step) -> Step:
        """The rule that an edit along the path runs: ``rule``, or the inversion's own where its path fits no other."""
        return rule if self.inversion.plan.inverter.follows_rule else self.inversion.rule

    def result(self, state: State, mask: Tensor | None, **report: Any) -> StageEdit:
        """The edit that a clean state and a mask (batch, 1, h, w), at the size of states or pictures, make."""
        picture = self.stage.decode(state[0])
        mask = None if mask is None else F.interpolate(mask, self.stage.extent)
        if self.stage.codec is not None and mask is not None:  # a decoder's change reaches past the mask
            picture = torch.where(mask > 0, picture, self.picture)
        return StageEdit(picture.clamp(-1, 1), mask, (report,) * len(picture))

    def rows(self) -> Iterator[Site]:
        """The site of each picture of the batch alone, for editors that decide something by looking at the picture."""
        n = len(self.path[-1])
        if n == 1:
            yield self
            return
        for k in range(n):
            below = self.below
            if below is not None:
                mask = None if below.mask is None else below.mask[k : k + 1]
                below = StageEdit(below.picture[k : k + 1], mask, below.reports[k : k + 1])
            yield replace(
                self,
                inversion=self.inversion.row(k),
                target=self.target.row(k),
                source_prompts=self.source_prompts[k : k + 1],
                target_prompts=self.target_prompts[k : k + 1],
                below=below,
                limit=None if self.limit is None else self.limit[k : k + 1],
            )


def edit_rows(site: Site, mask: Tensor | None, edit: Callable[[Site, Tensor | None], Running]) -> Running:
    """Edit each picture of a batch by itself, with its row of ``mask`` (batch, 1, h, w), so that it decides alone."""
    edits = []
    for k, row in enumerate(site.rows()):
        edits.append((yield from edit(row, None if mask is None else mask[k : k + 1])))
    return StageEdit.stack(edits)


Editor = Callable[[Site], Running]
"""An editor, called once for each stage."""

Region = Callable[[Site], Tensor | None]
"""The region where an edit may act at the first stage: (batch, 1, h, w), 1 inside; ``None`` for everywhere."""


@dataclass(frozen=True, eq=False)
class Blend(Wrapped):
    """A rule that restores the background after each step: ``mask * new + (1 - mask) * path[i + 1]``.

    It blends with the state of the level that the step arrives at, so the last step restores the picture itself.
    """

    mask: Tensor
    path: Sequence[Tensor]

    def step(self, field: Field, state: State, grid: Grid, i: int) -> State:
        new, *rest = self.rule.step(field, state, grid, i)
        return (
            torch.where(self.mask > 0, self.mask * new + (1 - self.mask) * self.path[i + 1], self.path[i + 1]),
            *rest,
        )


def start_index(grid: Grid, share: float) -> int:
    """The index of the level where the last ``share`` of a grid's steps begins; at least one step is left."""
    steps = len(grid) - 1
    return min(steps - 1, round((1 - share) * steps))


def share_of(grid: Grid, start: int) -> float:
    """The share of a grid's steps that a run from ``grid[start]`` takes, in (0, 1]."""
    return 1 - start / (len(grid) - 1)


def last_state(states: Iterator[State]) -> Generator[State, None, State]:
    """Yield states and return the last."""
    for state in states:
        yield state
    return state

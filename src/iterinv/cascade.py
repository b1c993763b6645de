"""A cascade of stages, and what happens to a picture in it: invert, rerun, edit.

Every stage works on the picture resized to its own size. A super-resolution stage is conditioned on the *reconstruction*
that the stage below made, since that is what it will see when it is run again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.edits.site import Edit, Editor, Site, StageEdit, start_index
from iterinv.guidance import CFG
from iterinv.inversion import (
    Inversion,
    Plan,
    Progress,
    StageInversion,
    annotate_errors,
    finish,
    invert_stage,
    reconstructed,
    rerun_stage,
    told,
)
from iterinv.levels import State
from iterinv.models import Stage
from iterinv.models.presets import Defaults
from iterinv.steps import DDIM, Step
from iterinv.steps.run import run


@dataclass(frozen=True)
class Cascade:
    """Stages from small to large, each fed with the picture of the one before."""

    stages: tuple[Stage, ...]
    defaults: Defaults = field(default_factory=Defaults)

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

        ``plan`` is one for all stages or one for each. ``seed`` draws the noise on the low-resolution conditions, and that of
        a scattered path. The reconstruction and the path of every stage are in what comes back. Raises ``ValueError`` for a
        picture of another shape or range.
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
            own = seed + 2000 + k  # apart from the seeds of the conditions and of a sampler
            found.append(invert_stage(stage, how, condition, resize(picture, stage.size), own, progress))
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
            with annotate_errors(stage, found.plan):
                path = tuple(rerun_stage(stage, found, progress))
            report = replace(found.report, seconds=time.perf_counter() - began)
            kept = path if found.plan.inverter.exact else found.path
            stages.append(replace(found, path=kept, picture=reconstructed(stage, found, path[-1]), report=report))
        return replace(inversion, stages=tuple(stages))

    @torch.no_grad()
    def edit(self, inversion: Inversion, prompt: str, editor: Editor, progress: Progress | None = None) -> Edit:
        """Edit an inversion by another prompt: the editor is called once for each stage, from small to large.

        Raises ``ValueError`` for an inversion made with other weights.
        """
        if any(found.path is None or found.picture is None for found in inversion.stages):
            inversion = self.rerun(inversion, progress)
        self._check(inversion)
        edits: list[StageEdit] = []
        for stage, found in zip(self.stages, inversion.stages, strict=True):
            below = edits[-1] if edits else None
            target = stage.condition(prompt, below.picture if below else None, found.condition.get("low_noise"))
            with annotate_errors(stage, found.plan, type(editor).__name__):
                work = editor(Site(stage, found, target, inversion.prompt, prompt, below))
                edits.append(finish(work, stage, "editing", None, progress))
        return Edit(tuple(edits))

    def up_to(self, size: int) -> Cascade:
        """The stages up to that of a size, as a cascade. Raises ``ValueError`` where no stage has it."""
        sizes = [stage.size for stage in self.stages]
        if size not in sizes:
            raise ValueError(f"no stage is of {size} px: the sizes are {', '.join(map(str, sizes))}")
        return replace(self, stages=self.stages[: sizes.index(size) + 1])

    @torch.no_grad()
    def sample(
        self, prompt: str | Sequence[str], steps: int = 20, guidance: float = 2.0, seed: int = 0, batch: int = 1,
        rule: Step | None = None, detail: float = 0.8, progress: Progress | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Draw pictures (batch, 3, size, size) in [-1, 1] from the words alone, one tensor a stage.

        Of several prompts, ``batch`` pictures each, in their order.

        Guidance acts on the first stage. The noise of every stage comes from CPU generators seeded with ``seed``. A
        super-resolution stage runs the last ``detail`` of its levels, from the enlarged picture noised to the first of them:
        at the levels before, a small error of the predicted noise is a large one of colour, which the stage below settled.
        """
        rule = rule or DDIM()
        pictures: list[Tensor] = []
        prompts = prompt if isinstance(prompt, str) else [each for each in prompt for _ in range(batch)]
        rows = batch if isinstance(prompt, str) else len(prompts)
        for k, stage in enumerate(self.stages):
            noise = torch.randn((rows, *stage.shape), generator=torch.Generator().manual_seed(seed + 1000 + k))
            condition = stage.condition(prompts, pictures[-1] if pictures else None, seed=seed + k)
            guide = CFG(1.0 if pictures else guidance)
            field = guide(stage.denoiser, condition, stage.with_prompt(condition, ""))
            grid = stage.schedule.grid(steps)
            start, x = 0, noise.to(stage.device).double()
            if stage.low_level is not None:
                start = start_index(grid, detail)
                x = grid[start].alpha * stage.enlarged(condition["low_image"]) + grid[start].sigma * x
            states = run(rule, field, rule.init(x), grid, start)
            last = _last(states, stage, "sampling", len(grid) - start, progress)
            pictures.append(stage.decode(last[0]).clamp(-1, 1))
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


def _last(states: Iterable[State], stage: Stage, doing: str, total: int, progress: Progress | None) -> State:
    *_, last = told(states, stage, doing, total, progress)
    return last

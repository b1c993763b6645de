"""A cascade of stages: invert, rerun, edit and sample.

Every stage works on the picture resized to its own size. A super-resolution stage is conditioned on the
*reconstruction* that the stage below made, since that is what it will see when it is run again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from iterinv import path_cache
from iterinv.edits import EDITORS
from iterinv.edits.site import Edit, Editor, Site, StageEdit, start_index
from iterinv.guidance import CFG
from iterinv.images import Canvas, Picture, Pictures, check_output_type, output, resize, sides, to_array, to_uint8
from iterinv.inversion import Inversion, differs, open_inversion
from iterinv.loading import load_stages
from iterinv.masks import Mask, to_mask
from iterinv.methods import plans, sampler
from iterinv.models import Stage, WatchedDenoiser
from iterinv.models.extents import at_extent, rectangle, unit_of
from iterinv.models.memory import checked_device
from iterinv.models.probe import Probe
from iterinv.observer import CallbackObserver, Observer, StepCallback
from iterinv.plans import Plan
from iterinv.presets import Defaults
from iterinv.stage_inversion import (
    StageInversion,
    annotate_errors,
    as_needed,
    finish,
    invert_stage,
    reported,
    rerun_stage,
)
from iterinv.steps import Step
from iterinv.steps.run import run
from iterinv.streams import draw_noise
from iterinv.typed import Count, Natural, Positive, Range, checked


@dataclass(frozen=True)
class Output:
    """Sampled pictures, as ``output_type`` asks for them."""

    images: Pictures


@dataclass(frozen=True, eq=False)
class Cascade:
    """Stages from small to large, each conditioned on the picture of the one before; and the settings that suit
    them."""

    stages: tuple[Stage, ...]
    defaults: Defaults = field(default_factory=Defaults)

    def __repr__(self) -> str:
        sizes = " -> ".join(str(stage.size) for stage in self.stages)
        return f"Cascade({sizes} px, {len(self.stages)} stages on {self.stages[0].device})"

    @classmethod
    def from_pretrained(
        cls,
        what: Any = "embedded",
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        torch_dtype: torch.dtype | None = None,
        memory: str | None = None,
        *,
        noise_level: int | None = None,
        clean: bool | None = None,
        tiled: bool = False,
        distilled_guidance: float | None = None,
        allow_pickle: bool = False,
        variant: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        config: str | Path | None = None,
    ) -> Cascade:
        """Load a cascade: one of :data:`iterinv.presets.PRESETS`; that of a folder with a ``cascade.json``; or
        stages by themselves, one or a list from small to large, each a diffusers folder, a name on the hub, a
        Stable Diffusion checkpoint in one file, a live pipeline, or a network of EDM's kind: an ONNX or TorchScript
        file, or a module. What is live stays as it is and shares its weights; load it again after changing it.

        ``dtype`` is the networks' (``torch_dtype`` is its older name), float32 unless given; states keep their own. A
        live pipeline keeps its own. ``memory`` is the device's, as ``16gb``, or ``auto``: what does not fit there at
        once takes turns, network by network or layer by layer, and DeepFloyd's T5 is loaded only to read new words.
        ``noise_level`` is that on the pictures from below; ``clean`` captions as DeepFloyd does; ``tiled`` lets
        autoencoders work in less memory; ``distilled_guidance`` is the guidance scale that FLUX.1-dev takes as an
        input, 3.5 unless given; ``allow_pickle`` opens files that run code; ``variant``, ``revision``,
        ``local_files_only`` and, for one file, ``config`` are diffusers' own. Every network is run once on a small
        input. Raises ``FileNotFoundError`` for what is not there, ``ValueError`` for what is no stage or cannot be run,
        ``MemoryError`` for what fits in no way.
        """
        how = {
            "noise_level": noise_level,
            "clean": clean,
            "tiled": tiled,
            "distilled_guidance": distilled_guidance,
            "allow_pickle": allow_pickle,
            "variant": variant,
            "revision": revision,
            "local_files_only": local_files_only,
            "config": config,
        }
        kinds: dict[str, Any] = {name: bool for name in ("tiled", "allow_pickle", "local_files_only")}
        kinds |= {"noise_level": int | None, "clean": bool | None, "variant": str | None, "revision": str | None}
        kinds["distilled_guidance"] = Positive | None
        for name, kind in kinds.items():
            checked(how[name], kind, name)
        dtype = checked(dtype if dtype is not None else torch_dtype, torch.dtype | None, "dtype")
        device = str(device) if isinstance(device, torch.device) else device
        device, memory = checked(device, str, "device"), checked(memory, str | None, "memory")
        if isinstance(what, (list, tuple)) and not what:
            raise ValueError("the list of stages is empty: give one stage or several, from small to large")
        return cls(*load_stages(what, dtype, device, memory, **how))

    @property
    def size(self) -> int:
        """The side in px of the largest stage's pictures."""
        return self.stages[-1].size

    @property
    def extent(self) -> tuple[int, int]:
        """The height and width in px of the largest stage's pictures."""
        return self.stages[-1].extent

    def at(self, height: int, width: int) -> Cascade:
        """The cascade at pictures of another height and width in px; that of the same weights, so that inversions are
        of both.

        Raises ``ValueError`` for sides that are not whole at every stage, and where a network takes its square alone.
        """
        extent = checked(height, int, "height"), checked(width, int, "width")
        return replace(self, stages=at_extent(self.stages, extent))

    @property
    def fingerprint(self) -> str:
        """A name for the weights, settings and precision of all stages."""
        return "-".join(stage.fingerprint for stage in self.stages)

    @property
    def probes(self) -> tuple[Probe | None, ...]:
        """The numbers that each stage's networks compute of a fixed input."""
        return tuple(stage.probe for stage in self.stages)

    @torch.no_grad()
    def invert(
        self,
        picture: Picture | Sequence[Picture],
        prompt: str | Sequence[str],
        method: str | Plan | Sequence[str] | Sequence[Plan] = "bdia",
        num_inference_steps: int | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        *,
        seed: int | Sequence[int] = 0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        fit: str = "pad",
        as_needed: bool = False,
        callback_on_step_end: StepCallback | None = None,
        observer: Observer | None = None,
    ) -> Inversion:
        """Invert pictures through all stages, and reconstruct them.

        A picture is a file, a PIL image, an array (h, w, 3) uint8 or a tensor in [-1, 1], of any size; a tensor
        (batch, 3, size, size) or a list is a batch. Pictures that are not square are brought to a square by ``fit``
        ``pad`` or ``crop``, or worked on at a rectangle of as many pixels, near their ``aspect`` ratio
        (:meth:`canvas`): one for the whole batch.
        ``prompt`` is one for all or one for each picture. ``method`` is a name of :data:`iterinv.methods.METHODS`, with
        ``num_inference_steps`` (20 unless given) and ``guidance_scale`` (1, none, unless given), or a plan; a list of
        methods, of guidance scales or of plans has one for each stage. ``seed`` or ``generator``, one for all or one
        for each picture, draw the noise on the low-resolution conditions and that of an independent path. With
        ``as_needed`` an exact method inverts each stage only as deep as its states are asked for, by an edit or by
        ``noise``, and does not run it again to check. ``callback_on_step_end`` is called after every step
        (:data:`iterinv.observer.StepCallback`); ``observer`` hears of more.

        Raises ``ValueError`` for pictures, prompts, methods and settings that cannot work.
        """
        watch = self._observer(observer, callback_on_step_end)
        plans = self._plans(method, num_inference_steps, guidance_scale)
        lazily = checked(as_needed, bool, "as_needed")
        x, canvases = self._pictures(picture, fit, watch)
        prompts = self._prompts(prompt, len(x))
        seeds = _seeds(seed, generator, len(x))
        inversions: list[StageInversion] = []
        for stage, how in zip(self.at(*canvases[0].extent)._watched(watch), plans, strict=True):
            condition = stage.condition(prompts, inversions[-1].picture if inversions else None, seeds=seeds)
            for note in () if inversions else condition.notes:  # the stages above read the same prompts
                watch.on_note(note)
            inversions.append(invert_stage(stage, how, condition, resize(x, stage.extent), seeds, watch, lazily))
        return Inversion(prompts, seeds, self.fingerprint, tuple(inversions), canvases, self.probes)

    @torch.no_grad()
    def rerun(self, inversion: Inversion, *, observer: Observer | None = None) -> Inversion:
        """Reconstruct an inversion: the same, with the trajectory of every stage computed now.

        In other arithmetic (threads, batch, machine) the networks' last digits are others. A note says whether every
        pixel of the reconstruction is as it was. Where it is not, an exact method inverts the picture again, or takes
        the states in the file if it holds them, and reconstructs exactly here too: ``stages[k].rerun`` says so. Raises
        ``ValueError`` for an inversion made with other weights.
        """
        self._check(inversion)
        watch = self._observer(observer, None)
        pairs = zip(self.at(*inversion.extent)._watched(watch), inversion.stages, strict=True)
        again = replace(
            inversion, stages=tuple(rerun_stage(stage, stage_inversion, watch) for stage, stage_inversion in pairs)
        )
        if said := again.rerun_note():
            watch.on_note(said)
        return again

    def as_needed(
        self, inversion: Inversion, *, path: str | Path | None = None, observer: Observer | None = None
    ) -> Inversion:
        """A reopened inversion whose states are computed as deep as an edit asks for them, once for several edits.

        The states of an exact method are those of the picture in the file, inverted in the arithmetic of here; a solved
        path is the file's. Nothing is run to reconstruct. ``path`` is a file of states that earlier edits asked for
        (:mod:`iterinv.path_cache`), which are not computed again. Raises ``ValueError`` for an inversion made with
        other weights.
        """
        self._check(inversion)
        watch = self._observer(observer, None)
        none: list[list[Tensor]] = [[] for _ in self.stages]
        at = self.at(*inversion.extent)
        known = none if path is None else path_cache.load(Path(path), inversion, at.stages)
        triples = zip(at._watched(watch), inversion.stages, known, strict=True)
        return replace(
            inversion, stages=tuple(as_needed(stage, each, watch, states) for stage, each, states in triples)
        )

    @torch.no_grad()
    def edit(
        self,
        inversion: Inversion,
        prompt: str | Sequence[str],
        editor: str | Editor | None = None,
        *,
        mask: Mask | Sequence[Mask] | None = None,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
        observer: Observer | None = None,
    ) -> Edit:
        """Edit an inversion by another prompt: the editor is called once for each stage, from small to large.

        ``prompt`` is one for all or one for each picture. ``editor`` is a name of :data:`iterinv.edits.EDITORS`, any
        function of a :class:`iterinv.edits.Site`, or the cascade's default. ``mask``, of any size, one for all
        or one for each picture, is 1 or white where the picture may change, in place of the editor's own region;
        outside it every 8-bit pixel stays as it is. ``output_type`` is that of ``edit.images``:
        ``pil``, ``np`` or ``pt``. Raises ``ValueError`` for an inversion made with other weights and for an editor that
        there is not.
        """
        self._check(inversion)
        check_output_type(output_type)
        watch = self._observer(observer, callback_on_step_end)
        how = self._editor(editor)
        prompts = self._prompts(prompt, len(inversion))
        masks = _masks(mask, len(inversion))
        limit = self._limit(masks, inversion.canvases)
        inversion = self.as_needed(inversion, observer=watch)
        edits: list[StageEdit] = []
        for stage, stage_inversion in zip(self.at(*inversion.extent)._watched(watch), inversion.stages, strict=True):
            below = edits[-1] if edits else None
            target = stage.condition(
                prompts, below.picture if below else None, stage_inversion.condition.get("low_noise")
            )
            for note in () if below else target.notes:
                watch.on_note(note)
            with annotate_errors(stage, stage_inversion.plan, type(how).__name__):
                work = how(Site(stage, stage_inversion, target, inversion.prompts, prompts, below, limit))
                edits.append(finish(reported(work, stage, "editing", watch)))
        return Edit(tuple(edits), inversion.canvases, output_type, prompts, tuple(each > 0 for each in masks))

    @torch.no_grad()
    def sample(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        *,
        height: int | None = None,
        width: int | None = None,
        batch_size: int = 4,
        rule: str | Step | None = None,
        detail: float = 0.8,
        seed: int = 0,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
        observer: Observer | None = None,
    ) -> tuple[Tensor, ...]:
        """Draw pictures (batch, 3, h, w) in [-1, 1] from prompts alone, one tensor a stage.

        ``height`` and ``width`` in px, at the largest stage, are the cascade's own unless given (:meth:`at`).
        Of several prompts, ``num_images_per_prompt`` pictures each, in their order; ``batch_size`` of them go through
        the networks at once, which alone decides how much memory that takes. ``num_inference_steps``,
        ``guidance_scale``, which acts on the first stage, and ``rule``, a name of :data:`iterinv.steps.RULES` or a
        rule, are the cascade's own unless given. Every picture has its own noise at every stage, drawn from ``seed``
        and its place in the batch, so that it does not depend on the size of the batch. A super-resolution stage runs
        the last ``detail`` of its levels, from the enlarged picture noised to the first of them: at the levels before,
        a small error of the predicted noise is a large one of colour, which the stage below settled.

        Raises ``TypeError`` for a setting of another kind, ``ValueError`` for one that cannot work.
        """
        watch = self._observer(observer, callback_on_step_end)
        rule = self.defaults.sampler if rule is None else rule
        solver = checked(sampler(rule) if isinstance(rule, str) else rule, Step, "rule")
        several = not isinstance(prompt, str) and isinstance(prompt, Sequence)
        prompts = self._prompts(prompt, len(prompt) if several else 1)
        count, block = (
            checked(value, Annotated[int, Range(1, math.inf)], name)
            for value, name in ((num_images_per_prompt, "num_images_per_prompt"), (batch_size, "batch_size"))
        )
        rows = [each for each in prompts for _ in range(count)]
        (start_seed,) = _seeds(seed, generator, 1)
        steps = self.defaults.sampling_steps if num_inference_steps is None else num_inference_steps
        scale = self.defaults.sampling_guidance if guidance_scale is None else guidance_scale
        how = (
            solver,
            checked(steps, Count, "num_inference_steps"),
            checked(scale, float, "guidance_scale"),
            checked(detail, Annotated[float, Range(0, 1)], "detail"),
        )
        noted: set[str] = set()
        at = self.at(
            *(own if given is None else given for own, given in zip(self.extent, (height, width), strict=True))
        )
        blocks = [
            at._sample(rows[first : first + block], first, start_seed, *how, watch, noted)
            for first in range(0, len(rows), block)
        ]
        return tuple(torch.cat(pictures) for pictures in zip(*blocks, strict=True))

    def _sample(
        self,
        rows: list[str],
        first: int,
        seed: int,
        solver: Step,
        steps: int,
        scale: float,
        detail: float,
        watch: Observer,
        noted: set[str],
    ) -> list[Tensor]:
        """Draw the pictures of some rows, from row ``first`` of all; ``noted`` holds the notes of the blocks before."""
        pictures: list[Tensor] = []
        for stage in self._watched(watch):
            noise, on_low = (
                torch.cat([draw_noise(shape, [seed], name, stage.name, first + k) for k in range(len(rows))])
                for name, shape in (("sample", stage.shape), ("low noise", (3, *stage.shape[1:])))
            )
            condition = stage.condition(rows, pictures[-1] if pictures else None, on_low)
            for note in () if pictures else (each for each in dict.fromkeys(condition.notes) if each not in noted):
                noted.add(note)
                watch.on_note(note)
            guide = CFG(1.0 if pictures else scale)
            eps = guide(stage.denoiser, condition, stage.with_prompt(condition, None))
            grid, start = stage.schedule.grid(steps), 0
            noise = noise.to(stage.device, torch.float64)
            x = grid[0].noise_scale * noise
            if stage.low_level is not None:
                start = start_index(grid, detail)
                x = grid[start].alpha * stage.enlarged(condition["low_image"]) + grid[start].sigma * noise
            timesteps = [level.t for level in grid[start:]]
            states = run(solver, eps, solver.init(x), grid, start)
            *_, last = reported(states, stage, "sampling", watch, len(timesteps), timesteps)
            pictures.append(stage.decode(last[0]).clamp(-1, 1))
        return pictures

    def __call__(self, prompt: str | Sequence[str], *args: Any, output_type: str = "pil", **settings: Any) -> Output:
        """:meth:`sample`, with the largest stage's pictures in ``.images``, as diffusers' pipelines return them."""
        check_output_type(output_type)
        pictures = self.sample(prompt, *args, **settings)[-1]
        return Output(output([to_uint8(x[None]) for x in pictures], output_type))

    def open(self, path: str | Path) -> Inversion:
        """Reopen an inversion file. Raises :class:`iterinv.store.BadInversion` for another file or an inversion by
        another cascade."""
        if not isinstance(path, (str, Path)):
            raise TypeError(f"an inversion file is named by a text or a Path, not by a {type(path).__name__}")
        return open_inversion(Path(path), self.stages, self.fingerprint, self.probes)

    def to(self, device: str) -> Cascade:
        """Move the networks to a device, in place; returns the cascade that runs there. A live pipeline stays where it
        is.

        Raises ``ValueError`` for a device that is not here and a stage that cannot be moved, since its networks take
        turns.
        """
        checked_device(device)
        moved: list[Stage] = []
        for stage in self.stages:
            moved.append(stage.to(device, moved[-1] if moved else None))
        return replace(self, stages=tuple(moved))

    def up_to(self, size: int) -> Cascade:
        """The stages up to that of a size, as a cascade. Raises ``ValueError`` where no stage has it."""
        size, sizes = checked(size, int, "size"), [stage.size for stage in self.stages]
        if size not in sizes:
            raise ValueError(f"no stage is of {size} px: the sizes are {', '.join(map(str, sizes))}")
        return replace(self, stages=self.stages[: sizes.index(size) + 1])

    def _plans(
        self,
        method: str | Plan | Sequence[str] | Sequence[Plan],
        steps: int | None,
        guidance: float | Sequence[float] | None,
    ) -> list[Plan]:
        """A plan for each stage."""
        how: Plan | Sequence[Plan]
        if isinstance(method, Plan) or _are(Plan, method):
            if steps is not None or guidance is not None:
                raise ValueError(
                    "a plan has its own steps and guidance: leave num_inference_steps and guidance_scale out"
                )
            how = method  # type: ignore[assignment]
        elif isinstance(method, str) or _are(str, method):
            how = plans(method, 20 if steps is None else steps, 1.0 if guidance is None else guidance)  # type: ignore[arg-type]
        else:
            raise TypeError(f"method is {method!r}; it is a name, a plan, or a list of one for each stage")
        each = [how] * len(self.stages) if isinstance(how, Plan) else list(how)
        if len(each) != len(self.stages):
            raise ValueError(f"there are {len(each)} plans for {len(self.stages)} stages")
        return each

    def _editor(self, editor: str | Editor | None) -> Editor:
        name = self.defaults.editor if editor is None else editor
        if not isinstance(name, str):
            own: Editor = checked(name, Callable, "editor")
            return own
        if name not in EDITORS:
            raise ValueError(f"there is no editor {name!r}: the editors are {', '.join(EDITORS)}")
        return EDITORS[name]()

    def canvas(self, picture: np.ndarray, fit: str = "pad") -> tuple[Canvas, list[str]]:
        """A picture (h, w, 3) uint8 at working scale, and notes of what was done.

        ``pad`` and ``crop`` bring it to the cascade's own extent, ``aspect`` to a rectangle near its own aspect ratio
        (:func:`iterinv.models.extents.rectangle`). Raises ``ValueError`` for an unknown ``fit``, a picture that is too
        long for it, and where a network takes its square alone and the picture is none.
        """
        (height, width), extent = picture.shape[:2], self.extent
        if fit == "aspect":
            extent = self.size, self.size
            if height != width:
                extent = rectangle(height, width, self.size, unit_of(self.stages))
        return Canvas.fit(picture, extent, fit)

    def _pictures(
        self, picture: Picture | Sequence[Picture], fit: str, watch: Observer
    ) -> tuple[Tensor, tuple[Canvas, ...]]:
        """Pictures (batch, 3, h, w) in [-1, 1], and a canvas for each, of one extent."""
        if isinstance(picture, Tensor) and picture.ndim == 4 and picture.shape[1:] == (3, *self.extent):
            if not bool(torch.isfinite(picture).all()) or float(picture.abs().max()) > 1 + 1e-6:
                raise ValueError("the picture's values must be finite and lie in [-1, 1]")
            arrays = [to_uint8(x[None]) for x in picture]
            return picture, tuple(Canvas(array, self.extent, 0, 0, array) for array in arrays)
        each = list(picture) if isinstance(picture, (list, tuple)) else [picture]
        if not each:
            raise ValueError("there is no picture in the list")
        canvases = []
        for one in each:
            array, notes = to_array(one)  # type: ignore[arg-type]
            canvas, more = self.canvas(array, fit)
            canvases.append(replace(canvas, source=one))  # type: ignore[arg-type]
            for note in [*notes, *more]:
                watch.on_note(f"{one.name}: {note}" if isinstance(one, Path) else note)
        if len(extents := {canvas.extent for canvas in canvases}) > 1:
            raise ValueError(
                f"the pictures are worked on at {' and '.join(map(sides, sorted(extents)))} px, and a batch has one "
                "height and width: invert them one by one, or pad or crop them to a square"
            )
        return torch.cat([canvas.covered() for canvas in canvases]), tuple(canvases)

    def _limit(self, masks: list[np.ndarray], canvases: tuple[Canvas, ...]) -> Tensor | None:
        """The masks (batch, 1, h, w) of pictures on canvases, ``None`` without any."""
        if not masks:
            return None
        limits = [canvas.cover(each) for canvas, each in zip(canvases, masks, strict=True)]
        return torch.cat(limits).to(self.stages[0].device)

    def _prompts(self, prompt: str | Sequence[str], n: int) -> tuple[str, ...]:
        each = [prompt] * n if isinstance(prompt, str) else prompt
        if not isinstance(each, Sequence) or not all(isinstance(one, str) for one in each):
            raise TypeError(f"the prompt is {prompt!r}; it is a text, or a list of one text for each picture")
        prompts = tuple(each)
        if len(prompts) != n:
            raise ValueError(f"there are {len(prompts)} prompts for {n} pictures: give one for all, or one for each")
        return prompts

    def _observer(self, observer: Observer | None, callback: StepCallback | None) -> Observer:
        if observer is not None and callback is not None:
            raise ValueError("give callback_on_step_end or an observer, not both")
        checked(observer, Observer | None, "observer")
        checked(callback, Callable | None, "callback_on_step_end")
        return observer or (Observer() if callback is None else CallbackObserver(self, callback))

    def _watched(self, observer: Observer) -> list[Stage]:
        """The stages, with denoisers that tell the observer of every network call."""

        def watched(stage: Stage) -> Stage:
            return replace(stage, denoiser=WatchedDenoiser(stage.denoiser, lambda: observer.on_call(stage.name)))

        return [watched(stage) for stage in self.stages]

    def _check(self, inversion: Inversion) -> None:
        checked(inversion, Inversion, "inversion")
        if reason := differs(inversion.fingerprint, inversion.probes, self.fingerprint, self.probes):
            raise ValueError(f"this inversion {reason}: load that one, or invert the picture again")


def _masks(mask: Mask | Sequence[Mask] | None, n: int) -> list[np.ndarray]:
    """The user's masks (h, w) in [0, 1] of ``n`` pictures, none without any."""
    if mask is None:
        return []
    masks = list(mask) if isinstance(mask, (list, tuple)) else [mask] * n
    if len(masks) != n:
        raise ValueError(f"there are {len(masks)} masks for {n} pictures: give one for all, or one each")
    return [to_mask(each) for each in masks]  # type: ignore[arg-type]


def _are(kind: type, values: object) -> bool:
    return isinstance(values, Sequence) and all(isinstance(each, kind) for each in values)


def _seeds(
    seed: int | Sequence[int], generator: torch.Generator | Sequence[torch.Generator] | None, n: int
) -> tuple[int, ...]:
    """A seed for each picture: drawn from generators if given, one for all or one for each."""
    if generator is not None:
        each = [generator] if not isinstance(generator, Sequence) else list(generator)
        for one in each:
            checked(one, torch.Generator, "generator")
        seed = [int(torch.randint(0, 2**32, (), generator=one, device=one.device)) for one in each]
        seed = seed[0] if len(seed) == 1 else seed
    several = seed if isinstance(seed, Sequence) and not isinstance(seed, str) else [seed] * n
    seeds = tuple(checked(one, Natural, "seed") for one in several)
    if len(seeds) != n:
        raise ValueError(
            f"there are {len(seeds)} seeds or generators for {n} pictures: give one for all, or one for each"
        )
    return seeds


load = Cascade.from_pretrained
"""Load a cascade; see :meth:`Cascade.from_pretrained`."""

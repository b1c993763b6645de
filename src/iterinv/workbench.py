"""The workbench: what the command line, a page and other faces call. Requests come in, events go out, results come
back.

A :class:`Workbench` belongs to one piece of work in one thread. Several of them may use one cascade at the same time.
An exception that ``emit`` raises stops the work between any two network calls.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from iterinv import images
from iterinv.cascade import Cascade, load
from iterinv.edits import EDITORS
from iterinv.edits.site import Edit, Editor
from iterinv.evaluate.folder import write_json
from iterinv.images import Picture
from iterinv.inversion import Inversion, check_file
from iterinv.levels import State
from iterinv.loading import precision
from iterinv.methods import plan, sampler
from iterinv.observer import Observer
from iterinv.reports import edit_report, inversion_report

FILES = (
    "original.png",
    "reconstruction.png",
    "edited.png",
    "mask.png",
    "comparison.png",
    "report.json",
    "inversion.safetensors",
    "compare.json",
    "compare.png",
)
"""All files that a result may write."""


@dataclass(frozen=True)
class Model:
    """A cascade, and how it is loaded; see :func:`iterinv.load`."""

    name: Any = "embedded"
    device: str = "cpu"
    dtype: str | None = None
    memory: str | None = None
    allow_pickle: bool = False
    variant: str | None = None
    config: str | None = None

    def load(self) -> Cascade:
        """The cascade. Raises as :func:`iterinv.load` does."""
        return load(
            self.name,
            dtype=None if self.dtype is None else precision(self.dtype),
            device=self.device,
            memory=self.memory,
            allow_pickle=self.allow_pickle,
            variant=self.variant,
            config=self.config,
        )


@dataclass(frozen=True)
class InvertRequest:
    """Invert one picture; the settings are those of :meth:`iterinv.Cascade.invert`."""

    picture: Picture
    prompt: str
    method: str = "bdia"
    num_inference_steps: int = 20
    guidance_scale: float = 1.0
    seed: int = 0
    fit: str = "pad"
    model: Model = Model()


@dataclass(frozen=True)
class ReopenRequest:
    """Reopen an inversion file and run it again."""

    inversion: Path
    model: Model = Model()


@dataclass(frozen=True)
class EditRequest:
    """Edit a picture or an inversion by another prompt; ``editor`` is a name, ``None`` the cascade's default."""

    source: InvertRequest | ReopenRequest
    prompt: str
    editor: str | None = None
    strength: float | None = None
    guidance_scale: float | None = None


@dataclass(frozen=True)
class CompareRequest:
    """Invert one picture by several methods at equal steps; no methods are all of them."""

    source: InvertRequest
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleRequest:
    """Draw pictures from a prompt; steps, guidance and sampler are the cascade's own unless given."""

    prompt: str
    num_images_per_prompt: int = 1
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    sampler: str | None = None
    gamma: float | None = None
    seed: int = 0
    model: Model = Model()


@dataclass(frozen=True)
class Progress:
    """A step or a network call was done; ``calls`` counts the network calls of the whole request so far."""

    stage: str
    phase: str
    done: int
    total: int | None
    calls: int


@dataclass(frozen=True)
class Note:
    """A sentence that a user should read."""

    text: str


Event = Progress | Note


@dataclass(frozen=True, eq=False)
class Result:
    """One picture's inversion and edit; what was noted on the way; and how it is written."""

    cascade: Cascade
    inversion: Inversion
    notes: list[str]
    seconds: float
    edit: Edit | None = None
    editor: Editor | None = None
    prompt: str = ""

    @property
    def reconstruction(self) -> np.ndarray:
        """The reconstruction (h, w, 3) uint8, at the picture's own shape."""
        return self.inversion.canvases[0].place(self.inversion.picture)

    def report(self) -> dict[str, Any]:
        """The report, as ``report.json`` holds it."""
        report = inversion_report(self.cascade, self.inversion, self.seconds, self.notes)
        if self.edit is not None and self.editor is not None:
            report["edit"] = edit_report(self.prompt, self.editor, self.edit)
        return report

    def write(
        self, folder: Path, *, inversion: bool = True, reconstruction: bool = True, trajectory: bool = False
    ) -> dict[str, Any]:
        """Write the pictures, the inversion (with its ``trajectory`` if asked for) and the report to a folder; returns
        the report."""
        canvas, report = self.inversion.canvases[0], self.report()
        images.save(canvas.image, folder / "original.png")
        if reconstruction:
            images.save(self.reconstruction, folder / "reconstruction.png")
        if inversion:
            self.inversion.save(folder / "inversion.safetensors", trajectory=trajectory)
        if self.edit is not None:
            edited = canvas.place(self.edit.pictures[-1])
            masks = self.edit.masks
            mask = canvas.place_mask(masks[-1] if masks else torch.ones(1, 1, canvas.size, canvas.size, device="cpu"))
            images.save(edited, folder / "edited.png")
            images.save(mask, folder / "mask.png")
            shown = [
                ("original", canvas.image),
                ("reconstruction", self.reconstruction),
                ("mask", np.repeat(mask[..., None], 3, -1)),
                ("edited", edited),
            ]
            images.save(images.strip(shown), folder / "comparison.png")
        write_json(folder / "report.json", report)
        return report


@dataclass
class Workbench(Observer):
    """Runs requests; ``emit`` is called with every event."""

    emit: Callable[[Event], None] = lambda event: None
    notes: list[str] = field(default_factory=list)
    calls: int = 0

    def on_step(
        self, stage: str, phase: str, done: int, total: int | None, timestep: float | None, state: State
    ) -> None:
        self.emit(Progress(stage, phase, done, total, self.calls))

    def on_call(self, stage: str) -> None:
        self.calls += 1
        self.emit(Progress(stage, "network call", self.calls, None, self.calls))

    def on_note(self, text: str) -> None:
        self.notes.append(text)
        self.emit(Note(text))

    def invert(self, request: InvertRequest) -> Result:
        """Invert a picture. Raises ``ValueError`` and ``OSError`` for what cannot work, before any work."""
        began = time.perf_counter()
        prompt = checked_prompt(request.prompt, "prompt")
        how = plan(request.method, request.num_inference_steps, request.guidance_scale)
        check_picture(request.picture, request.fit)
        cascade = request.model.load()
        self._advise(cascade, prompt, "prompt")
        inversion = cascade.invert(request.picture, prompt, how, seed=request.seed, fit=request.fit, observer=self)
        for stage, found in zip(cascade.stages, inversion.stages, strict=True):
            error, target = found.report.root_error_max, how.inverter.target_error
            if error is not None and target is not None and not error <= target:
                self.on_note(f"stage {stage.name}: solved to {error:.0e}, not to {target:.0e}; take more steps")
        return Result(cascade, inversion, self.notes, time.perf_counter() - began)

    def reopen(self, request: ReopenRequest) -> Result:
        """Reopen an inversion and run it again. Raises :class:`iterinv.store.BadInversion`."""
        began = time.perf_counter()
        check_file(request.inversion)
        cascade = request.model.load()
        inversion = cascade.rerun(cascade.open(request.inversion), observer=self)
        return Result(cascade, inversion, self.notes, time.perf_counter() - began)

    def edit(self, request: EditRequest) -> Result:
        """Invert or reopen, then edit. Raises as these do, and ``ValueError`` for an editor that there is not."""
        began = time.perf_counter()
        prompt = checked_prompt(request.prompt, "target prompt", may_be_empty=False)
        editor = editor_of(request.editor, request.strength, request.guidance_scale) if request.editor else None
        source = request.source
        found = self.invert(source) if isinstance(source, InvertRequest) else self.reopen(source)
        cascade = found.cascade
        self._advise(cascade, prompt, "target prompt")
        editor = editor or editor_of(cascade.defaults.editor, request.strength, request.guidance_scale)
        if prompt.lower() == found.inversion.prompt.lower():
            self.on_note("the target prompt is the prompt, so nothing is asked to change")
        edit = cascade.edit(found.inversion, prompt, editor, observer=self)
        if edit.masks is not None and not edit.masks[0].any():
            self.on_note(
                "the mask is empty: the model sees no difference between the two prompts in this picture, so "
                "nothing changed"
            )
        seconds = time.perf_counter() - began
        return Result(cascade, found.inversion, self.notes, seconds, edit, editor, prompt)

    def compare(self, request: CompareRequest) -> Iterator[dict[str, Any]]:
        """A row of :func:`iterinv.evaluate.compare.compare` for each method, as it is done."""
        from iterinv.evaluate.compare import compare
        from iterinv.methods import METHODS

        source = request.source
        prompt = checked_prompt(source.prompt, "prompt")
        for method in request.methods:
            plan(method, source.num_inference_steps, source.guidance_scale)
        check_picture(source.picture, source.fit)
        cascade = source.model.load()
        self._advise(cascade, prompt, "prompt")
        yield from compare(
            cascade,
            source.picture,
            prompt,
            request.methods or tuple(METHODS),
            source.num_inference_steps,
            source.guidance_scale,
            source.seed,
            source.fit,
            self,
        )

    def sample(self, request: SampleRequest) -> list[Image.Image]:
        """Draw pictures of the largest stage's size."""
        rule = sampler(request.sampler, request.gamma) if request.sampler else None
        prompt = checked_prompt(request.prompt, "prompt")
        cascade = request.model.load()
        rule = rule or sampler(cascade.defaults.sampler, request.gamma)
        self._advise(cascade, prompt, "prompt")
        *_, pictures = cascade.sample(
            prompt,
            request.num_inference_steps,
            request.guidance_scale,
            request.num_images_per_prompt,
            rule=rule,
            seed=request.seed,
            observer=self,
        )
        return [images.to_pil(images.to_uint8(x[None])) for x in pictures]

    def _advise(self, cascade: Cascade, prompt: str, name: str) -> None:
        for advice in cascade.defaults.prompt_advice(prompt, name):
            self.on_note(advice)


def checked_prompt(prompt: str, name: str, may_be_empty: bool = True) -> str:
    """The prompt, stripped. Raises ``ValueError`` if it is no text, or empty where it may not be; ``name`` is what the
    message calls it."""
    if not may_be_empty and all(unicodedata.category(each)[0] in "ZC" for each in prompt):
        raise ValueError(f"the {name} is empty: say in words what the picture should show")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the {name} is not text in UTF-8: type it again") from None
    return prompt.strip()


def check_picture(picture: Picture, fit: str) -> None:
    """Raise ``ValueError`` for a picture that cannot be read and for a fit that there is not, before a model loads."""
    images.check_fit(fit)
    images.to_array(picture)


def editor_of(name: str, strength: float | None = None, guidance_scale: float | None = None) -> Editor:
    """The editor of a name, with the given settings in place of its own. Raises ``ValueError`` where there is none."""
    if name not in EDITORS:
        raise ValueError(f"there is no editor {name!r}: the editors are {', '.join(EDITORS)}")
    given = {"strength": strength, "guidance": guidance_scale}
    return EDITORS[name](**{setting: value for setting, value in given.items() if value is not None})

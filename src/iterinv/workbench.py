"""The workbench is the interface for the command line, a web page and other front ends: requests in, events out,
results back.

A :class:`Workbench` belongs to one piece of work in one thread. Several of them may use one cascade at the same time.
An exception that ``emit`` raises stops the work between any two network calls.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iterinv import images, path_cache
from iterinv.cascade import Cascade
from iterinv.commands import Request, command_of, commands_of_reconstruction, name_of, with_names
from iterinv.edits.site import Edit, Editor
from iterinv.evaluate import measure
from iterinv.evaluate.folder import write_json
from iterinv.evaluate.measure import Measurement
from iterinv.evaluate.pairs import pairs
from iterinv.images import Picture
from iterinv.inversion import Inversion, check_file
from iterinv.levels import State
from iterinv.manifest import versions
from iterinv.methods import METHODS, plan, plans, sampler
from iterinv.observer import Observer
from iterinv.reading import Original
from iterinv.reports import edit_report, inversion_report
from iterinv.requests import CompareRequest as CompareRequest
from iterinv.requests import EditRequest as EditRequest
from iterinv.requests import InvertRequest as InvertRequest
from iterinv.requests import MeasureRequest as MeasureRequest
from iterinv.requests import Model as Model
from iterinv.requests import ReopenRequest as ReopenRequest
from iterinv.requests import SampleRequest as SampleRequest
from iterinv.requests import editor_of as editor_of

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
    "sweep.json",
    "sweep.png",
)
"""All files that a result may write."""

RECONSTRUCTION = "a reconstruction"
BLANK = {"Zs", "Zl", "Zp", "Cc", "Cf"}
"""Unicode's categories of characters that show nothing: spaces, controls and formats. Those that Python's tables do not
know yet may be new pictograms."""


@dataclass(frozen=True)
class Progress:
    """A step or a network call was done; ``calls`` counts the network calls of the whole request so far. ``stage`` is
    empty where the work is none of a cascade."""

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
    """One picture's inversion and its edits; what was noted on the way; and how it is written.

    ``original`` holds the picture's own pixels, where the edits are written at its own size. ``request`` is what was
    asked for.
    """

    cascade: Cascade
    inversion: Inversion
    notes: list[str]
    seconds: float
    edits: tuple[Edit, ...] = ()
    editor: Editor | None = None
    original: Original | None = None
    request: InvertRequest | ReopenRequest | EditRequest | None = None

    @property
    def reconstruction(self) -> np.ndarray:
        """The reconstruction (h, w, 3) uint8, at the picture's own shape."""
        return self.inversion.canvases[0].place(self.inversion.picture)

    @property
    def stage_pictures(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """The name of every stage, its picture, and the reconstruction of that, (h, w, 3) uint8 each, smallest
        first."""
        picture, stages = self.inversion.canvases[0].covered(), self.cascade.at(*self.inversion.extent).stages
        return [
            (stage.name, images.to_uint8(images.resize(picture, stage.extent)), images.to_uint8(each.picture))
            for stage, each in zip(stages, self.inversion.stages, strict=True)
        ]

    def report(self) -> dict[str, Any]:
        """The report, as ``report.json`` holds it."""
        report = inversion_report(self.cascade, self.inversion, self.seconds, self.notes)
        if self.editor is not None:
            report["edits"] = self.edit_reports
        return report

    @property
    def edit_reports(self) -> list[dict[str, Any]]:
        """The entries of the report on the edits."""
        return [] if self.editor is None else [edit_report(self.editor, edit) for edit in self.edits]

    def settings(self, what: str, report: dict[str, Any], k: int | None = None) -> dict[str, Any]:
        """The settings that a picture of this result carries (:mod:`iterinv.provenance`): ``what`` it is, and how it
        was made by the ``report``; with ``k``, the settings of that edit. They hold no time and no path, so that the
        same command gives the same bytes."""
        source: Any = getattr(self.request, "source", self.request)
        settings = made_by(self.request, self.cascade, what)
        settings |= {key: report[key] for key in ("method", "steps", "guidance", "prompt", "seed")}
        if isinstance(source, InvertRequest):
            settings |= {"fit": source.fit, "picture": name_of(source.picture)}
        elif source is not None:
            settings["inversion"] = source.inversion.name
        if "reconstruction" in report:
            settings["reconstruction"] = report["reconstruction"]
        edits = report.get("edits", [])
        if edits:
            settings |= {"edits": edits} if k is None else {"edit": edits[k]}
        return settings

    def write(
        self, folder: Path, *, inversion: bool = True, reconstruction: bool = True, trajectory: bool = False
    ) -> dict[str, Any]:
        """Write the pictures, the inversion (with its ``trajectory`` on request) and the report to a folder; return the
        report. Each picture carries its :meth:`settings`."""
        canvas, own_sizes, began, report = self.inversion.canvases[0], [], time.perf_counter(), self.report()
        images.save(canvas.image, folder / "original.png", self.settings("the picture at the model's size", report))
        shown = [("original", canvas.image)]
        if reconstruction and self.inversion.whole:
            images.save(self.reconstruction, folder / "reconstruction.png", self.settings(RECONSTRUCTION, report))
            shown.append(("reconstruction", self.reconstruction))
        if inversion:
            self.inversion.save(folder / "inversion.safetensors", trajectory=trajectory)
        for k, edit in enumerate(self.edits):
            number = f"-{k + 1}" if len(self.edits) > 1 else ""
            edited, mask = canvas.place(edit.pictures[-1]), edit.region(0)
            settings = [self.settings(what, report, k) for what in ("an edited picture", "the region of an edit")]
            if self.original is None:
                images.save(edited, folder / f"edited{number}.png", settings[0])
                images.save(mask, folder / f"mask{number}.png", settings[1])
            else:
                (own,) = edit.at_own_size(self.original)
                own.save(folder / f"edited{number}.png", settings[0])
                images.save(own.region, folder / f"mask{number}.png", settings[1])
                own_sizes.append(own.report())
            number = number.replace("-", " ")
            shown += [(f"mask{number}", np.repeat(mask[..., None], 3, -1)), (f"edited{number}", edited)]
        if self.edits:
            settings_of_all = self.settings("a comparison of pictures", report)
            images.save(images.strip(shown), folder / "comparison.png", settings_of_all)
        report["seconds"] = round(self.seconds + time.perf_counter() - began, 3)
        for entry, own_size in zip(report.get("edits", ()), own_sizes, strict=False):
            entry["own_size"] = own_size
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

    def invert(self, request: InvertRequest, as_needed: bool = False, to_edit: bool = False) -> Result:
        """Invert a picture; ``as_needed``, an exact method does so only as deep as its states are asked for;
        ``to_edit``, a picture that the model cannot edit is refused.

        Raises ``ValueError`` and ``OSError`` for what cannot work, before any work.
        """
        began = time.perf_counter()
        prompt = checked_prompt(request.prompt, "prompt")
        how = plans(request.method, request.num_inference_steps, request.guidance_scale)
        array = check_picture(request.picture, request.fit)
        cascade = request.model.load()
        self._advise(cascade, prompt, "prompt")
        if to_edit:
            _refuse_unknown(cascade, cascade.canvas(array, request.fit)[0])
        inversion = cascade.invert(
            request.picture, prompt, how, seed=request.seed, fit=request.fit, as_needed=as_needed, observer=self
        )
        for stage, result in zip(cascade.stages, inversion.stages, strict=True):
            error, target = result.report.root_error_max, result.plan.inverter.target_error
            if error is not None and target is not None and not error <= target:
                self.on_note(f"stage {stage.name}: solved to {error:.0e}, not to {target:.0e}; take more steps")
        return Result(cascade, inversion, self.notes, time.perf_counter() - began, request=request)

    def reopen(
        self, request: ReopenRequest, as_needed: bool = False, to_edit: bool = False, path: Path | None = None
    ) -> Result:
        """Reopen an inversion and run it again; ``as_needed``, nothing is run until an editor asks for its states,
        except those in the file ``path``; ``to_edit``, a picture that the model cannot edit is refused.

        Raises :class:`iterinv.store.BadInversion`.
        """
        began = time.perf_counter()
        check_file(request.inversion)
        cascade = request.model.load()
        inversion = cascade.open(request.inversion)
        if to_edit:
            _refuse_unknown(cascade, inversion.canvases[0])
        if as_needed:
            inversion = cascade.as_needed(inversion, path=path, observer=self)
        else:
            inversion = cascade.rerun(inversion, observer=self)
        return Result(cascade, inversion, self.notes, time.perf_counter() - began, request=request)

    def edit(self, request: EditRequest, of: Result | None = None) -> Result:
        """Invert or reopen, then edit; with ``of``, the result of an earlier request on the same source, edit its
        inversion and invert nothing. Raises as these do, and ``ValueError`` for an unknown editor."""
        (result,) = self.edit_each([request], of)
        return result

    def edit_each(self, requests: Sequence[EditRequest], of: Result | None = None) -> Iterator[Result]:
        """Yield the result of each request. They have one source, which is inverted once, as the first request says,
        or not at all where ``of`` holds its inversion, and differ in their prompts, editors, settings and masks.

        Raises as :meth:`edit` does, and ``ValueError`` for requests of several sources.
        """
        if not requests:
            return
        began, first = time.perf_counter(), requests[0]
        if any(each.source is not first.source for each in requests):
            raise ValueError("the requests have several sources: edit each of these by itself")
        prompts = [_prompts(each) for each in requests]
        for named in (each for each in requests if each.editor):
            named.made_editor("")
        source, as_needed = first.source, not first.keep_inversion
        if isinstance(source, InvertRequest):
            for each in prompts:
                _refuse_no_change(source.prompt, each)
        original = self._original(next((each for each in requests if each.mask is not None), first))
        masks: list[np.ndarray | None] = [None] * len(requests)
        if original is not None:
            masks = self._masks(requests, original.values)
        how, path = (as_needed, not first.force), None
        if first.keep_path and first.keep_inversion:
            raise ValueError("a whole inversion is run again, and keeps no path for edits: leave out one of the two")
        if of is not None:
            if not first.force:
                _refuse_unknown(of.cascade, of.inversion.canvases[0])
            result = replace(of, notes=self.notes)
        elif isinstance(source, InvertRequest):
            if first.keep_path:
                raise ValueError("the states are kept beside an inversion file, and there is none: edit one of these")
            result = self.invert(source, *how)
        else:
            path = path_cache.place(source.inversion) if first.keep_path else None
            result = self.reopen(source, *how, path)
        for each in prompts:
            _refuse_no_change(result.inversion.prompt, each)
        (canvas,) = result.inversion.canvases
        if original is None:
            masks = self._masks(requests, canvas.image)
        else:
            canvas.check_original(original)
        for request, targets, mask in zip(requests, prompts, masks, strict=True):
            editor = request.made_editor(result.cascade.defaults.editor)
            edits = tuple(self._edited(result, prompt, editor, mask) for prompt in targets)
            if path is not None:
                path_cache.save(path, result.inversion)
            own = None if request.size == "model" or original is None or _is_on(canvas, original) else original
            seconds = time.perf_counter() - began
            yield Result(result.cascade, result.inversion, self.notes, seconds, edits, editor, own, request)

    def _original(self, request: EditRequest) -> Original | None:
        """The pixels of the picture that is edited; ``None`` where its file is not at hand, which is noted."""
        if request.size not in (None, "own", "model"):
            raise ValueError(
                f"size is {request.size!r}; it is 'own', the picture's, or 'model', the one it is edited at"
            )
        source, picture = request.source, request.original
        if isinstance(source, InvertRequest):
            if picture is not None:
                raise ValueError("the picture itself is the original: give one to the edit of an inversion alone")
            picture = source.picture
        if picture is not None:
            return None if request.size == "model" and request.mask is None else images.to_own_pixels(picture)
        if request.size == "own":
            raise ValueError(
                "an inversion holds its picture at the model's size: give the picture's file as the original"
            )
        if request.size is None:
            self.on_note(
                "the edit is at the model's size; with --original and the picture's file it has the picture's own"
            )
        return None

    def _masks(self, requests: Sequence[EditRequest], picture: np.ndarray) -> list[np.ndarray | None]:
        """The masks of requests, drawn at the size of a picture (h, w, ...)."""
        drawn: dict[Any, np.ndarray | None] = {None: None}
        for mask in (each.mask for each in requests):
            if mask is not None and mask not in drawn:
                drawn[mask], notes = mask.drawn(*picture.shape[:2])
                for note in notes:
                    self.on_note(note)
        return [drawn[each.mask] for each in requests]

    def _edited(self, result: Result, prompt: str, editor: Editor, mask: np.ndarray | None) -> Edit:
        self._advise(result.cascade, prompt, "target prompt")
        edit = result.cascade.edit(result.inversion, prompt, editor, mask=mask, observer=self)
        if edit.reports[0].get("sees_target") is False:
            self.on_note(
                f"the network does not see the target prompt in the result: try another --seed, --strength, --mask or "
                f"--editor than {edit.reports[0]['chose']}"
            )
        if edit.masks is not None and not edit.masks[0].any():
            self.on_note(
                "the mask is empty: the model sees no difference between the two prompts in this picture, so "
                "nothing changed"
            )
        return edit

    def compare(self, request: CompareRequest) -> Iterator[dict[str, Any]]:
        """Yield a row of :func:`iterinv.evaluate.compare.compare` for each method when it is done."""
        from iterinv.evaluate.compare import compare

        source = request.source
        prompt = checked_prompt(source.prompt, "prompt")
        if not isinstance(scale := source.guidance_scale, (int, float)):
            raise ValueError("the guidance scale is a list: methods are compared at one for all stages")
        for method in request.methods:
            plan(method, source.num_inference_steps, scale)
        check_picture(source.picture, source.fit)
        cascade = source.model.load()
        self._advise(cascade, prompt, "prompt")
        yield from compare(
            cascade,
            source.picture,
            prompt,
            request.methods or self._runnable(cascade, source.num_inference_steps, scale),
            source.num_inference_steps,
            scale,
            source.seed,
            source.fit,
            self,
        )

    def _runnable(self, cascade: Cascade, steps: int, scale: float) -> tuple[str, ...]:
        """All methods but those that a stage refuses, which are noted with the reason."""
        names = []
        for name in METHODS:
            how = plan(name, steps, scale)
            try:
                for stage in cascade.stages:
                    how.check(stage)
            except ValueError as error:
                self.on_note(f"{name} is left out: {error}")
            else:
                names.append(name)
        return tuple(names)

    def measure(self, request: MeasureRequest) -> Measurement:
        """Measure pictures. Raises ``ValueError``, ``FileNotFoundError`` and ``ModuleNotFoundError`` for what cannot be
        measured."""
        if request.weights is not None and not request.weights.is_dir():
            raise FileNotFoundError(f"{request.weights} is no folder: give the one that holds the weights")
        chosen, left_out = measure.choose(request.metrics, request.weights)
        matched, notes = pairs(request.reference, request.picture, request.mask)
        for note in notes:
            self.on_note(note)
        rows, total = [], len(matched) * len(chosen)
        work = measure.measure(matched, chosen, request.weights, request.prompts, request.resize, self.on_note)
        for done, row in enumerate(work, 1):
            rows += [row] if row else []
            self.emit(Progress("", "measuring", done, total, self.calls))
        sets, notes = measure.compare_sets(rows, chosen)
        for note in notes:
            self.on_note(note)
        regions = measure.REGIONS if request.mask else measure.REGIONS[:1]
        return measure.Measurement(chosen, regions, rows, sets, left_out, self.notes)

    def sample(self, request: SampleRequest) -> list[Image.Image]:
        """Draw pictures at the largest stage."""
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
            height=request.height,
            width=request.width,
            rule=rule,
            seed=request.seed,
            observer=self,
        )
        return [images.to_pil(images.to_uint8(x[None])) for x in pictures]

    def _advise(self, cascade: Cascade, prompt: str, name: str) -> None:
        for advice in cascade.defaults.prompt_advice(prompt, name):
            self.on_note(advice)


def made_by(request: Request | None, cascade: Cascade, what: str) -> dict[str, Any]:
    """The settings that every picture carries: ``what`` it is, versions, the model with the fingerprint of its weights,
    and the commands. Files have their names alone."""
    named = None if request is None else with_names(request, model=True)
    numbers = versions()
    settings: dict[str, Any] = {"what": what, "versions": {name: numbers[name] for name in ("iterinv", "torch")}}
    if named is not None:
        settings["model"] = str(getattr(named, "source", named).model.name)
        reconstructed = what == RECONSTRUCTION and isinstance(named, InvertRequest)
        settings["commands"] = commands_of_reconstruction(named) if reconstructed else [command_of(named)]
    return settings | {"weights": cascade.fingerprint}


def sample_settings(request: SampleRequest, cascade: Cascade, k: int) -> dict[str, Any]:
    """The settings that the ``k``-th sample of a request carries."""
    own, steps, scale = cascade.defaults, request.num_inference_steps, request.guidance_scale
    return made_by(request, cascade, "a sample") | {
        "sampler": request.sampler or own.sampler,
        "gamma": request.gamma,
        "steps": own.sampling_steps if steps is None else steps,
        "guidance": own.sampling_guidance if scale is None else scale,
        "prompt": request.prompt.strip(),
        "seed": request.seed,
        "number": k,
    }


def comparison_settings(request: CompareRequest, cascade: Cascade, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings that the plot of a comparison carries, with the fidelity of each of its rows."""
    source = request.source
    return made_by(request, cascade, "a comparison of methods") | {
        "methods": [{key: row[key] for key in ("method", "psnr", "exact_pixels", "network_calls")} for row in rows],
        "steps": source.num_inference_steps,
        "guidance": source.guidance_scale,
        "prompt": source.prompt.strip(),
        "seed": source.seed,
        "fit": source.fit,
        "picture": name_of(source.picture),
    }


def _refuse_unknown(cascade: Cascade, canvas: images.Canvas) -> None:
    """Raise ``ValueError`` for a picture that the model can invert but not edit."""
    if advice := cascade.defaults.picture_advice(cascade.at(*canvas.extent).stages, canvas.covered()):
        raise ValueError(advice)


def _is_on(canvas: images.Canvas, original: Original) -> bool:
    """Tell whether a canvas holds all of a picture, so that nothing is carried up."""
    return original.plain and np.array_equal(original.rgb, canvas.image)


def _prompts(request: EditRequest) -> list[str]:
    """The target prompts of a request. Raises ``ValueError`` where there are none, and for empty ones."""
    each = (request.prompts,) if isinstance(request.prompts, str) else request.prompts
    if not each:
        raise ValueError("there is no target prompt: say in words what the picture should show")
    return [checked_prompt(prompt, "target prompt", may_be_empty=False) for prompt in each]


def _refuse_no_change(source: str, targets: Sequence[str]) -> None:
    """Raise ``ValueError`` where a target prompt asks for no change."""
    if any(target.lower() == source.strip().lower() for target in targets):
        raise ValueError("the target prompt is the prompt, so nothing is asked to change: say what should be different")


def checked_prompt(prompt: str, name: str, may_be_empty: bool = True) -> str:
    """Return the prompt, stripped. Raises ``ValueError`` if it is no text, or empty where it may not be; messages call
    it ``name``."""
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the {name} is not text in UTF-8: type it again") from None
    if not may_be_empty and all(unicodedata.category(each) in BLANK for each in prompt):
        raise ValueError(f"the {name} is empty: describe the edited picture in words")
    return prompt.strip()


def check_picture(picture: Picture, fit: str) -> np.ndarray:
    """Return a picture (h, w, 3) uint8, before a model loads. Raises ``ValueError`` for one that cannot be read and for
    an unknown fit."""
    images.check_fit(fit)
    return images.to_array(picture)[0]

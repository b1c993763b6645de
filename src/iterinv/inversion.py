"""Inversions: pictures turned back through every stage of a cascade; they can be saved, reopened, rerun and edited."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iterinv import store
from iterinv.arithmetic import Arithmetic
from iterinv.guidance import CFG
from iterinv.images import Canvas, described, fits, resize, sides, to_pil
from iterinv.levels import Level
from iterinv.methods import METHODS
from iterinv.models import Stage
from iterinv.models.extents import at_extent
from iterinv.models.probe import Probe
from iterinv.observer import Observer
from iterinv.plans import Plan, Refinement
from iterinv.stage_inversion import Origin, StageInversion, pixels_of, rerun_stage
from iterinv.steps import RULES
from iterinv.store import BadInversion
from iterinv.trajectory import Deferred, Known, StageReport, Trajectory
from iterinv.typed import Count, Natural, Range, checked, from_json

LOW = ("low_image", "low_noise")
LOW_FILE = tuple(f"condition.{name}" for name in LOW)
"""The entries of a condition that a file keeps, and their names there."""

REMEDIES = {
    "inverted again": "the picture in the file was inverted again here, so that every pixel comes back; the noise is "
    "that of this arithmetic",
    "kept path": "the states in the file are kept as they are, so that every pixel comes back",
    "refined again": "the refinement was made again here, so that every pixel comes back",
    "": "the reconstruction differs from the first one; an exact method, such as bdia, would give every pixel back",
}
"""The ways to deal with a rerun that gives other pixels, and the sentence on each."""

Short = Annotated[str, Range(1, 1000)]


@dataclass(frozen=True, eq=False)
class Inversion:
    """One or more pictures turned back, stage by stage.

    ``prompts``, ``seeds`` and ``canvases`` have an entry for each picture of the batch. ``fingerprint`` names the
    weights, and ``probes`` hold what each stage's networks compute of a fixed input.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    fingerprint: str
    stages: tuple[StageInversion, ...]
    canvases: tuple[Canvas, ...]
    probes: tuple[Probe | None, ...] = ()

    def __repr__(self) -> str:
        pictures = [
            stage_inversion.picture if stage_inversion.origin is None else stage_inversion.origin.picture
            for stage_inversion in self.stages
        ]
        sizes = " -> ".join(sides(x.shape[-2:]) for x in pictures)
        plan, prompt = self.stages[0].plan, textwrap.shorten(self.prompt, 40, placeholder=" ...")
        return f"Inversion({len(self)} of {sizes} px by {plan.method}, {plan.steps} steps: {prompt!r})"

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def extent(self) -> tuple[int, int]:
        """The height and width in px of the largest stage's pictures, one for the whole batch."""
        return self.canvases[0].extent

    @property
    def prompt(self) -> str:
        """The prompt of the first picture."""
        return self.prompts[0]

    @property
    def noise(self) -> Tensor:
        """The terminal noise z_T (batch, channels, h, w) of the first stage, at :attr:`noise_level`."""
        return self.stages[0].noise

    @property
    def noise_level(self) -> Level:
        """The level of :attr:`noise`: the noisiest of the first stage's grid."""
        return self.stages[0].grid[0]

    @property
    def trajectory(self) -> tuple[tuple[Tensor, ...], ...]:
        """The states (batch, channels, h, w) of every stage, noisy to clean, one for each level of its grid."""
        return tuple(tuple(stage_inversion.path) for stage_inversion in self.stages)

    @property
    def picture(self) -> Tensor:
        """The reconstruction at the largest stage (batch, 3, h, w), clamped to [-1, 1]."""
        return self.stages[-1].picture.clamp(-1, 1)

    @property
    def images(self) -> list[Image.Image]:
        """The reconstructions, at the pictures' own shape and the model's scale."""
        return [to_pil(canvas.place(self.picture[k : k + 1])) for k, canvas in enumerate(self.canvases)]

    @property
    def whole(self) -> bool:
        """Tell whether every stage was inverted to its noisiest level and run again."""
        return all(
            isinstance(stage_inversion.trajectory, Known) and stage_inversion.report.residual_max is not None
            for stage_inversion in self.stages
        )

    def row(self, k: int) -> Inversion:
        """The inversion of the ``k``-th picture alone. Raises ``IndexError`` where there is none."""
        k = checked(k, int, "k")
        if not 0 <= k < len(self):
            raise IndexError(f"there is no picture {k}: they are counted from 0 to {len(self) - 1}")
        stages = tuple(stage_inversion.row(k) for stage_inversion in self.stages)
        prompts, seeds, canvases = self.prompts[k : k + 1], self.seeds[k : k + 1], self.canvases[k : k + 1]
        return replace(self, prompts=prompts, seeds=seeds, stages=stages, canvases=canvases)

    def rerun_note(self) -> str:
        """Return a sentence on a rerun in other arithmetic than that of the inversion; empty if the two agree."""
        checks = [
            (k, stage_inversion.rerun)
            for k, stage_inversion in enumerate(self.stages, 1)
            if stage_inversion.rerun is not None
        ]
        if not checks:
            return ""
        cause = checks[0][1].made.differences(checks[0][1].here)
        other = [(k, check) for k, check in checks if not check.pixels]
        if not other:
            return f"made in other arithmetic ({cause}): every pixel is as it was" if cause else ""
        where = f"stage {', '.join(str(k) for k, _ in other)} of {len(self.stages)}"
        said = f"made in other arithmetic ({cause or 'of a kind that is not recorded'}), which changes {where}: "
        return said + REMEDIES[other[0][1].remedy]

    def save(self, path: str | Path, *, trajectory: bool = False) -> None:
        """Write the inversion to a file; :func:`iterinv.open` reopens it.

        The file holds the states that a rerun starts from, the low-resolution pictures with their noise, the grid, the
        plan, the prompts and the pictures. A rerun in other arithmetic (threads, batch, machine) may leave the states
        that were found; an exact method then inverts the picture in the file again. With ``trajectory`` the file holds
        all states too, in float32, and these are kept instead. Raises ``ValueError`` for a plan that could not be read
        back, such as one with an unlisted rule of your own, and :class:`iterinv.files.CannotWrite`.
        """
        trajectory, tensors = checked(trajectory, bool, "trajectory"), dict[str, Tensor]()
        for j, canvas in enumerate(self.canvases):
            tensors[f"image.{j}"] = torch.from_numpy(np.ascontiguousarray(canvas.image))
        stages, arithmetic = [], None
        for k, stage_inversion in enumerate(self.stages):
            origin, refine = stage_inversion.origin, stage_inversion.plan.refine
            tensors |= {f"{k}.state.{j}": x for j, x in enumerate(stage_inversion.state)}
            if trajectory or not stage_inversion.plan.inverter.exact:
                tensors[f"{k}.path"] = torch.stack(
                    [x if stage_inversion.plan.inverter.reads_path else x.float() for x in stage_inversion.path]
                )
            if stage_inversion.lost is not None:
                tensors[f"{k}.lost"] = stage_inversion.lost
            said = f"an inversion by {stage_inversion.plan.method} cannot be saved"
            if (made := _states(stage_inversion.plan)) != (there := len(stage_inversion.state)):
                raise ValueError(f"{said}: it starts from {there} states, and its rule's init(x, older) makes {made}")
            if refine is not None:
                fitted = refine.fitted(stage_inversion)
                if fitted and type(refine).shapes is Refinement.shapes:
                    raise ValueError(
                        f"{said}, since {type(refine).__name__} fits tensors and does not say their shapes: give it a "
                        "method shapes(stage, plan, rows)"
                    )
                tensors |= {f"{k}.refine.{name}": x.float() for name, x in fitted.items()}
            tensors |= {
                f"{k}.condition.{name}": stage_inversion.condition[name]
                for name in LOW
                if name in stage_inversion.condition
            }
            arithmetic = arithmetic or (origin and origin.arithmetic)
            entry = {
                "plan": plan_to_json(stage_inversion.plan),
                "start": stage_inversion.start,
                "grid": list(stage_inversion.grid),
            }
            entry |= {"report": asdict(replace(stage_inversion.report, seconds=0.0)), "path": f"{k}.path" in tensors}
            entry["pixels"] = list(origin.pixels if origin else pixels_of(stage_inversion.picture))
            stages.append(entry)
        header = {
            "prompts": list(self.prompts),
            "seeds": list(self.seeds),
            "fingerprint": self.fingerprint,
            "probes": [None if probe is None else asdict(probe) for probe in self.probes],
            "arithmetic": asdict(arithmetic or Arithmetic.here(self.noise.device.type, len(self))),
            "canvases": [
                {
                    "height": c.image.shape[0],
                    "width": c.image.shape[1],
                    "size": _size(c.extent),
                    "top": c.top,
                    "left": c.left,
                }
                for c in self.canvases
            ],
            "stages": stages,
        }
        try:
            from_json(json.loads(json.dumps(header)), _Header, "the header", _known())
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"this inversion cannot be saved, since its file could not be read back: {error}"
            ) from None
        store.write(Path(path), header, tensors)


class _Extent(NamedTuple):
    height: Count
    width: Count


@dataclass(frozen=True)
class _Canvas:
    height: Count
    width: Count
    size: _Extent | Count
    top: int
    left: int

    @property
    def extent(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else (self.size.height, self.size.width)


def _size(extent: tuple[int, int]) -> int | tuple[int, int]:
    """A rectangle (h, w) as a header has it: a square by its side alone, as in files from before there were others."""
    return extent[0] if extent[0] == extent[1] else extent


@dataclass(frozen=True)
class _Stage:
    plan: Plan
    start: Natural
    grid: tuple[Level, ...]
    report: StageReport
    path: bool
    pixels: tuple[Short, ...]


@dataclass(frozen=True)
class _Header:
    """The header of an inversion file, but for its format and checksum."""

    prompts: tuple[Annotated[str, Range(0, 100_000)], ...]
    seeds: tuple[Natural, ...]
    fingerprint: Short
    probes: tuple[Probe | None, ...]
    arithmetic: Arithmetic
    canvases: tuple[_Canvas, ...]
    stages: tuple[_Stage, ...]


def check_file(path: Path) -> None:
    """Raise :class:`iterinv.store.BadInversion` for a file that is no inversion by its header, before a model loads."""
    with _named(path):
        _header(path)


def facts_of(path: Path) -> dict[str, Any]:
    """The facts that the header of an inversion file states, without a model: the settings, one entry for each stage,
    and how well inverting and rerunning met.

    Raises :class:`iterinv.store.BadInversion` for a file that is no inversion.
    """
    with _named(path):
        header, _ = _header(path)
    plans = [stage.plan for stage in header.stages]
    (canvas, *_), stages = header.canvases, []
    for stage in header.stages:
        report = stage.report
        exact = stage.plan.inverter.exact or (stage.plan.refine is not None and stage.plan.refine.exact)
        calls = {"forward": report.forward, "backward": report.backward}
        stages.append(
            {
                "network_calls": calls,
                "exact": exact,
                "residual_max": report.residual_max,
                "root_error_max": report.root_error_max,
                "whole_path": stage.path,
            }
        )
    return {
        "method": one_or_each([plan.method for plan in plans]),
        "steps": one_or_each([plan.steps for plan in plans]),
        "guidance": one_or_each([plan.guidance for plan in plans]),
        "prompts": list(header.prompts),
        "seeds": list(header.seeds),
        "fit": _fit_of(canvas),
        "size": {"height": canvas.height, "width": canvas.width},
        "worked_at": {"height": canvas.extent[0], "width": canvas.extent[1]},
        "weights": header.fingerprint,
        "versions": {"torch": header.arithmetic.torch},
        "stages": stages,
    }


def one_or_each(values: list[Any]) -> Any:
    """The value of all stages, or a list where they have several."""
    return values[0] if all(value == values[0] for value in values) else values


def _fit_of(canvas: _Canvas) -> str:
    """The way in which a picture was brought to its rectangle."""
    if canvas.extent[0] != canvas.extent[1]:
        return "aspect"
    return "crop" if max(canvas.top, canvas.left) > 0 else "pad"


def open_inversion(
    path: Path, stages: Sequence[Stage], fingerprint: str, probes: Sequence[Probe | None] = ()
) -> Inversion:
    """Reopen an inversion for the stages of a cascade; its trajectories are computed on first use.

    Raises :class:`iterinv.store.BadInversion` for a file that is missing, truncated, of another kind, format or model,
    or not finite.
    """
    with _named(path):
        header, raw = _header(path)
        if reason := differs(header.fingerprint, header.probes, fingerprint, probes):
            raise BadInversion(f"it {reason}; load that one, or invert the picture again")
        stages = _at_extent(header, stages)
        tensors = store.read_tensors(path, raw, _expected(header, stages))
        images = [tensors[f"image.{j}"].numpy() for j in range(len(header.canvases))]
        canvases = tuple(
            Canvas(image, each.extent, each.top, each.left) for image, each in zip(images, header.canvases, strict=True)
        )
        picture = torch.cat([canvas.covered() for canvas in canvases])
        inversions = [_stage(k, header, tensors, stage, picture) for k, stage in enumerate(stages)]
        return Inversion(header.prompts, header.seeds, header.fingerprint, tuple(inversions), canvases, header.probes)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in the errors of reading it."""
    try:
        yield
    except BadInversion as error:
        raise BadInversion(f"{path}: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError, RecursionError) as error:
        # Past the checksum only a file that another program wrote gets here.
        said = f"there is no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise BadInversion(
            f"{path} lacks or garbles a part of an inversion ({said[:300]}): invert the picture again"
        ) from None


def differs(name: str, probes: Sequence[Probe | None], loaded: str, now: Sequence[Probe | None]) -> str:
    """Say how the cascade that an inversion was made by differs from the one loaded; empty where it does not."""
    if name != loaded:
        return f"was made by the cascade {name}, not by the one loaded ({loaded}): other weights, settings or precision"
    pairs = zip(probes, now, strict=False)
    others = [k for k, (a, b) in enumerate(pairs) if a is not None and b is not None and not a.agrees(b)]
    if not others:
        return ""
    return (
        f"was made by the same weights, but the networks of stage {'I' * (others[0] + 1)} then computed something "
        "else: by other adapters, scales, hooks, attention processors or a limit on tokens"
    )


def _header(path: Path) -> tuple[_Header, dict[str, Any]]:
    """The header of a file, checked down to the last value; and as it is in the file."""
    raw = store.read_header(path)
    values = {name: value for name, value in raw.items() if name not in ("format", "sha256")}
    try:
        header: _Header = from_json(values, _Header, "the header", _known())
    except KeyError as error:
        raise BadInversion(
            f"it uses {error.args[0]!r}, which is not known here: use the version of iterinv that wrote it, or list "
            "your own class in iterinv.methods.METHODS before the file is opened"
        ) from None
    for stage, entry in zip(header.stages, values["stages"], strict=True):
        if json.loads(json.dumps(plan_to_json(stage.plan))) != entry["plan"]:
            raise BadInversion(f"its plan of {stage.plan.method} is none that iterinv writes")
    n = len(header.prompts)
    if n == 0 or len(header.seeds) != n or len(header.canvases) != n:
        raise BadInversion(f"it has {n} prompts, {len(header.seeds)} seeds and {len(header.canvases)} pictures")
    return header, raw


def _at_extent(header: _Header, stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages at the rectangle of a header's pictures. Raises :class:`BadInversion` where it is not one that they
    can work at, or does not lie over a picture."""
    extents = {each.extent for each in header.canvases}
    for each in header.canvases:
        if len(extents) > 1 or not fits(each.height, each.width, each.extent, each.top, each.left):
            raise BadInversion(
                f"its picture of {each.height} x {each.width} px does not lie under {described(each.extent)} as it says"
            )
    (extent,) = extents
    try:
        return at_extent(stages, extent)
    except ValueError as error:
        raise BadInversion(f"its picture lies under {described(extent)}: {error}") from None


def _expected(header: _Header, stages: Sequence[Stage]) -> dict[str, store.Shape]:
    """The shape and dtype of every tensor of a file with a header. Raises :class:`BadInversion` for a header that is
    not of these stages."""
    n, expected = len(header.prompts), dict[str, store.Shape]()
    if len(header.stages) != len(stages):
        raise BadInversion(f"it has {len(header.stages)} stages, the cascade {len(stages)}")
    for j, each in enumerate(header.canvases):
        expected[f"image.{j}"] = (each.height, each.width, 3), torch.uint8
    for k, (stage, entry) in enumerate(zip(stages, header.stages, strict=True)):
        plan, shape = entry.plan, (n, *stage.shape)
        if len(entry.grid) != plan.steps + 1 or entry.grid != tuple(stage.schedule.grid(plan.steps, plan.spacing)):
            raise BadInversion(f"the grid of stage {stage.name} is not the one that this cascade's schedule gives")
        if entry.start != plan.first:
            raise BadInversion(
                f"stage {stage.name} starts at level {entry.start}, which {plan.method} does not start from"
            )
        if len(entry.pixels) != n:
            raise BadInversion(f"stage {stage.name} has the pixels of {len(entry.pixels)} pictures, not of {n}")
        dtype = getattr(torch, plan.dtype)
        mine: dict[str, store.Shape] = {f"state.{j}": (shape, dtype) for j in range(_states(plan))}
        single: dict[str, tuple[int, ...]] = {}
        if stage.low_level is not None:
            below = stages[k - 1].extent if k else (0, 0)
            single |= dict(zip(LOW_FILE, ((n, 3, *below), (n, 3, *shape[2:])), strict=True))
        if stage.codec is not None:
            single["lost"] = n, 3, *stage.extent
        if entry.path or not plan.inverter.exact:
            single["path"] = len(entry.grid), *shape
        if plan.refine is not None:
            single |= {f"refine.{name}": x for name, x in plan.refine.shapes(stage, plan, n).items()}
        mine |= {name: (each, torch.float32) for name, each in single.items()}
        if plan.inverter.reads_path:
            mine["path"] = single["path"], dtype
        expected |= {f"{k}.{name}": each for name, each in mine.items()}
    return expected


def _states(plan: Plan) -> int:
    """The number of tensors in the state that a rerun starts from."""
    return len(plan.rule.init(*[torch.zeros(1, dtype=torch.float64, device="cpu")] * 2))


def _stage(k: int, header: _Header, tensors: dict[str, Tensor], stage: Stage, large: Tensor) -> StageInversion:
    """The inversion of the ``k``-th stage of a file."""
    entry, plan = header.stages[k], header.stages[k].plan
    mine = {name.removeprefix(f"{k}."): x.to(stage.device) for name, x in tensors.items() if name.startswith(f"{k}.")}
    state = tuple(mine[f"state.{j}"] for j in range(sum(name.startswith("state.") for name in mine)))
    condition = stage.condition(header.prompts, mine.get(LOW_FILE[0]), mine.get(LOW_FILE[1]))
    negative, path = stage.with_prompt(condition, None), mine["path"].unbind() if "path" in mine else None
    picture = resize(large, stage.extent)
    exact, whole = plan.inverter.exact, list[StageInversion]()

    @torch.no_grad()
    def compute() -> Trajectory:
        return rerun_stage(stage, whole[0], Observer()).trajectory

    stage_inversion = StageInversion(
        plan,
        entry.grid,
        condition,
        negative,
        CFG(plan.guidance),
        plan.first,
        Deferred(state, entry.report, None if exact else path, compute),
        lost=mine.get("lost"),
        origin=Origin(picture, header.seeds, entry.pixels, header.arithmetic, path if exact else None),
    )
    if plan.refine is not None:
        fitted = {name.removeprefix("refine."): x for name, x in mine.items() if name.startswith("refine.")}
        stage_inversion = plan.refine.restored(stage, stage_inversion, fitted)
    whole.append(stage_inversion)
    return stage_inversion


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A plan as it is written. Raises ``ValueError`` for one that could not be read back."""
    values = {f.name: _to_json(getattr(plan, f.name)) for f in fields(plan)}
    try:
        readable = from_json(json.loads(json.dumps(values)), Plan, "the plan", _known()) == plan
    except (TypeError, ValueError, LookupError):
        readable = False
    if not readable:
        raise ValueError(
            f"an inversion by {plan.method} cannot be saved, since its file could not be read back: make its parts "
            "frozen dataclasses of plain values, and list them as a method in iterinv.methods.METHODS or a rule in "
            "iterinv.steps.RULES"
        )
    return values


def _to_json(value: Any) -> Any:
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return {"name": type(value).__name__, **{f.name: _to_json(getattr(value, f.name)) for f in fields(value)}}


def _known() -> dict[str, type]:
    """The classes that a plan in a file may name: the parts of every listed method and rule."""
    classes: dict[str, type] = {}

    def add(part: Any) -> None:
        if is_dataclass(part):
            classes.setdefault(type(part).__name__, type(part))
            for f in fields(part):
                add(getattr(part, f.name))

    for method in METHODS.values():
        for part in method:
            add(part)
    for rule in RULES.values():
        add(rule)
    return classes

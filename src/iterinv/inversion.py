"""Inversions: pictures turned back through every stage of a cascade; they can be saved, reopened, rerun and edited."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iterinv import store
from iterinv.conditions import FROM_PROMPT
from iterinv.guidance import CFG
from iterinv.images import Canvas, to_pil
from iterinv.levels import Level
from iterinv.methods import METHODS
from iterinv.models import Stage
from iterinv.models.probe import Probe
from iterinv.observer import Observer
from iterinv.plans import Plan
from iterinv.stage_inversion import StageInversion, StageReport, Trajectory, reconstructed, rerun_states
from iterinv.steps import RULES
from iterinv.store import BadInversion


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
        sizes = " -> ".join(str(found.picture.shape[-1]) for found in self.stages)
        plan, prompt = self.stages[0].plan, textwrap.shorten(self.prompt, 40, placeholder=" ...")
        return f"Inversion({len(self)} of {sizes} px by {plan.method}, {plan.steps} steps: {prompt!r})"

    def __len__(self) -> int:
        return len(self.prompts)

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
        return tuple(found.path for found in self.stages)

    @property
    def picture(self) -> Tensor:
        """The reconstruction at the largest stage (batch, 3, size, size), clamped to [-1, 1]."""
        return self.stages[-1].picture.clamp(-1, 1)

    @property
    def images(self) -> list[Image.Image]:
        """The reconstructions, at the pictures' own shape and the model's scale."""
        return [to_pil(canvas.place(self.picture[k : k + 1])) for k, canvas in enumerate(self.canvases)]

    def row(self, k: int) -> Inversion:
        """The inversion of the ``k``-th picture alone."""
        stages = tuple(found.row(k) for found in self.stages)
        prompts, seeds, canvases = self.prompts[k : k + 1], self.seeds[k : k + 1], self.canvases[k : k + 1]
        return replace(self, prompts=prompts, seeds=seeds, stages=stages, canvases=canvases)

    def save(self, path: str | Path) -> None:
        """Write the inversion to a file; :func:`iterinv.open` reopens it.

        The file holds the states that a rerun starts from, the low-resolution pictures with their noise, the grid, the
        plan, the prompts and the pictures. Raises ``ValueError`` for a plan that could not be read back, such as one
        with an unlisted rule of your own.
        """
        tensors: dict[str, Tensor] = {}
        for j, canvas in enumerate(self.canvases):
            tensors[f"image.{j}"] = torch.from_numpy(np.ascontiguousarray(canvas.image))
        stages = []
        for k, found in enumerate(self.stages):
            tensors |= {f"{k}.state.{j}": x for j, x in enumerate(found.state)}
            if not found.plan.inverter.exact:
                tensors[f"{k}.path"] = torch.stack(found.path)
            if found.lost is not None:
                tensors[f"{k}.lost"] = found.lost
            if found.plan.refine is not None:
                tensors |= {f"{k}.refine.{name}": x for name, x in found.plan.refine.fitted(found).items()}
            tensors |= {f"{k}.condition.{name}": x for name, x in found.condition.without(*FROM_PROMPT).items()}
            report = {name: value for name, value in asdict(found.report).items() if name != "seconds"}
            entry = {"plan": plan_to_json(found.plan), "start": found.start, "grid": list(found.grid), "report": report}
            stages.append(entry)
        header = {
            "prompts": list(self.prompts),
            "seeds": list(self.seeds),
            "fingerprint": self.fingerprint,
            "probes": [None if probe is None else asdict(probe) for probe in self.probes],
            "canvases": [{"size": each.size, "top": each.top, "left": each.left} for each in self.canvases],
            "stages": stages,
        }
        store.write(Path(path), header, tensors)


def open_inversion(
    path: Path, stages: Sequence[Stage], fingerprint: str, probes: Sequence[Probe | None] = ()
) -> Inversion:
    """Reopen an inversion for the stages of a cascade; its trajectories are computed when they are asked for.

    Raises :class:`iterinv.store.BadInversion` for a file that is missing, truncated, of another kind, format or model,
    or not finite.
    """
    try:
        header, tensors = store.read(path)
        if reason := differs(header["fingerprint"], _probes(header["probes"]), fingerprint, probes):
            raise BadInversion(f"it {reason}; load that one, or invert the picture again")
        return _rebuild(header, tensors, stages)
    except BadInversion as error:
        raise BadInversion(f"{path}: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError, RecursionError) as error:
        # Past the checksum only a file that another program wrote gets here.
        raise BadInversion(
            f"{path} lacks or garbles a part of an inversion ({error!r}): invert the picture again"
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


def _probes(kept: Sequence[dict[str, Any] | None]) -> tuple[Probe | None, ...]:
    return tuple(
        None if each is None else Probe(tuple(map(tuple, each["values"])), str(each["where"]), float(each["eps"]))
        for each in kept
    )


def _rebuild(header: dict[str, Any], tensors: dict[str, Tensor], stages: Sequence[Stage]) -> Inversion:
    prompts, seeds = tuple(map(str, header["prompts"])), tuple(map(int, header["seeds"]))
    n = len(prompts)
    if n == 0 or len(seeds) != n or len(header["canvases"]) != n:
        raise BadInversion(f"it has {n} prompts, {len(seeds)} seeds and {len(header['canvases'])} pictures")
    if len(header["stages"]) != len(stages):
        raise BadInversion(f"it has {len(header['stages'])} stages, the cascade {len(stages)}")
    found = [
        _stage(k, kept, tensors, stage, stages[k - 1].size if k else 0, prompts)
        for k, (stage, kept) in enumerate(zip(stages, header["stages"], strict=True))
    ]
    canvases = []
    for j, kept in enumerate(header["canvases"]):
        image = store.tensor(tensors, f"image.{j}", (*tensors[f"image.{j}"].shape[:2], 3), torch.uint8).numpy()
        canvas = Canvas(image, **kept)
        if canvas.size != stages[-1].size or not canvas.fits():
            raise BadInversion(
                f"its picture of {image.shape[:2]} px does not lie under a square of {canvas.size} as it says"
            )
        canvases.append(canvas)
    probes = _probes(header["probes"])
    return Inversion(prompts, seeds, str(header["fingerprint"]), tuple(found), tuple(canvases), probes)


def _stage(
    k: int, kept: dict[str, Any], tensors: dict[str, Tensor], stage: Stage, below: int, prompts: tuple[str, ...]
) -> StageInversion:
    """The inversion of the ``k``-th stage; ``below`` is the size of the stage below."""
    n, plan = len(prompts), plan_from_json(kept["plan"])
    grid = tuple(Level(*level) for level in kept["grid"])
    if grid != tuple(stage.schedule.grid(plan.steps, plan.spacing)):
        raise BadInversion(f"the grid of stage {stage.name} is not the one that this cascade's schedule gives")
    if kept["start"] != plan.first:
        raise BadInversion(
            f"stage {stage.name} starts at level {kept['start']}, which {plan.method} does not start from"
        )
    shape, dtype = (n, *stage.shape), getattr(torch, plan.dtype)
    count = sum(name.startswith(f"{k}.state.") for name in tensors)
    state = tuple(store.tensor(tensors, f"{k}.state.{j}", shape, dtype).to(stage.device) for j in range(count))
    if count != len(plan.rule.init(*[state[0]] * 2)):
        raise BadInversion(f"stage {stage.name} holds {count} states, which {plan.method} does not start from")
    low = noise = lost = None
    if stage.low_level is not None:
        low = store.tensor(tensors, f"{k}.condition.low_image", (n, 3, below, below))
        noise = store.tensor(tensors, f"{k}.condition.low_noise", (n, 3, *shape[2:]))
    if stage.codec is not None:
        lost = store.tensor(tensors, f"{k}.lost", (n, 3, stage.size, stage.size)).to(stage.device)
    condition = stage.condition(prompts, low, noise)
    path: tuple[Tensor, ...] | None = None
    if not plan.inverter.exact:
        path = store.tensor(tensors, f"{k}.path", (len(grid), *shape)).to(stage.device).unbind()
    negative, report = stage.with_prompt(condition, None), StageReport(**kept["report"])
    unknown = Trajectory.of((), state[0])  # until the inversion is whole
    found = StageInversion(
        plan, grid, condition, negative, CFG(plan.guidance), plan.first, state, unknown, report, lost=lost
    )
    if plan.refine is not None:
        prefix = f"{k}.refine."
        fitted = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        found = plan.refine.restored(stage, found, fitted)
    whole = found

    @torch.no_grad()
    def compute() -> tuple[tuple[Tensor, ...], Tensor]:
        states = tuple(rerun_states(stage, whole, Observer()))
        return path or states, reconstructed(stage, whole, states[-1])

    return replace(found, trajectory=Trajectory(compute))


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A plan as it is written. Raises ``ValueError`` for one that could not be read back."""
    kept = {f.name: _to_json(getattr(plan, f.name)) for f in fields(plan)}
    try:
        readable = plan_from_json(json.loads(json.dumps(kept))) == plan
    except (TypeError, ValueError):
        readable = False
    if not readable:
        raise ValueError(
            f"an inversion by {plan.method} cannot be saved, since its file could not be read back: make its "
            "parts frozen "
            "dataclasses of plain values, and list them as a method in iterinv.methods.METHODS or a rule in "
            "iterinv.steps.RULES"
        )
    return kept


def plan_from_json(kept: dict[str, Any]) -> Plan:
    """The plan that :func:`plan_to_json` wrote. Raises :class:`iterinv.store.BadInversion` for an unknown part."""
    known = _known()
    return Plan(**{name: _from_json(value, known) for name, value in kept.items()})


def _to_json(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    return {"name": type(value).__name__, **{f.name: _to_json(getattr(value, f.name)) for f in fields(value)}}


def _from_json(kept: Any, known: dict[str, type]) -> Any:
    if not isinstance(kept, dict):
        return kept
    if kept["name"] not in known:
        raise BadInversion(
            f"it uses {kept['name']}, which is not known here: use the version of iterinv that wrote it, or "
            "list your own "
            "class in iterinv.methods.METHODS before the file is opened"
        )
    return known[kept["name"]](**{name: _from_json(value, known) for name, value in kept.items() if name != "name"})


def _known() -> dict[str, type]:
    """The classes that a plan in a file may name: the parts of every listed method and rule."""
    found: dict[str, type] = {}

    def add(part: Any) -> None:
        if is_dataclass(part):
            found.setdefault(type(part).__name__, type(part))
            for f in fields(part):
                add(getattr(part, f.name))

    for method in METHODS.values():
        for part in method:
            add(part)
    for rule in RULES.values():
        add(rule)
    return found

"""Inversions as files: safetensors with a JSON header, nothing that runs when it is read.

Kept are the states that a rerun starts from, the low-resolution conditions with their noise, the grid, the plan, the
prompt, the picture itself, and a checksum of all that. The same inversion gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iterinv.cascade import Cascade
from iterinv.conditions import FROM_PROMPT
from iterinv.guidance import CFG
from iterinv.images import Frame
from iterinv.inversion import Inversion, Plan, StageInversion, StageReport
from iterinv.levels import Level
from iterinv.methods import METHODS
from iterinv.steps import RULES

FORMAT = 3


class BadInversion(ValueError):
    """A file that cannot be taken as an inversion; the message says why and what to do."""


class Saved(NamedTuple):
    """An inversion and the picture it was made from."""

    inversion: Inversion
    frame: Frame


def save(path: Path, saved: Saved) -> None:
    """Write an inversion of one picture. The file appears whole or not at all.

    Raises ``ValueError`` for a batch, and for a plan that could not be read back, as one with an unlisted rule of your own.
    """
    from safetensors.torch import save_file

    inversion, frame = saved
    if len(inversion.stages[0].state[0]) != 1:
        raise ValueError(f"a file holds the inversion of one picture; this is a batch of {len(inversion.stages[0].state[0])}")
    tensors: dict[str, Tensor] = {"whole": torch.from_numpy(np.ascontiguousarray(frame.whole))}
    stages = []
    for k, found in enumerate(inversion.stages):
        for j, x in enumerate(found.state):
            tensors[f"{k}.state.{j}"] = x
        if not found.plan.inverter.exact and found.path is not None:
            tensors[f"{k}.path"] = torch.cat(found.path)
        if found.lost is not None:
            tensors[f"{k}.lost"] = found.lost
        if found.plan.refine is not None:
            tensors |= {f"{k}.refine.{name}": x for name, x in found.plan.refine.fitted(found).items()}
        tensors |= {f"{k}.condition.{name}": x for name, x in found.condition.without(*FROM_PROMPT).items()}
        report = {name: value for name, value in asdict(found.report).items() if name != "seconds"}
        stages.append({"plan": _plan(found.plan), "start": found.start, "grid": list(found.grid), "report": report})
    header = {
        "format": FORMAT,
        "prompt": inversion.prompt,
        "seed": inversion.seed,
        "fingerprint": inversion.fingerprint,
        "frame": {"size": frame.size, "top": frame.top, "left": frame.left},
        "stages": stages,
    }
    partial = path.with_name(path.name + ".partial")
    try:
        tensors = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
        # One entry of metadata, since safetensors writes several in no fixed order.
        text = json.dumps({"sha256": _checksum(header, tensors), **header})
        save_file(tensors, partial, metadata={"iterinv": text})
        os.chmod(partial, 0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def open_(path: Path, cascade: Cascade) -> Saved:
    """Reopen an inversion for a cascade; rerunning it gives the picture again.

    Raises :class:`BadInversion` for a file that is missing, truncated, of another kind, format or model, or not finite.
    """
    text, tensors = _read(path)
    try:
        header = json.loads(text)
        if header["format"] != FORMAT:
            raise BadInversion(
                f"it has format {header['format']}; this version reads format {FORMAT}: use the version of iterinv that wrote "
                "it, or invert the picture again"
            )
        if header.pop("sha256") != _checksum(header, tensors):
            raise BadInversion(
                "its checksum does not fit what it holds: it was damaged; copy it again, or invert the picture again"
            )
        if header["fingerprint"] != cascade.fingerprint:
            raise BadInversion(
                f"it was made by the cascade {header['fingerprint']}, not by the one loaded ({cascade.fingerprint}): other "
                "weights, settings or precision; load that one, or invert the picture again"
            )
        return _rebuild(header, tensors, cascade)
    except BadInversion as error:
        raise BadInversion(f"{path}: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as error:
        # Past the checksum only a file that another program wrote gets here.
        raise BadInversion(f"{path} lacks or garbles a part of an inversion ({error!r}): invert the picture again") from None


def _checksum(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(header).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BadInversion(f"{path} is not a file" if path.exists() else f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise BadInversion(f"{path} is truncated or not an inversion file ({error})") from None
    if "iterinv" not in metadata:
        raise BadInversion(f"{path} is a safetensors file, but not an inversion: it has no iterinv header")
    return metadata["iterinv"], tensors


def _rebuild(header: dict[str, Any], tensors: dict[str, Tensor], cascade: Cascade) -> Saved:
    for name, x in tensors.items():
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise BadInversion(f"the tensor {name} holds NaN or infinity: invert the picture again")
    if len(header["stages"]) != len(cascade.stages):
        raise BadInversion(f"it has {len(header['stages'])} stages, the cascade {len(cascade.stages)}")
    found = []
    for k, (stage, kept) in enumerate(zip(cascade.stages, header["stages"], strict=True)):
        plan = _unplan(kept["plan"])
        grid = tuple(Level(*level) for level in kept["grid"])
        if grid != tuple(stage.schedule.grid(plan.steps, plan.spacing)):
            raise BadInversion(f"the grid of stage {stage.name} is not the one that this cascade's schedule gives")
        if kept["start"] != plan.first:
            raise BadInversion(f"stage {stage.name} starts at level {kept['start']}, which {plan.method} does not start from")
        shape = (1, *stage.shape)
        count = sum(name.startswith(f"{k}.state.") for name in tensors)
        dtype = getattr(torch, plan.dtype)
        state = tuple(_shaped(tensors, f"{k}.state.{j}", shape, dtype).to(stage.device) for j in range(count))
        if count != len(plan.rule.init(*[state[0]] * 2)):
            raise BadInversion(f"stage {stage.name} holds {count} states, which {plan.method} does not start from")
        low = noise = None
        if stage.low_level is not None:
            below = cascade.stages[k - 1].size
            low = _shaped(tensors, f"{k}.condition.low_image", (1, 3, below, below))
            noise = _shaped(tensors, f"{k}.condition.low_noise", (1, 3, *shape[2:]))
        condition = stage.condition(header["prompt"], low, noise)
        negative, guidance = stage.with_prompt(condition, ""), CFG(plan.guidance)
        states = None
        if not plan.inverter.exact:
            states = _shaped(tensors, f"{k}.path", (len(grid), *shape[1:])).to(stage.device).split(1)
        report = StageReport(**kept["report"])
        lost = None
        if stage.codec is not None:
            lost = _shaped(tensors, f"{k}.lost", (1, 3, stage.size, stage.size)).to(stage.device)
        each = StageInversion(plan, grid, condition, negative, guidance, plan.first, state, states, None, report, lost=lost)
        if plan.refine is not None:
            prefix = f"{k}.refine."
            fitted = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
            each = plan.refine.restored(stage, each, fitted)
        found.append(each)
    frame = Frame(_shaped(tensors, "whole", (*tensors["whole"].shape[:2], 3), torch.uint8).numpy(), **header["frame"])
    if frame.size != cascade.size or not frame.fits():
        raise BadInversion(
            f"its picture of {frame.whole.shape[:2]} px does not lie under a square of {cascade.size} as it says"
        )
    inversion = Inversion(header["prompt"], header["seed"], header["fingerprint"], tuple(found))
    return Saved(inversion, frame)


def _shaped(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    x = tensors[name]
    if tuple(x.shape) != shape or x.dtype != dtype:
        raise BadInversion(f"the tensor {name} is {tuple(x.shape)} of {x.dtype}, not {shape} of {dtype}")
    return x


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


def _setting(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    return {"name": type(value).__name__, **{f.name: _setting(getattr(value, f.name)) for f in fields(value)}}


def _unsetting(kept: Any, known: dict[str, type]) -> Any:
    if not isinstance(kept, dict):
        return kept
    if kept["name"] not in known:
        raise BadInversion(
            f"it uses {kept['name']}, which is not known here: use the version of iterinv that wrote it, or list your own "
            "class in iterinv.methods.METHODS before the file is opened"
        )
    return known[kept["name"]](**{name: _unsetting(value, known) for name, value in kept.items() if name != "name"})


def _plan(plan: Plan) -> dict[str, Any]:
    """A plan as it is written. Raises ``ValueError`` for one that could not be read back."""
    kept = {f.name: _setting(getattr(plan, f.name)) for f in fields(plan)}
    try:
        readable = _unplan(json.loads(json.dumps(kept))) == plan
    except (TypeError, ValueError):
        readable = False
    if not readable:
        raise ValueError(
            f"an inversion by {plan.method} cannot be saved, since its file could not be read back: make its parts frozen "
            "dataclasses of plain values, and list them as a method in iterinv.methods.METHODS or a rule in iterinv.steps.RULES"
        )
    return kept


def _unplan(kept: dict[str, Any]) -> Plan:
    known = _known()
    return Plan(**{name: _unsetting(value, known) for name, value in kept.items()})

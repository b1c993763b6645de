"""The states that edits of an inversion asked for, in a file beside it, so that the next edit inverts none of them
again.

The file belongs to one inversion, and is as large as its edits were deep; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from iterinv import store
from iterinv.images import sides
from iterinv.inversion import Inversion, plan_to_json
from iterinv.models import Stage
from iterinv.trajectory import Walked


def place(inversion: Path) -> Path:
    """The file that holds the states of an inversion file."""
    return inversion.with_suffix(".path.safetensors")


def save(file: Path, inversion: Inversion) -> None:
    """Write the states of every stage that was walked back, clean to noisy, as far as they are known. Those of the
    other stages are in the inversion file.

    Raises :class:`iterinv.files.CannotWrite`.
    """
    tensors, counts = dict[str, Tensor](), []
    for k, stage in enumerate(inversion.stages):
        walked = stage.trajectory if isinstance(stage.trajectory, Walked) else None
        counts.append(0 if walked is None or walked.depth == 0 else walked.depth + 1)
        if walked is not None and counts[k]:
            tensors[f"{k}"] = torch.stack([walked[len(walked) - 1 - j] for j in range(counts[k])])
    store.write(file, {"of": _identity(inversion), "states": counts}, tensors)


def load(file: Path, inversion: Inversion, stages: Sequence[Stage]) -> list[list[Tensor]]:
    """Read the states of each stage (batch, channels, h, w), clean to noisy; none where there is no file, or where it
    belongs to another inversion. Raises :class:`iterinv.store.BadInversion` for a damaged file."""
    none: list[list[Tensor]] = [[] for _ in stages]
    if not file.exists():
        return none
    try:
        header = store.read_header(file)
        if header.get("of") != _identity(inversion):
            return none
        tensors = store.read_tensors(file, header, _expected(header["states"], inversion, stages))
    except (store.BadInversion, KeyError, TypeError, ValueError) as error:
        raise store.BadInversion(f"{file} holds no states of an edit ({error}): delete it") from None
    return [
        list(tensors[f"{k}"].to(stage.device).unbind()) if f"{k}" in tensors else [] for k, stage in enumerate(stages)
    ]


def _expected(counts: Sequence[int], inversion: Inversion, stages: Sequence[Stage]) -> dict[str, store.Shape]:
    """The shape and dtype of each tensor of a file with so many states of each stage."""
    expected: dict[str, store.Shape] = {}
    for k, (stage, count) in enumerate(zip(stages, counts, strict=True)):
        if count:
            dtype = getattr(torch, inversion.stages[k].plan.dtype)
            expected[f"{k}"] = (count, len(inversion), *stage.shape), dtype
    return expected


def _identity(inversion: Inversion) -> str:
    """A hash of all that an inversion's states follow from: the model, plans, prompts, seeds and pictures."""
    plans = [plan_to_json(stage.plan) for stage in inversion.stages]
    facts = [inversion.fingerprint, plans, list(inversion.prompts), list(inversion.seeds)]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for canvas in inversion.canvases:
        digest.update(f"{canvas.image.shape} {sides(canvas.extent)} {canvas.top} {canvas.left}".encode())
        digest.update(canvas.image.tobytes())
    return digest.hexdigest()

"""Requests of the workbench, from what a visitor gives."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iterinv.masks import GivenMask
from iterinv.metrics import metrics
from iterinv.web.session import Place, Session
from iterinv.workbench import InvertRequest, MeasureRequest, Model

LONGEST = 2000
"""The most characters of a prompt."""

WORDS, BOX, BRUSH = "from the words", "a box", "brushed"
REGIONS = (WORDS, BOX, BRUSH)
"""The ways to say where an edit may act."""

UPLOAD, NOTHING = "a file", "none"
"""A picture to measure or a mask is a file of the visitor's, and there is no mask."""

MASK = "region.png"
"""The name of the file of a region that a visitor painted."""


def source_of(
    place: Place,
    picture: str | None,
    prompt: str,
    model: str,
    method: str,
    steps: int,
    guidance: float,
    seed: int,
    fit: str,
) -> InvertRequest:
    """The request to invert a picture. Raises ``ValueError`` without one, and as :func:`prompt_of` and
    :func:`model_of` do."""
    if picture is None:
        raise ValueError("there is no picture: choose a file, paste one, or take an example")
    how = method, int(steps), float(guidance), int(seed), fit
    return InvertRequest(Path(picture), prompt_of(prompt), *how, model_of(place, model))


def model_of(place: Place, name: str) -> Model:
    """The model of a name. Raises ``ValueError`` for one that the server does not offer."""
    if name not in place.models:
        raise ValueError(f"this server has no model {name!r}: it has {', '.join(place.models)}")
    return place.models[name]


def prompt_of(prompt: str | None) -> str:
    """A prompt, empty without one. Raises ``ValueError`` for one of more than :data:`LONGEST` characters."""
    if len(prompt or "") > LONGEST:
        raise ValueError(f"the prompt has {len(prompt or '')} characters; at most {LONGEST} are read: shorten it")
    return prompt or ""


def setting_of(name: str, text: str, kind: type[int] | type[float]) -> Any:
    """A number that a visitor typed, ``None`` for the editor's own. Raises ``ValueError`` for anything else."""
    try:
        value = kind(text) if (text := (text or "").strip()) else None
    except ValueError:
        value = math.nan
    if value is not None and not (math.isfinite(value) and (kind is float or 0 <= value < 2**32)):
        form = "a finite number" if kind is float else f"a whole number from 0 to {2**32 - 1}"
        raise ValueError(f"the {name} is {text!r}; it is {form}, or empty for the editor's own")
    return value


def mask_of(where: str, box: Sequence[int | None], strokes: bytes | None, folder: Path) -> GivenMask | None:
    """The region that a visitor gave; ``None`` for the editor's own. ``strokes`` is the file of what was painted, which
    is written to ``folder``. Raises ``ValueError`` where nothing is painted."""
    if where == BOX:
        left, top, width, height = (int(each or 0) for each in box)
        return GivenMask(box=(left, top, width, height))
    if where == BRUSH:
        if strokes is None:
            raise ValueError("nothing is brushed: paint over the part that may change")
        (folder / MASK).write_bytes(strokes)
        return GivenMask(folder / MASK)
    return None


def measure_of(
    session: Session,
    folder: Path,
    sources: Sequence[str],
    uploads: Sequence[str | None],
    names: Sequence[str],
    resize: bool,
    prompts: tuple[str | None, str | None],
) -> MeasureRequest:
    """The request to measure a picture against a reference within a mask: ``sources`` names these three as
    :meth:`iterinv.web.session.Session.pictures` and :meth:`iterinv.web.session.Session.regions` do, ``uploads`` are the
    files of those that are :data:`UPLOAD`. All are copied to ``folder``, each under a name of its own.

    Raises ``ValueError`` without a file or a metric, and for a metric that the page does not offer.
    """
    what = "the reference", "the picture", "the mask"
    known = session.pictures(), session.pictures(), session.regions()
    files: list[Path | None] = []
    for name, upload, there, part in zip(sources, uploads, known, what, strict=True):
        if name == NOTHING:
            files.append(None)
            continue
        file = there.get(name) if name != UPLOAD else None if upload is None else Path(upload)
        if file is None:
            raise ValueError(f"{part} is missing: choose a file, or a picture of the history")
        own = f"{name.replace(' ', '-')}.png" if name[-1].isdigit() else file.name  # all edits' files have one name
        while (folder / own).exists():
            own = f"other-{own}"
        files.append(folder / own)
        shutil.copyfile(file, folder / own)
    reference, picture, mask = files
    if reference is None or picture is None:
        raise ValueError("two pictures are compared: choose both")
    if not names:
        raise ValueError("no metric is chosen: choose one or more")
    if unknown := sorted(set(names) - set(offered()[0])):
        raise ValueError(f"this page has no metric {unknown[0]!r}: choose others")
    texts = prompt_of(prompts[0]), prompt_of(prompts[1])
    return MeasureRequest(reference, picture, tuple(names), mask, texts, resize=resize)


def offered() -> tuple[list[str], dict[str, str]]:
    """The names of the metrics of two pictures that can run here, and the reason of each that cannot."""
    reasons = {name: metric.needs(None) for name, metric in metrics().items() if metric.features is None}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    return [name for name in reasons if name not in left_out], left_out

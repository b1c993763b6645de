"""The command line of a request, as a user types it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from iterinv.masks import GivenMask
from iterinv.requests import EditRequest, InvertRequest, Model


def edit_command(request: EditRequest, out: Path | str) -> str:
    """The ``iterinv edit`` command of a request, whose pictures and inversions are files; settings that are the
    defaults are left out."""
    source, model = request.source, request.source.model
    words = ["iterinv", "edit"]
    if isinstance(source, InvertRequest):
        default = InvertRequest(source.picture, source.prompt)
        words += [str(source.picture), "--prompt", source.prompt]
        for name in ("method", "num_inference_steps", "guidance_scale", "seed", "fit"):
            words += _option(name, getattr(source, name), getattr(default, name))
    else:
        words += ["--inversion", str(source.inversion)]
    for prompt in request.prompts:
        words += ["--to", prompt]
    words += _option("edit_guidance", request.guidance_scale, None)
    for name in ("editor", "strength", "edit_seed", "size", "original"):
        words += _option(name, getattr(request, name), None)
    words += [word for name in ("keep_inversion", "keep_path", "force") for word in _flag(name, request)]
    words += _of_mask(request.mask)
    for name in ("device", "dtype", "memory", "variant", "config"):
        words += _option(name, getattr(model, name), getattr(Model(), name))
    words += _option("model", model.name, Model().name) + _flag("allow_pickle", model)
    return shlex.join([*words, "--out", str(out)])


def _of_mask(mask: GivenMask | None) -> list[str]:
    if mask is None:
        return []
    box = None if mask.box is None else ",".join(map(str, mask.box))
    polygon = None if mask.polygon is None else " ".join(f"{x},{y}" for x, y in mask.polygon)
    words = _option("mask", mask.file, None) + _option("box", box, None) + _option("polygon", polygon, None)
    words += ["--invert-mask"] if mask.invert else []
    return words + _option("grow", mask.grow, 0) + _option("feather", mask.feather, 0)


def _option(name: str, value: Any, default: Any) -> list[str]:
    words = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return [] if value == default else [f"--{name.replace('_', '-')}", words]


def _flag(name: str, holder: Any) -> list[str]:
    return [f"--{name.replace('_', '-')}"] if getattr(holder, name) else []

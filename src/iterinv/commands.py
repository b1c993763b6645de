"""The command line of a request, as a user types it."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from iterinv.images import Picture
from iterinv.masks import GivenMask
from iterinv.metrics import metrics
from iterinv.requests import (
    CompareRequest,
    EditRequest,
    InvertRequest,
    MeasureRequest,
    Model,
    ReopenRequest,
    SampleRequest,
)

Request = InvertRequest | ReopenRequest | EditRequest | CompareRequest | SampleRequest

FOLDER = "out"
"""The output folder of commands that are written down without one."""


def edit_command(request: EditRequest, out: Path | str) -> str:
    """The ``iterinv edit`` command of a request, whose pictures and inversions are files; settings that are the
    defaults are left out."""
    source, model = request.source, request.source.model
    words = ["iterinv", "edit"]
    if isinstance(source, InvertRequest):
        words += _inverted(source)
    else:
        words += ["--inversion", str(source.inversion)]
    for prompt in request.prompts:
        words += ["--to", prompt]
    words += _option("edit_guidance", request.guidance_scale, None)
    for name in ("editor", "strength", "edit_seed", "size", "original"):
        words += _option(name, getattr(request, name), None)
    words += [word for name in ("keep_inversion", "keep_path", "force") for word in _flag(name, request)]
    return _joined([*words, *_of_mask(request.mask)], model, out)


def measure_command(request: MeasureRequest) -> str:
    """The ``iterinv measure`` command of a request, with the names of its files."""
    words = ["iterinv", "measure", request.reference.name, request.picture.name]
    words += [word for name in request.metrics for word in ("--metric", name)]
    words += ["--mask", request.mask.name] if request.mask else []
    needs = max(metrics()[name].prompts for name in request.metrics)
    for option, prompt in (("--prompt", request.prompts[0]), ("--to", request.prompts[1]))[2 - needs :]:
        words += [option, prompt or ""]
    return shlex.join([*words, *(["--resize"] if request.resize else [])])


def command_of(request: Request, out: Path | str = FOLDER) -> str:
    """The command of any request."""
    if isinstance(request, EditRequest):
        return edit_command(request, out)
    if isinstance(request, InvertRequest):
        return _joined(["iterinv", "invert", *_inverted(request)], request.model, out)
    if isinstance(request, ReopenRequest):
        return _joined(["iterinv", "reconstruct", str(request.inversion)], request.model, out)
    if isinstance(request, CompareRequest):
        words = ["iterinv", "compare", *_inverted(request.source, without="method")]
        return _joined(words + _option("methods", request.methods, ()), request.source.model, out)
    words, default = ["iterinv", "sample", request.prompt], SampleRequest(request.prompt)
    for name in ("num_images_per_prompt", "num_inference_steps", "guidance_scale", "sampler", "gamma", "seed"):
        words += _option(name, getattr(request, name), getattr(default, name))
    words += _option("height", request.height, None) + _option("width", request.width, None)
    return _joined(words, request.model, out)


def commands_of_reconstruction(request: InvertRequest | ReopenRequest, out: Path | str = FOLDER) -> list[str]:
    """The commands that write a reconstruction: of a picture, those that invert it and reconstruct the inversion."""
    commands = [command_of(request, out)]
    if isinstance(request, InvertRequest):
        commands.append(command_of(ReopenRequest(Path(out) / "inversion.safetensors", request.model), out))
    return commands


def with_names(request: Any, model: bool = False) -> Any:
    """The request with the names of its files in place of their paths; with ``model``, that of the model too."""
    if isinstance(request, EditRequest):
        mask, original = request.mask, request.original
        if mask is not None and mask.file is not None:
            mask = replace(mask, file=Path(mask.file.name))
        source = with_names(request.source, model)
        original = None if original is None else name_of(original)
        return replace(request, source=source, mask=mask, original=original)
    if isinstance(request, CompareRequest):
        return replace(request, source=with_names(request.source, model))
    if isinstance(request, InvertRequest):
        request = replace(request, picture=name_of(request.picture))
    if isinstance(request, ReopenRequest):
        request = replace(request, inversion=Path(request.inversion.name))
    if not model:
        return request
    how = request.model
    settings = {each.name: getattr(how, each.name) for each in fields(Model)}
    settings |= {"name": model_name(how), "config": how.config and Path(how.config).name}
    return replace(request, model=Model(**settings))


def name_of(picture: Picture) -> str:
    """The name of a picture's file; a word in capitals for a picture that is no file."""
    return Path(picture).name if isinstance(picture, (str, Path)) else "PICTURE"


def model_name(model: Model) -> str:
    """The name of a model, without the path of a folder or file on this disk; a word in capitals for one that is live
    already."""
    name = model.name
    if not isinstance(name, (str, Path)):
        return "MODEL"
    return Path(name).name if isinstance(name, Path) or Path(name).is_absolute() or Path(name).exists() else name


def _inverted(source: InvertRequest, without: str = "") -> list[str]:
    """The picture, the prompt and the settings of an inversion."""
    words, default = [str(source.picture), "--prompt", source.prompt], InvertRequest(source.picture, source.prompt)
    for name in ("method", "num_inference_steps", "guidance_scale", "seed", "fit"):
        words += _option(name, getattr(source, name), getattr(default, name)) if name != without else []
    return words


def _joined(words: list[str], model: Model, out: Path | str) -> str:
    """A command with the options of its model and its output folder."""
    for name in ("device", "dtype", "memory", "variant", "noise_level", "distilled_guidance"):
        words = words + _option(name, getattr(model, name), getattr(Model(), name))
    words = words + _option("model_config", model.config, None)
    words = words + _option("model", model.name, Model().name) + _flag("tiled", model) + _flag("allow_pickle", model)
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

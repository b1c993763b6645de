"""The Python program that repeats an edit of the page."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from iterinv.workbench import EditRequest, InvertRequest, Model, Result


def edit_python(request: EditRequest, result: Result) -> str:
    """The program of a request, whose pictures and inversions are files, that writes its ``result`` to ``edited.png``.
    Settings that are the defaults are left out."""
    source, (prompt,) = request.source, request.prompts
    imports, lines = ["import iterinv"], []
    model = _given(source.model, Model())
    name = [repr(str(source.model.name))] if model.pop("name", None) else []
    if model:
        imports.append("from iterinv.workbench import Model")
    lines.append(f"cascade = {f'Model({_call(name, model)}).load()' if model else f'iterinv.load({_call(name, {})})'}")
    if isinstance(source, InvertRequest):
        settings = _given(source, InvertRequest(source.picture, source.prompt, model=source.model))
        words = [repr(str(source.picture)), repr(source.prompt)]
        lines.append(f"inversion = cascade.invert({_call(words, settings)})")
    else:
        lines.append(f"inversion = iterinv.open({str(source.inversion)!r}, cascade)")
    words, mask = ["inversion", repr(prompt)], {}
    given = {"strength": request.strength, "guidance_scale": request.guidance_scale, "seed": request.edit_seed}
    given = {setting: value for setting, value in given.items() if value is not None}
    if given:
        imports.append("from iterinv.workbench import editor_of")
        default = request.editor or result.cascade.defaults.editor
        lines.append(f"editor = editor_of({_call([repr(default)], given)})")
        words.append("editor")
    elif request.editor:
        words.append(repr(request.editor))
    if request.mask is not None:
        shape = (result.original.values if result.original else result.inversion.canvases[0].image).shape[:2]
        imports.append("from iterinv.masks import GivenMask")
        region = f"Path({str(request.mask.file)!r})" if request.mask.file else f"box={request.mask.box!r}"
        if request.mask.file:
            imports.insert(0, "from pathlib import Path\n")
        lines.append(f"mask, _ = GivenMask({region}).drawn({shape[0]}, {shape[1]})")
        mask = {"mask": "mask"}
    lines.append(f"edit = cascade.edit({', '.join([*words, *(f'{key}={value}' for key, value in mask.items())])})")
    lines.append(f'edit.{"at_own_size()" if result.original is not None else "images"}[0].save("edited.png")')
    return "\n".join([*imports, "", *lines]) + "\n"


def _given(values: Any, default: Any) -> dict[str, Any]:
    """The fields of a request that differ from another's."""
    pairs = ((each.name, getattr(values, each.name), getattr(default, each.name)) for each in fields(values))
    return {name: value for name, value, usual in pairs if value != usual}


def _call(words: list[str], settings: dict[str, Any]) -> str:
    return ", ".join([*words, *(f"{name}={value!r}" for name, value in settings.items())])

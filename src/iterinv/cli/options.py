"""The options that several commands share, and the editor that they name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from iterinv.cascade import Cascade
    from iterinv.edits.site import Editor

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for what is made.")]
Prompt = Annotated[str, typer.Option("--prompt", "-p", help="What the picture shows.")]
Model = Annotated[
    str,
    typer.Option("--model", help="embedded, deepfloyd, sd15, sd21, sdxl …; a cascade or diffusers folder; a name on the hub."),
]
Method = Annotated[str, typer.Option("--method", "-m", help="bdia is exact; `iterinv methods` lists the others.")]
Steps = Annotated[int, typer.Option("--num-inference-steps", "--steps", "-n", min=2, help="Steps at every stage.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Draws noise: on low-resolution conditions.")]
Guidance = Annotated[float, typer.Option("--guidance-scale", "--guidance", help="Classifier-free guidance; 1 is none.")]
Sampler = Annotated[
    str, typer.Option(help="ddim, heun, dpmpp-2s, dpmpp-2m, bdia, bdia-fixed, bdia-heun, bdia-dpmpp, edict or belm.")
]
Gamma = Annotated[float | None, typer.Option(help="Of a bdia sampler: 0 is its base, 1 the whole correction.")]
Size = Annotated[int | None, typer.Option(help="Of the largest pictures, one that a stage has; stages above are left out.")]
Fit = Annotated[str, typer.Option("--fit", help="A picture that is not square: 'pad' it, or 'crop' to its middle.")]
EditorName = Annotated[str, typer.Option("--editor", help="flowedit or diffedit (within a mask), or prompt-swap (everywhere).")]
Strength = Annotated[float | None, typer.Option(help="Share of the levels run again; the editor's own if not given.")]
EditGuidance = Annotated[float | None, typer.Option(help="Guidance of the edit; the editor's own if not given.")]


Device = Annotated[str, typer.Option("--device", help="Where networks run: cpu, cuda, mps.")]
Precision = Annotated[str, typer.Option("--dtype", help="The networks' precision: float32, float16 or bfloat16.")]
Memory = Annotated[
    str | None, typer.Option("--memory", help="How much the device has, as 16gb, or auto: what does not fit takes turns.")
]
Pickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Read weights that are there only as pickles, which can run code.")
]
_MACHINE = {
    "device": (Device, "cpu"),
    "dtype": (Precision, "float32"),
    "memory": (Memory, None),
    "allow_pickle": (Pickle, False),
}


def on_a_machine(command: Callable[..., None]) -> Callable[..., None]:
    """A command that loads a cascade, with the options that say how; :func:`load` follows them."""
    signature = inspect.signature(command, eval_str=True)
    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _MACHINE.items()
    ]

    @functools.wraps(command)
    def with_options(*args: Any, **kwargs: Any) -> None:
        token = _machine.set({name: kwargs.pop(name) for name in _MACHINE})
        try:
            command(*args, **kwargs)
        finally:
            _machine.reset(token)

    with_options.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *own])  # type: ignore[attr-defined]
    with_options.__annotations__ = {**command.__annotations__, **{name: kind for name, (kind, _) in _MACHINE.items()}}
    return with_options


_machine: ContextVar[dict[str, Any]] = ContextVar("machine")


def load(model: str) -> Cascade:
    """The cascade of ``--model``, as the command's options say."""
    from iterinv import app

    given = {name: value for name, value in _machine.get().items() if value not in (None, False)}
    return app.load(model, app.precision(given.pop("dtype")), **given)


def editor_of(name: str, strength: float | None, guidance: float | None) -> Editor:
    """The editor of that name, with what was given in place of its own. Raises ``ValueError`` where there is none."""
    from iterinv.edits import EDITORS

    if name not in EDITORS:
        raise ValueError(f"there is no editor {name!r}: the editors are {', '.join(EDITORS)}")
    given = {"strength": strength, "guidance": guidance}
    return EDITORS[name](**{k: v for k, v in given.items() if v is not None})


def share_of(text: str) -> tuple[int, int]:
    """``k/n`` as (k, n). Raises ``ValueError`` for anything else."""
    k, slash, n = text.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal()):
        raise ValueError(f"--share is {text!r}; it is k/n, as 1/2 and 2/2 are the halves")
    return int(k), int(n)

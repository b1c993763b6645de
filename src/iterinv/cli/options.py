"""The options that several commands share, and the requests they make."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from iterinv.cli.names import completing
from iterinv.cli.session import framed

if TYPE_CHECKING:
    from iterinv.workbench import Model as ModelRequest


class App(typer.Typer):
    """A command line whose commands all have ``--json``, ``--quiet`` and ``--config``, and refuse an option which is
    given twice, where one of the two would be lost."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        register = super().command(name, cls=_Command, **settings)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register(with_frame(function))
            return function

        return decorate


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        *_, given = self.make_parser(ctx).parse_args(args=list(args))
        for each in {id(each): each for each in given}.values():
            single = each.param_type_name == "option" and not each.multiple and not getattr(each, "is_flag", False)
            if single and sum(other is each for other in given) > 1:
                ctx.fail(f"{max(each.opts, key=len)} is given twice: give it once")
        return super().parse_args(ctx, args)


def with_parameters(
    command: Callable[..., None], own: dict[str, tuple[Any, Any]], run: Callable[..., None], without: str = ""
) -> Callable[..., None]:
    """The function ``run`` with the parameters of a command, those of ``own`` (annotation and default) added and that
    named ``without`` left out, as typer reads them."""
    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in own.items()
    ]
    others = [each for each in signature.parameters.values() if each.name != without]
    run = functools.wraps(command)(run)
    run.__signature__ = signature.replace(parameters=[*others, *added])  # type: ignore[attr-defined]
    kinds = {name: kind for name, kind in command.__annotations__.items() if name != without}
    run.__annotations__ = {**kinds, **{name: kind for name, (kind, _) in own.items()}}
    return run


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the defaults of a command from a TOML file."""
    if path is not None and not context.resilient_parsing:
        from iterinv.cli.config import defaults_of

        context.default_map = defaults_of(path, context)
    return path


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress and no notes; errors remain.")]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_read_config,
        is_eager=True,
        help="A TOML file of settings, by the names of options; the command line wins.",
    ),
]


def with_frame(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of its output and its file of settings."""

    def run(*args: Any, json: bool, quiet: bool, config: Path | None, **kwargs: Any) -> None:
        with framed(json, quiet):
            command(*args, **kwargs)

    return with_parameters(command, {"json": (Json, False), "quiet": (Quiet, False), "config": (Settings, None)}, run)


def finite(value: float | None) -> float | None:
    """A guidance scale, or none. Raises an error to the user for NaN and infinity."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"guidance is {value}; it is a finite number, 1 for none")
    return value


Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
Prompt = Annotated[str, typer.Option("--prompt", "-p", help="A description of the picture.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        autocompletion=completing("PRESETS"),
        help="embedded, deepfloyd, sdxl, flux-dev …; a cascade or diffusers folder; a file; a hub name.",
    ),
]
Method = Annotated[
    str,
    typer.Option(
        "--method", "-m", autocompletion=completing("METHODS"), help="bdia is exact; `iterinv methods` lists all."
    ),
]
StageMethods = Annotated[
    str,
    typer.Option(
        "--method",
        "-m",
        autocompletion=completing("METHODS", ","),
        help="bdia is exact; `iterinv methods` lists all. One for each stage: null-text,bdia,bdia.",
    ),
]
Steps = Annotated[int, typer.Option("--num-inference-steps", "--steps", "-n", min=2, help="Steps at every stage.")]
Count = Annotated[int | None, typer.Option(min=1, help="The first so many tasks; all of a folder, 100 rendered ones.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes, each with a copy of the model.")]
Engine = Annotated[str, typer.Option(help="local, or ray: as many actors on this machine, or on a Ray cluster.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of each process; torch's own for one, 1 for several.")
]
Shown = Annotated[int, typer.Option(min=0, help="Tasks whose pictures are kept and shown.")]
Rows = Annotated[
    str, typer.Option("--out", "-o", help="Folder of rows, pictures and the report; a run that was stopped goes on.")
]
MetricWeights = Annotated[
    Path | None, typer.Option("--weights", help="A folder with trained weights of metrics that are in no cache.")
]
Budget = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="In place of steps: network calls a stage of inverting and running again; backward ones count as two.",
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds", help="In place of a budget of calls: those that take so long at all stages, as measured here."
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the noise, such as that on low-resolution pictures."),
]
Guidance = Annotated[
    float, typer.Option("--guidance-scale", "--guidance", callback=finite, help="Classifier-free guidance; 1 is none.")
]
StageGuidance = Annotated[
    str,
    typer.Option(
        "--guidance-scale",
        "--guidance",
        help="Classifier-free guidance of the inversion; 1 is none. One for each stage: 7.5,1,1.",
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        autocompletion=completing("RULES"),
        help="The model's own if not given; `iterinv samplers` lists all.",
    ),
]
Gamma = Annotated[float | None, typer.Option(help="Weight of BDIA's correction: 0 is the base rule, 1 all of it.")]
Size = Annotated[int | None, typer.Option(help="Size in px of the last stage to run; stages above are left out.")]
Fit = Annotated[
    str, typer.Option("--fit", help="A picture that is not square: 'pad' it, 'crop' it, or work at its 'aspect' ratio.")
]
Height = Annotated[int | None, typer.Option(help="Height in px of the largest stage; the model's own if not given.")]
Width = Annotated[int | None, typer.Option(help="Width in px of the largest stage; the model's own if not given.")]
Trajectory = Annotated[
    bool, typer.Option("--trajectory", help="Keep every state in the file, so that any machine has the same noise.")
]
EditorName = Annotated[
    str | None,
    typer.Option(
        "--editor",
        autocompletion=completing("EDITORS"),
        help="The model's own if not given; `iterinv editors` lists all.",
    ),
]
Strength = Annotated[float | None, typer.Option(help="Share of the levels run again; the editor's own if not given.")]
EditGuidance = Annotated[
    float | None, typer.Option(callback=finite, help="Guidance of the edit; the editor's own if not given.")
]
EditSeed = Annotated[
    int | None,
    typer.Option("--edit-seed", min=0, max=2**32 - 1, help="Seed of the noise that the editor draws; 0 if not given."),
]
To = Annotated[
    list[str], typer.Option("--to", "-t", help="A description of the edited picture; again for another edit.")
]
EditedPicture = Annotated[Path | None, typer.Argument(help="A picture file.", show_default=False)]
EditedPrompt = Annotated[str | None, typer.Option("--prompt", "-p", help="A description of the picture.")]
EditedInversion = Annotated[Path | None, typer.Option("--inversion", "-i", help="Edit this inversion, not a picture.")]
Force = Annotated[bool, typer.Option("--force", help="Edit a picture that the model does not know.")]

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how many network calls it takes, and about how long; write nothing.")
]
Device = Annotated[str, typer.Option("--device", help="Device of the networks: cpu, cuda, mps.")]
Precision = Annotated[
    str | None, typer.Option("--dtype", help="The networks' precision: float32 if not given, float16 or bfloat16.")
]
Memory = Annotated[
    str | None, typer.Option("--memory", help="Memory limit, such as 16gb, or auto; large networks take turns.")
]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="Open weights that can run code: pickles, TorchScript.")]
Variant = Annotated[str | None, typer.Option("--variant", help="Variant of the weights in a folder, such as fp16.")]
Config = Annotated[
    str | None, typer.Option("--model-config", help="For weights in one file: a folder of that kind of model.")
]
NoiseLevel = Annotated[
    int | None,
    typer.Option("--noise-level", help="Timestep of the noise on the picture from below; the model's if not given."),
]
DistilledGuidance = Annotated[
    float | None,
    typer.Option("--distilled-guidance", help="Guidance scale that FLUX.1-dev takes as an input; 3.5 if not given."),
]
Tiled = Annotated[bool, typer.Option("--tiled", help="Let autoencoders work tile by tile, in less memory.")]
_LOADING = {
    "name": ("model", Model, "embedded"),
    "device": ("device", Device, "cpu"),
    "dtype": ("dtype", Precision, None),
    "memory": ("memory", Memory, None),
    "allow_pickle": ("allow_pickle", Pickle, False),
    "variant": ("variant", Variant, None),
    "config": ("model_config", Config, None),
    "noise_level": ("noise_level", NoiseLevel, None),
    "distilled_guidance": ("distilled_guidance", DistilledGuidance, None),
    "tiled": ("tiled", Tiled, False),
}


def with_model(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose ``model`` is made of the options that say which cascade is loaded, and how."""

    def run(*args: Any, **kwargs: Any) -> None:
        from iterinv.workbench import Model

        model: ModelRequest = Model(**{name: kwargs.pop(option) for name, (option, *_) in _LOADING.items()})
        command(*args, model=model, **kwargs)

    own = {option: (kind, default) for option, kind, default in _LOADING.values()}
    return with_parameters(command, own, run, without="model")


def share_of(text: str) -> tuple[int, int]:
    """``k/n``, k from 1 to n, as (k, n). Raises ``ValueError`` for anything else."""
    k, slash, n = text.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n) <= 1_000_000):
        raise ValueError(f"--share is {text!r}; it is k/n, as 1/2 and 2/2 are the halves")
    return int(k), int(n)


def values_of(option: str, text: str | None, kind: type[int] | type[float]) -> tuple[Any, ...]:
    """Numbers with commas between them, or ``None`` alone where there are none. Raises ``ValueError`` for anything
    else."""
    if text is None:
        return (None,)
    try:
        values = tuple(dict.fromkeys(kind(each) for each in text.split(",")))
    except ValueError:
        values = (math.nan,)
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"{option} has {text!r}; it takes finite numbers with commas between them, as 1,2,4")
    return values


def by_stage(method: str, guidance: str) -> tuple[Any, Any]:
    """A method and a guidance scale for all stages, or with commas a tuple of one for each. Raises ``ValueError`` for
    guidance that is no number."""
    names, scales = tuple(method.split(",")), guidance_of(guidance)
    return names if len(names) > 1 else method, scales if len(scales) > 1 else scales[0]


def guidance_of(text: str) -> tuple[float, ...]:
    """Guidance scales with commas between them. Raises ``ValueError`` for anything else."""
    try:
        scales = tuple(float(each) for each in text.split(","))
    except ValueError:
        scales = (math.nan,)
    if not all(map(math.isfinite, scales)):
        raise ValueError(f"guidance is {text}; it is a finite number, 1 for none, or with commas one for each stage")
    return scales


def numbers_of(option: str, text: str, count: int) -> tuple[int, ...]:
    """Whole numbers with commas between them. Raises ``ValueError`` for anything else and for another count."""
    try:
        numbers = tuple(int(each) for each in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise ValueError(f"{option} has {text!r}; it takes {count} whole numbers with commas between them")
    return numbers

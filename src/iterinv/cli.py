"""The command line: thin. Each command reads its options, calls :mod:`iterinv.app`, and prints what came of it."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from iterinv.app import Session
    from iterinv.cascade import Editor
    from iterinv.images import Frame

app = typer.Typer(
    help="Turn a picture back into the noise and the path that reproduce it, and edit it with words.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip

evaluation = typer.Typer(help="Measure methods and editors.", no_args_is_help=True)
app.add_typer(evaluation, name="evaluate")

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for what is made.")]
Prompt = Annotated[str, typer.Option("--prompt", "-p", help="What the picture shows.")]
Model = Annotated[str, typer.Option("--model", help="'embedded', or a cascade folder made by `iterinv train`.")]
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


@app.command()
def edit(
    context: typer.Context,
    to: Annotated[str, typer.Option("--to", "-t", help="What it should show.")],
    picture: Annotated[Path | None, typer.Argument(help="A picture file.", show_default=False)] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What the picture shows.")] = None,
    inversion: Annotated[Path | None, typer.Option("--inversion", "-i", help="Edit this inversion, not a picture.")] = None,
    out: Out = Path("out"),
    editor: Annotated[str, typer.Option(help="diffedit (within a mask) or prompt-swap (everywhere).")] = "diffedit",
    strength: Annotated[
        float | None, typer.Option(help="Share of the levels run again; the editor's own if not given.")
    ] = None,
    edit_guidance: Annotated[float | None, typer.Option(help="Guidance of the edit; the editor's own if not given.")] = None,
    method: Method = "bdia",
    steps: Steps = 20,
    seed: Seed = 0,
    fit: Fit = "pad",
    model: Model = "embedded",
) -> None:
    """Invert a picture, reconstruct it, and run it again with other words."""
    how = _editor(editor, strength, edit_guidance)
    with _session(out, picture) as (staging, progress, say):
        from iterinv import app as work

        to = work.check_prompt(to, "--to", say, vocabulary=model == "embedded")
        if (picture is None) == (inversion is None):
            raise ValueError("give a picture to edit, or an inversion with --inversion")
        if inversion is not None:
            given = [name for name in ("prompt", "method", "steps", "seed", "fit") if _given(context, name)]
            if given:
                raise ValueError(f"--{' --'.join(given)}: an inversion has its own; leave out, or give the picture instead")
            session = _reopen(inversion, model, progress)
        else:
            if prompt is None:
                raise ValueError("--prompt is missing: say what the picture shows")
            assert picture is not None
            session = _invert(picture, prompt, method, steps, 1.0, seed, fit, model, progress, say)
        if to.lower() == session.inversion.prompt.lower():
            say("--to says what the prompt says, so nothing is asked to change")
        edited = session.cascade.edit(session.inversion, to, how, progress)
        if edited.masks is not None and not edited.masks[0].any():
            say("the mask is empty: the model sees no difference between the two prompts in this picture, so nothing changed")
        session.write_original(staging)
        session.write_reconstruction(staging)
        session.write_inversion(staging)
        session.write_edit(staging, edited)
        told = {**session.report(), "edit": work.edit_report(to, how, edited, session.saved.frame)}
        work.write_report(staging, told)
    _tell(told, out)


@app.command()
def invert(
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    prompt: Prompt,
    out: Out = Path("out"),
    method: Method = "bdia",
    steps: Steps = 20,
    guidance: Guidance = 1.0,
    seed: Seed = 0,
    fit: Fit = "pad",
    model: Model = "embedded",
) -> None:
    """Invert a picture and keep the inversion as a file."""
    with _session(out, picture) as (staging, progress, say):
        from iterinv import app as work

        session = _invert(picture, prompt, method, steps, guidance, seed, fit, model, progress, say)
        session.write_original(staging)
        session.write_inversion(staging)
        told = session.report()
        work.write_report(staging, told)
    _tell(told, out)


@app.command()
def reconstruct(
    inversion: Annotated[Path, typer.Argument(help="An inversion file.")],
    out: Out = Path("out"),
    model: Model = "embedded",
) -> None:
    """Make the picture again from an inversion file."""
    with _session(out) as (staging, progress, _):
        from iterinv import app as work

        session = _reopen(inversion, model, progress)
        session.write_original(staging)
        session.write_reconstruction(staging)
        told = session.report()
        work.write_report(staging, told)
    _tell(told, out)


@app.command()
def compare(
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    prompt: Prompt,
    out: Out = Path("out"),
    methods: Annotated[str, typer.Option(help="Names, with commas between them; all if not given.")] = "",
    steps: Steps = 20,
    guidance: Guidance = 1.0,
    seed: Seed = 0,
    fit: Fit = "pad",
    model: Model = "embedded",
) -> None:
    """Run many methods on one picture: what each costs and keeps."""
    rows: list[dict[str, Any]] = []
    with _session(out, picture) as (staging, progress, say):
        from iterinv import app as work
        from iterinv.evaluate import compare as comparison
        from iterinv.methods import METHODS

        prompt = work.check_prompt(prompt, "--prompt", say, vocabulary=model == "embedded")
        cascade = work.load(model)
        frame, _ = _frame(picture, cascade.size, fit, say)
        names = [name.strip() for name in methods.split(",") if name.strip()] or list(METHODS)
        for row in comparison.compare(cascade, frame, prompt, names, steps, guidance, seed, progress):
            rows.append(row)
            say(f"{row['method']}: {_kept(row)}, {row['seconds']:.1f} s")
        title = f"{picture.name}, {steps} steps, guidance {guidance:g}"
        told = {"picture": picture.name, "prompt": prompt, "steps": steps, "guidance": guidance, "seed": seed}
        told |= {"model": cascade.fingerprint, "versions": work.versions(), "methods": rows}
        (staging / "compare.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        comparison.plot(rows, staging / "compare.png", title)
    _tell_rows(rows, title, out)


@evaluation.command()
def samples(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of samples; what is there is not drawn again.")],
    sampler: Sampler = "ddim",
    gamma: Gamma = None,
    steps: Steps = 25,
    guidance: Guidance = 3.0,
    count: Annotated[int, typer.Option(min=2, help="Captions, one sample each.")] = 1000,
    seed: Seed = 0,
    size: Size = None,
    model: Model = "embedded",
) -> None:
    """Samples against their words, and against true pictures, as the reader sees them."""
    with _errors():
        from rich.console import Console
        from rich.progress import Progress

        from iterinv import app as work
        from iterinv import methods
        from iterinv.evaluate import samples as bench

        rule = methods.sampler(sampler, gamma)
        cascade = work.load(model)
        cascade = cascade if size is None else cascade.until(size)
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("samples", total=count)
            for done in bench.draw(cascade, out, count, rule, steps, guidance, seed):
                bar.update(task, completed=done)
        told = bench.told(out, count, out / "true")
        (out / "alignment.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    for name, value in told.items():
        typer.echo(f"{name:<16} {value}")


@evaluation.command()
def scenes(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of rows and pictures; what is there is not done again.")],
    editor: Annotated[str, typer.Option(help="diffedit (within a mask) or prompt-swap (everywhere).")] = "diffedit",
    strength: Annotated[
        float | None, typer.Option(help="Share of the levels run again; the editor's own if not given.")
    ] = None,
    edit_guidance: Annotated[float | None, typer.Option(help="Guidance of the edit; the editor's own if not given.")] = None,
    method: Method = "bdia",
    steps: Steps = 20,
    kinds: Annotated[str, typer.Option(help="Kinds of edit, with commas between them; all if not given.")] = "",
    count: Annotated[int, typer.Option(min=1, help="Scenes of each kind.")] = 200,
    size: Size = None,
    model: Model = "embedded",
) -> None:
    """SceneEdit: edits of rendered scenes, whose right answer exists."""
    how = _editor(editor, strength, edit_guidance)
    with _errors():
        from rich.console import Console
        from rich.progress import track

        from iterinv import app as work
        from iterinv.evaluate import scenes as bench

        names = [name.strip() for name in kinds.split(",") if name.strip()] or list(bench.KINDS)
        cascade = work.load(model)
        cascade = cascade if size is None else cascade.until(size)
        done = bench.evaluate(cascade, how, out, method, steps, names, count)
        for _ in track(done, "tasks", total=count * len(names), console=Console(stderr=True)):
            pass
        found = bench.rows(out)
        told = {"summary": bench.summary(found), "versions": work.versions()}
        (out / "summary.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        bench.sheets(out, found)
        _tell_summary(bench.summary(found), out)


@app.command()
def methods() -> None:
    """List the inversion methods."""
    with _errors():
        from iterinv.methods import METHODS

        for name, method in METHODS.items():
            typer.echo(f"{name:17} {method.about}")


@app.command()
def sample(
    prompt: Annotated[str, typer.Argument(help="What the picture should show.")],
    out: Out = Path("out"),
    count: Annotated[int, typer.Option("--num-images-per-prompt", "--count", min=1, help="Pictures to draw.")] = 1,
    steps: Steps = 20,
    guidance: Guidance = 3.0,
    sampler: Sampler = "ddim",
    gamma: Gamma = None,
    seed: Seed = 0,
    model: Model = "embedded",
) -> None:
    """Draw pictures from words alone."""
    with _session(out) as (staging, progress, say):
        from PIL import Image

        from iterinv import app as work
        from iterinv import methods
        from iterinv.images import to_uint8

        rule = methods.sampler(sampler, gamma)
        prompt = work.check_prompt(prompt, "the prompt", say, vocabulary=model == "embedded")
        cascade = work.load(model)
        *_, pictures = cascade.sample(prompt, steps, guidance, seed, count, rule, progress=progress)
        for k in range(count):
            Image.fromarray(to_uint8(pictures[k : k + 1])).save(staging / f"sample-{k}.png")
    typer.echo(f"{count} picture(s) of {cascade.size} px in {out}")


@app.command()
def train(
    part: Annotated[str, typer.Argument(help="text, I, II, III, pack, reader, or all of them in this order.")],
    out: Out = Path("runs/embedded"),
    minutes: Annotated[float | None, typer.Option(help="Time budget of this part; the recipe's if not given.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe other than the shipped one.")] = None,
    mixed_precision: Annotated[str, typer.Option(help="accelerate's: no, fp16 or bf16.")] = "no",
) -> None:
    """Train the embedded cascade. A part that was stopped goes on from its last checkpoint."""
    with _errors():
        from iterinv.train import PARTS, RECIPE
        from iterinv.train import train as run

        for each in PARTS if part == "all" else [part]:
            typer.echo(f"{each}: {run(each, out, minutes, recipe or RECIPE, mixed_precision)}")


@app.command()
def version() -> None:
    """Say the versions of this package and of what it computes with."""
    from iterinv.app import versions

    with _errors():
        for name, number in versions().items():
            typer.echo(f"{name} {number}")


@contextmanager
def _errors() -> Iterator[None]:
    """User errors become a sentence and exit code 2; anything else is a bug and shows its traceback."""
    try:
        yield
    except (ValueError, OSError, ArithmeticError) as error:
        typer.echo(f"iterinv: {error}", err=True)
        raise typer.Exit(2) from None
    except MemoryError:
        typer.echo("iterinv: there is not enough memory for this; take a smaller picture or fewer at once", err=True)
        raise typer.Exit(2) from None


@contextmanager
def _session(out: Path, picture: Path | None = None) -> Iterator[tuple[Path, Any, Any]]:
    """Staging folder, progress callback (one bar for each stage and direction), and a way to say things above the bars.

    Warnings are said the same way. Raises, as an error to the user, where what is made would replace the picture itself.
    """
    with _errors():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from iterinv.app import FILES, outputs

        if picture is not None and picture.name in FILES and picture.resolve() == (out / picture.name).resolve():
            raise ValueError(f"{picture} would be replaced by what is made of it: choose another --out")
        console = Console(stderr=True)
        columns = TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with outputs(out) as staging, Progress(*columns, console=console) as bars, warnings.catch_warnings():
            tasks: dict[str, Any] = {}

            def progress(stage: str, doing: str, done: int, total: int) -> None:
                name = f"stage {stage}: {doing}"
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=total)
                elif bars.tasks[tasks[name]].finished:  # the next of many: the bar begins again
                    bars.reset(tasks[name], total=total)
                bars.update(tasks[name], completed=done)

            def say(message: Warning | str, *_: Any, **__: Any) -> None:
                bars.console.print(f"note: {message}", markup=False, highlight=False)

            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = say
            yield staging, progress, say
            stale = sorted(name for name in FILES if (out / name).exists() and not (staging / name).exists())
            if stale:
                say(f"{out} also holds {', '.join(stale)} of an earlier run")


def _given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _editor(name: str, strength: float | None, guidance: float | None) -> Editor:
    with _errors():
        from iterinv.edits import EDITORS

        if name not in EDITORS:
            raise ValueError(f"there is no editor {name!r}: the editors are {', '.join(EDITORS)}")
        given = {"strength": strength, "guidance": guidance}
        return EDITORS[name](**{k: v for k, v in given.items() if v is not None})


def _invert(
    picture: Path, prompt: str, method: str, steps: int, guidance: float, seed: int, fit: str, model: str, progress: Any,
    say: Any,
) -> Session:  # fmt: skip
    from iterinv import app as work
    from iterinv import store
    from iterinv.inversion import Sweeps
    from iterinv.methods import plan
    from iterinv.roots import Anderson, Damped

    began = time.perf_counter()
    prompt = work.check_prompt(prompt, "--prompt", say, vocabulary=model == "embedded")
    how = plan(method, steps, guidance)
    cascade = work.load(model)
    frame, notes = _frame(picture, cascade.size, fit, say)
    inversion = cascade.invert(frame.square(), prompt, how, seed, progress)
    if isinstance(how.find, Anderson | Damped | Sweeps):
        for stage, found in zip(cascade.stages, inversion.stages, strict=True):
            error = found.report.root_error_max
            if error is not None and not error <= how.find.tolerance:
                say(f"stage {stage.name}: solved to {error:.0e}, not to {how.find.tolerance:.0e}; take more steps")
    return work.Session(cascade, store.Saved(inversion, frame), notes, began)


def _frame(picture: Path, size: int, fit: str, say: Any) -> tuple[Frame, list[str]]:
    from iterinv import images

    array, notes = images.read(picture)
    frame, more = images.Frame.fit(array, size, fit)
    for note in [*notes, *more]:
        say(f"{picture.name}: {note}")
    return frame, [*notes, *more]


def _reopen(path: Path, model: str, progress: Any) -> Session:
    from iterinv import app as work
    from iterinv import store

    began = time.perf_counter()
    cascade = work.load(model)
    inversion, frame = store.open_(path, cascade)
    return work.Session(cascade, store.Saved(cascade.rerun(inversion, progress), frame), [], began)


def _decibels(psnr: float | None) -> str:
    return "exact" if psnr is None else f"{psnr:.1f} dB"


def _kept(row: dict[str, Any]) -> str:
    """What a row of a comparison says of its stages."""
    kept = [_decibels(stage["reconstruction"]["psnr"]).removesuffix(" dB") for stage in row["stages"]]
    return (kept[0] if len(set(kept)) == 1 else " / ".join(kept)) if kept else "failed"


def _tell_rows(rows: list[dict[str, Any]], title: str, out: Path) -> None:
    with _errors():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for column in ("method", "dB, stage by stage", "pixels", "calls", "back", "s", "MB", "noise"):
            table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
        for row in rows:
            cells = [row["method"], _kept(row), "", "", "", f"{row['seconds']:.1f}", f"{row['peak_memory_mb']:.0f}", ""]
            if row["stages"]:
                calls = row["network_calls"]
                cells[2:5] = f"{row['exact_pixels']:.2%}", str(calls["forward"]), str(calls["backward"])
                cells[-1] = f"{row['terminal_noise']['std']:.2f}"
            table.add_row(*cells)
        console = Console(file=sys.stdout)
        console.print(table)
        for row in rows:
            if not row["stages"]:
                console.print(f"{row['method']}: {row['why']}", markup=False, highlight=False)
        console.print(
            "exact: every pixel equal; noise: the spread at stage I, 1 in a sampler's; "
            f"compare.json and compare.png in {out}", markup=False, highlight=False,
        )  # fmt: skip


def _tell_summary(summary: list[dict[str, Any]], out: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = {
        "success": "{:.1%}", "kept": "{:.1%}", "inside": "{:.1f}", "outside": "{:.1f}", "ssim": "{:.3f}",
        "features": "{:.2f}", "iou": "{:.2f}",
    }  # fmt: skip
    for column in ("kind", "tasks", *columns):
        table.add_column(column, justify="left" if column == "kind" else "right", no_wrap=True)
    for row in summary:
        cells = ["" if row[key] is None else form.format(row[key]) for key, form in columns.items()]
        table.add_row(row["kind"], str(row["tasks"]), *cells)
    console = Console(file=sys.stdout)
    console.print(table)
    console.print(f"rows.jsonl, summary.json, edited/ and three sheets in {out}", markup=False, highlight=False)


def _tell(told: dict[str, Any], out: Path) -> None:
    """The short report on the terminal."""
    with _errors():
        _print(told, out)


def _print(told: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{told['method']}, {told['steps']} steps", title_justify="left")
    for column in ("stage", "size", "network calls", "seconds", "reconstruction", "exact pixels", "noise std"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for s in told["stages"]:
        calls, fidelity = s["network_calls"], s["reconstruction"]
        table.add_row(
            s["stage"], str(s["size"]), f"{calls['forward']} + {calls['backward']} back", f"{s['seconds']:.1f}",
            _decibels(fidelity["psnr"]), f"{fidelity['exact_pixels']:.2%}", f"{s['terminal_noise']['std']:.2f}",
        )  # fmt: skip
    console = Console(file=sys.stdout)
    console.print(table)
    whole = told["reconstruction"]
    lines = [f"reconstruction: {_decibels(whole['psnr'])}, {whole['exact_pixels']:.2%} of pixels equal"]
    lines.append(told["why"])
    if "edit" in told:
        edited = told["edit"]
        lines.append(f"edit: {edited['editor']} to {edited['to']!r}")
        if edited.get("background_exact_pixels") is not None:
            lines.append(
                f"mask: {edited['mask']:.1%} of the picture; outside it {edited['background_exact_pixels']:.2%} of pixels equal"
            )
    lines.append(f"{told['seconds']:.1f} s, {told['peak_memory_mb']:.0f} MB at most; files in {out}")
    for line in lines:
        console.print(line, markup=False, highlight=False)

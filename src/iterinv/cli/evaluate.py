"""``iterinv evaluate``: editors and samples measured where the right answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from iterinv.cli.options import (
    EditGuidance,
    EditorName,
    Gamma,
    Guidance,
    Method,
    Model,
    Sampler,
    Seed,
    Size,
    Steps,
    Strength,
    editor_of,
    load,
    on_a_machine,
    share_of,
)
from iterinv.cli.session import errors
from iterinv.cli.tell import tell_summary

evaluation = typer.Typer(help="Measure editors and samples.", no_args_is_help=True)


@evaluation.command()
@on_a_machine
def samples(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of samples; what is there is not drawn again.")],
    sampler: Sampler = "ddim",
    gamma: Gamma = None,
    steps: Steps = 10,
    guidance: Guidance = 2.0,
    count: Annotated[int, typer.Option(min=2, help="Captions, one sample each.")] = 1000,
    seed: Seed = 0,
    size: Size = None,
    model: Model = "embedded",
) -> None:
    """Samples against their words, and against true pictures, as the reader sees them."""
    with errors():
        from rich.console import Console
        from rich.progress import Progress

        from iterinv import methods
        from iterinv.evaluate import samples as bench
        from iterinv.scenes.reader import SIZE as READ_SIZE

        rule = methods.sampler(sampler, gamma)
        cascade = load(model)
        cascade = cascade if size is None else cascade.until(size)
        if cascade.size < READ_SIZE:
            raise ValueError(f"samples are of {cascade.size} px; the reader sees {READ_SIZE} or more: choose a larger --size")
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("samples", total=count)
            for done in bench.draw(cascade, out, count, rule, steps, guidance, seed):
                bar.update(task, completed=done)
        told = bench.told(out, count, out / "true")
        (out / "alignment.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    others = {f"{of} {name}": value for of in ("true", "shuffled") for name, value in told.pop(of).items()}
    for name, value in {**told, **others}.items():
        typer.echo(f"{name:<18} {value}")


@evaluation.command()
@on_a_machine
def scenes(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of rows and pictures; what is there is not done again.")],
    editor: EditorName = "flowedit",
    strength: Strength = None,
    edit_guidance: EditGuidance = None,
    method: Method = "bdia",
    steps: Steps = 20,
    kinds: Annotated[str, typer.Option(help="Kinds of edit, with commas between them; all if not given.")] = "",
    count: Annotated[int, typer.Option(min=1, help="Scenes of each kind.")] = 200,
    share: Annotated[str, typer.Option(help="k/n: the k-th of n shares of the scenes, one for each process.")] = "1/1",
    size: Size = None,
    model: Model = "embedded",
) -> None:
    """SceneEdit: edits of rendered scenes, whose right answer exists."""
    with errors():
        from rich.console import Console
        from rich.progress import track

        from iterinv import app as work
        from iterinv.evaluate import scenes as bench

        how = editor_of(editor, strength, edit_guidance)
        names = [name.strip() for name in kinds.split(",") if name.strip()] or list(bench.KINDS)
        cascade = load(model)
        cascade = cascade if size is None else cascade.until(size)
        part = share_of(share)
        done = bench.evaluate(cascade, how, out, method, steps, names, count, part)
        for _ in track(done, "tasks", total=count * len(names) // part[1], console=Console(stderr=True)):
            pass
        found = bench.rows(out, names, count)
        if not found:
            raise ValueError(f"none of the first {count} scenes is in share {share}: ask for more scenes or fewer shares")
        told = {"summary": bench.summary(found), "versions": work.versions()}
        (out / "summary.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        bench.sheets(out, found)
        tell_summary(bench.summary(found), out)

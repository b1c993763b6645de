"""Commands of the embedded world: ``iterinv train``, and ``iterinv evaluate scenes`` and ``samples``, where the right
answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from iterinv.cli.evaluate import evaluation
from iterinv.cli.options import (
    EditGuidance,
    EditorName,
    Gamma,
    Guidance,
    Method,
    Out,
    Sampler,
    Seed,
    Size,
    Steps,
    Strength,
    share_of,
    with_model,
)
from iterinv.cli.session import answer, counted, errors, say
from iterinv.cli.tables import print_summary


@evaluation.command()
@with_model
def samples(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of samples; existing samples are not drawn again.")],
    sampler: Sampler = None,
    gamma: Gamma = None,
    num_inference_steps: Steps = 10,
    guidance_scale: Guidance = 2.0,
    count: Annotated[int, typer.Option(min=2, help="Captions, one sample each.")] = 1000,
    seed: Seed = 0,
    size: Size = None,
    model: Any = None,
) -> None:
    """Compare samples with their captions and with true pictures. The reader judges both."""
    with errors():
        from iterinv import methods
        from iterinv.embedded.evaluate import alignment as bench
        from iterinv.embedded.reader import SIZE as READ_SIZE
        from iterinv.evaluate.folder import write_json

        if sampler is not None:
            methods.sampler(sampler, gamma)
        cascade = model.load()
        rule = methods.sampler(sampler or cascade.defaults.sampler, gamma)
        cascade = cascade if size is None else cascade.up_to(size)
        if cascade.size < READ_SIZE:
            raise ValueError(
                f"samples are of {cascade.size} px; the reader sees {READ_SIZE} or more: choose a larger --size"
            )
        drawn = bench.draw(cascade, out, count, rule, num_inference_steps, guidance_scale, seed)
        counted(drawn, "samples", count, lambda _, done: int(done))
        report = bench.report(out, count, out / "true")
        write_json(out / "alignment.json", report)
    others = {f"{of} {name}": value for of in ("true", "shuffled") for name, value in report[of].items()}
    alone = {name: value for name, value in report.items() if name not in ("true", "shuffled")}
    for name, value in {**alone, **others}.items():
        say(f"{name:<18} {value}")
    answer({**report, "out": str(out)})


@evaluation.command()
@with_model
def scenes(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of rows and pictures; existing rows are not done again.")
    ],
    editor: EditorName = None,
    strength: Strength = None,
    edit_guidance: EditGuidance = None,
    method: Method = "bdia",
    num_inference_steps: Steps = 20,
    kinds: Annotated[str, typer.Option(help="Kinds of edit, separated by commas; all if not given.")] = "",
    count: Annotated[int, typer.Option(min=1, help="Scenes of each kind.")] = 200,
    share: Annotated[str, typer.Option(help="k/n: the k-th of n shares of the scenes, one for each process.")] = "1/1",
    size: Size = None,
    model: Any = None,
) -> None:
    """Run SceneEdit on rendered scenes, whose right answer is known."""
    with errors():
        from iterinv import methods
        from iterinv.embedded.evaluate import scene_edit as bench
        from iterinv.embedded.evaluate.tasks import KINDS, scene_edit
        from iterinv.evaluate.folder import write_json
        from iterinv.manifest import versions
        from iterinv.workbench import editor_of

        names = [name.strip() for name in kinds.split(",") if name.strip()] or list(KINDS)
        part = share_of(share)
        for kind in names:
            scene_edit(0, kind)
        methods.plan(method, num_inference_steps)
        if editor is not None:
            editor_of(editor, strength, edit_guidance)
        cascade = model.load()
        cascade = cascade if size is None else cascade.up_to(size)
        how = editor_of(editor or cascade.defaults.editor, strength, edit_guidance)
        done = bench.evaluate(cascade, how, out, method, num_inference_steps, names, count, part)
        counted(done, "tasks", len(names) * len(range(part[0] - 1, count, part[1])))
        rows = bench.rows(out, names, count)
        if not rows:
            raise ValueError(
                f"none of the first {count} scenes is in share {share}: ask for more scenes or fewer shares"
            )
        summary = bench.summary(rows)
        report = {"summary": summary, "versions": versions()}
        write_json(out / "summary.json", report)
        bench.sheets(out, rows)
        print_summary(summary, out)
        answer({**report, "out": str(out)})


def train(
    part: Annotated[
        str, typer.Argument(help="text, I, II, III, pack, reader, inspector, or all of them in this order.")
    ],
    out: Out = Path("runs/embedded"),
    minutes: Annotated[float | None, typer.Option(help="Time budget of this part; the recipe's if not given.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe other than the shipped one.")] = None,
    mixed_precision: Annotated[str, typer.Option(help="accelerate's: no, fp16 or bf16.")] = "no",
    weights: Annotated[
        Path | None,
        typer.Option(help="A packed cascade to go on from: its text encoder, each stage's last phase; a judge's file."),
    ] = None,
) -> None:
    """Train the embedded cascade. A part that was stopped goes on from its last checkpoint."""
    with errors():
        from iterinv.embedded.train import PARTS, RECIPE
        from iterinv.embedded.train import train as run

        parts = {}
        for each in PARTS if part == "all" else [part]:
            parts[each] = run(each, out, minutes, recipe or RECIPE, mixed_precision, weights)
            say(f"{each}: {parts[each]}")
        answer({"parts": parts})


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(train)

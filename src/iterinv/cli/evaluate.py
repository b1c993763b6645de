"""``iterinv evaluate`` measures methods and editors on a dataset; ``iterinv report`` compares two such runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from iterinv.cli.names import completing
from iterinv.cli.options import (
    App,
    Budget,
    Count,
    DryRun,
    Engine,
    Fit,
    MetricWeights,
    Processes,
    Rows,
    Seconds,
    Seed,
    Shown,
    Size,
    StageGuidance,
    Steps,
    Threads,
    guidance_of,
    with_model,
)
from iterinv.cli.session import answer, console, errors, progress
from iterinv.cli.tables import print_table
from iterinv.evaluate.remote import is_address, local_copy, working_folder
from iterinv.files import printable

if TYPE_CHECKING:
    from iterinv.evaluate.summary import Group
    from iterinv.evaluate.worker import Evaluation
    from iterinv.requests import Model


class _Group(TyperGroup):
    """A group whose command ``run`` is meant where options stand in the place of a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


evaluation = App(help="Measure methods, editors and samples.", no_args_is_help=True, cls=_Group)


@evaluation.command()
@with_model
def run(
    data: Annotated[
        str,
        typer.Option(
            help="scenes, scene-edit; a folder: PIE-Bench, ImageInversion, prompts.csv, .jsonl, .txt; huggingface:NAME."
        ),
    ],
    out: Rows,
    methods: Annotated[
        str,
        typer.Option(
            autocompletion=completing("METHODS", ",:"),
            help="Inversion methods, with commas between them. One for each stage: null-text:bdia:bdia.",
        ),
    ] = "bdia",
    editors: Annotated[
        str,
        typer.Option(
            autocompletion=completing("EDITORS", ","), help="Editors, with commas between them; none if not given."
        ),
    ] = "",
    metrics: Annotated[
        str, typer.Option(autocompletion=completing("METRICS", ","), help="Metrics, with commas between them.")
    ] = "psnr,ssim,mse",
    weights: MetricWeights = None,
    num_inference_steps: Steps = 20,
    budget: Budget = None,
    seconds: Seconds = None,
    guidance_scale: StageGuidance = "1",
    seed: Seed = 0,
    fit: Fit = "pad",
    size: Size = None,
    count: Count = None,
    give_mask: Annotated[
        bool, typer.Option("--give-mask", help="Give editors the dataset's region, in place of their own.")
    ] = False,
    processes: Processes = 1,
    engine: Engine = "local",
    threads: Threads = None,
    pictures: Shown = 12,
    dry_run: DryRun = False,
    model: Any = None,
) -> None:
    """Measure methods and editors on a dataset; `run` may be left out."""
    with errors():
        from iterinv.evaluate.worker import Evaluation

        if seconds is not None and budget is not None:
            raise ValueError("--seconds sets the budget of calls: give it or --budget")
        scales = guidance_of(guidance_scale)
        request = Evaluation(
            data,
            model.load,
            names_of(methods),
            names_of(editors),
            names_of(metrics),
            num_inference_steps,
            scales if len(scales) > 1 else scales[0],
            seed,
            fit,
            size,
            count,
            give_mask,
            threads,
            tuple((f"load_{name}", str(value)) for name, value in vars(model).items()),
            budget=budget,
            seconds=seconds,
            weights=weights,
        )
        if dry_run:
            rehearse(in_seconds(request, model), model)
            return
        with working_folder(out) as (folder, after_row):
            request = in_seconds(request, model, folder)
            every = run_evaluation(request, folder, processes, pictures, engine, after_row)
    _print_groups(every, out)
    answer(answer_of(every, out))


def in_seconds(request: Evaluation, model: Model, folder: Path | None = None) -> Evaluation:
    """The evaluation with the budget of calls that its seconds give: that of the run in a folder, which is to go on, or
    else by the speed of the networks now."""
    from iterinv.estimates import calls_in
    from iterinv.evaluate.run import budget_there

    if request.seconds is None:
        return request
    there = None if folder is None else budget_there(folder, request.seconds)
    return replace(request, budget=there or calls_in(request.seconds, model, request.size))


def rehearse(request: Evaluation, model: Model) -> None:
    """Print the network calls and the time of an evaluation, and write nothing."""
    from iterinv.cli.rehearse import print_estimate
    from iterinv.estimates import estimate_evaluation

    print_estimate(estimate_evaluation(request, model))


def answer_of(every: list[Group], out: str) -> dict[str, Any]:
    """The answer of an evaluation: its groups, the number of rows that failed, and its folder."""
    failed = sum(group.failed for group in every if not group.kind)
    return {"groups": [asdict(group) for group in every], "failed": failed, "out": out}


def run_evaluation(
    request: Evaluation, folder: Path, processes: int, pictures: int, engine: str, after_row: Callable[[], None]
) -> list[Group]:
    """Do the rows that a folder lacks, with progress, and write its report. Returns the groups of its rows."""
    from iterinv.evaluate.report import write
    from iterinv.evaluate.run import evaluate

    with progress() as draw:
        for done, total, left, _ in evaluate(request, folder, processes, pictures, engine):
            draw.step("rows", done, total, "" if left is None else _left(left))
            after_row()
    return write(folder)


def report(
    first: Annotated[str, typer.Argument(help="The folder of an evaluation.")],
    second: Annotated[str, typer.Argument(help="The folder of another.")],
    of_first: Annotated[
        str, typer.Option("--first", help="METHOD or METHOD/EDITOR of the first; else those of the same names.")
    ] = "",
    of_second: Annotated[str, typer.Option("--second", help="METHOD or METHOD/EDITOR of the second.")] = "",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the bootstrap.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for paired.md and paired.json.")] = None,
) -> None:
    """Compare two evaluations task by task. The differences have bootstrap intervals."""
    with errors():
        from iterinv.evaluate import paired
        from iterinv.evaluate.report import write_paired

        one, other = (local_copy(each) if is_address(each) else Path(each) for each in (first, second))
        results = paired.paired(one, other, of_first, of_second, seed)
        if out is not None:
            write_paired(out, one, other, results)
        print_table(paired.COLUMNS, paired.cells(results), text=(0, 1, 7))
        console().print(printable(paired.LEGEND.replace("*", "")))
        answer({"first": str(first), "second": str(second), "differences": [each._asdict() for each in results]})


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(evaluation, name="evaluate")
    app.command()(report)


def names_of(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _left(seconds: float) -> str:
    """The time left, in words."""
    if seconds < 100:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 6000 else f"{seconds / 3600:.1f} h left"


@errors()
def _print_groups(every: list[Group], out: str) -> None:
    from iterinv.evaluate.summary import tables

    for title, head, cells in tables([group for group in every if not group.kind], errors=False):
        print_table([title, *head[1:]], cells)
    print_end(every, out, "results.jsonl, report.html, report.md and manifest.json")


def print_end(every: list[Group], out: str, files: str) -> None:
    """Print the failures of groups, and the files of a folder."""
    screen = console()
    for group in every:
        if group.failed and not group.kind:
            screen.print(printable(f"{group.name}: {group.failed} failed, the first: {group.error}"))
    screen.print(printable(f"{files} in {out}"))

"""``iterinv table1`` measures the rows of Table I of IterInv on any cascade and dataset."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from iterinv.cli.evaluate import answer_of, names_of, print_end, rehearse, run_evaluation
from iterinv.cli.names import completing
from iterinv.cli.options import (
    Count,
    DryRun,
    Engine,
    Fit,
    MetricWeights,
    Processes,
    Rows,
    Seed,
    Shown,
    Size,
    Steps,
    Threads,
    guidance_of,
    with_model,
)
from iterinv.cli.session import answer, console, errors
from iterinv.cli.tables import print_table
from iterinv.evaluate.remote import working_folder
from iterinv.files import printable


@with_model
def table1(
    out: Rows,
    data: Annotated[str, typer.Option(help="A dataset, as `iterinv evaluate` takes it.")] = "scenes",
    num_inference_steps: Steps = 20,
    guidance_scales: Annotated[str, typer.Option(help="Guidance scales of IterInv's rows, with commas.")] = "1,3,5,7",
    autoencoder: Annotated[
        list[str] | None,
        typer.Option(help="A row for an AutoencoderKL: a folder, a name on the hub, or own, the last stage's; again."),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            autocompletion=completing("METHODS", ","), help="Methods beside the paper's, with commas between them."
        ),
    ] = "bdia,aligned,iterinv-anderson",
    metrics: Annotated[
        str, typer.Option(help="Metrics, with commas between them; the paper's, as far as they run here, if not given.")
    ] = "",
    weights: MetricWeights = None,
    seed: Seed = 0,
    fit: Fit = "pad",
    size: Size = None,
    count: Count = None,
    processes: Processes = 1,
    engine: Engine = "local",
    threads: Threads = None,
    pictures: Shown = 12,
    dry_run: DryRun = False,
    model: Any = None,
) -> None:
    """Measure the rows of IterInv's Table I. They are DDIM as published and correctly, IterInv, and exact methods."""
    with errors():
        from iterinv.evaluate import table1 as rows
        from iterinv.evaluate.worker import Evaluation
        from iterinv.files import whole

        own, left_out = rows.published_metrics(weights)
        chosen = names_of(metrics)
        recipes = rows.recipes(
            rows.stage_count(model.name, model.load, size),
            num_inference_steps,
            guidance_of(guidance_scales),
            autoencoder or (),
            names_of(methods),
        )
        request = Evaluation(
            data,
            model.load,
            tuple(name for name, _ in recipes),
            metrics=chosen or own,
            steps=num_inference_steps,
            seed=seed,
            fit=fit,
            size=size,
            count=count,
            threads=threads,
            about=tuple((f"load_{name}", str(value)) for name, value in vars(model).items()),
            recipes=recipes,
            weights=weights,
        )
        if dry_run:
            rehearse(request, model)
            return
        with working_folder(out) as (folder, after_row):
            every = run_evaluation(request, folder, processes, pictures, engine, after_row)
            with whole(folder / "table1.md") as file:
                file.write(rows.markdown(folder).encode(errors="backslashreplace"))
            print_table(*rows.columns(folder))
        for reason in () if chosen else left_out.values():
            console().print(printable(f"left out: {reason}"))
        print_end(every, out, "table1.md, results.jsonl, report.html, report.md and manifest.json")
        answer({**answer_of(every, out), "left_out": list(() if chosen else left_out.values())})

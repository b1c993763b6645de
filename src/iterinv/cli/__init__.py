"""The command line: each command turns its options into a request of :mod:`iterinv.workbench` and prints the result."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from iterinv.cells import decibels_by_stage
from iterinv.cli.info import info
from iterinv.cli.measure import measure
from iterinv.cli.names import completing
from iterinv.cli.options import (
    App,
    Device,
    DryRun,
    EditedInversion,
    EditedPicture,
    EditedPrompt,
    EditGuidance,
    EditorName,
    EditSeed,
    Fit,
    Force,
    Gamma,
    Guidance,
    Height,
    Method,
    Model,
    Out,
    Prompt,
    Sampler,
    Seed,
    StageGuidance,
    StageMethods,
    Steps,
    Strength,
    To,
    Trajectory,
    Width,
    finite,
    with_model,
)
from iterinv.cli.presets import presets
from iterinv.cli.session import answer, errors, say, session
from iterinv.cli.table1 import table1
from iterinv.cli.tables import print_comparison, print_costs, print_entry, print_report, print_table

app = App(
    help="Turn a picture back into the noise and the path that reproduce it, and edit it with words.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

KEPT = "inversion.safetensors"
"""The file that a command which reads it leaves as it is, in its own folder too."""


@app.command()
@with_model
def edit(
    context: typer.Context,
    to: To,
    picture: EditedPicture = None,
    prompt: EditedPrompt = None,
    inversion: EditedInversion = None,
    out: Out = Path("out"),
    editor: EditorName = None,
    strength: Strength = None,
    edit_guidance: EditGuidance = None,
    edit_seed: EditSeed = None,
    method: StageMethods = "bdia",
    num_inference_steps: Steps = 20,
    guidance_scale: StageGuidance = "1",
    seed: Seed = 0,
    fit: Fit = "pad",
    keep_inversion: Annotated[
        bool,
        typer.Option("--keep-inversion", help="Invert every level, reconstruct, and write the inversion and both."),
    ] = False,
    keep_path: Annotated[
        bool,
        typer.Option("--keep-path", help="Keep the states of the edit beside the --inversion file, for the next one."),
    ] = False,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="A picture, white where the edit may act; else the editor decides.")
    ] = None,
    box: Annotated[
        str | None, typer.Option("--box", help="The edit may act in this box: left,top,width,height in pixels.")
    ] = None,
    polygon: Annotated[
        str | None, typer.Option("--polygon", help="The edit may act in this polygon: 'x,y x,y x,y …' in pixels.")
    ] = None,
    invert_mask: Annotated[bool, typer.Option("--invert-mask", help="The edit may act outside the mask.")] = False,
    grow: Annotated[int, typer.Option(help="Grow the mask by so many pixels; shrink it, if negative.")] = 0,
    force: Force = False,
    feather: Annotated[int, typer.Option(min=0, help="Width in pixels of a soft seam inside the mask.")] = 0,
    size: Annotated[
        str | None, typer.Option("--size", help="Size of the edited picture: own, as the file's, or that of the model.")
    ] = None,
    original: Annotated[
        Path | None, typer.Option("--original", help="The picture's file, to edit an --inversion at its own size.")
    ] = None,
    dry_run: DryRun = False,
    model: Any = None,
) -> None:
    """Edit a picture by other words. Each stage is inverted as deep as the editor needs."""
    with errors():
        from iterinv.cli.options import numbers_of
        from iterinv.files import same_file
        from iterinv.masks import GivenMask
        from iterinv.workbench import EditRequest

        source = _source(context, model)
        # The file that is edited stays, where it lies in the output folder.
        write = keep_inversion and not (inversion is not None and same_file(out / KEPT, [inversion]))
        region: GivenMask | None = None
        if mask or box or polygon or invert_mask or grow or feather:
            sides = numbers_of("--box", box, 4) if box else None
            corners = tuple(numbers_of("--polygon", each, 2) for each in polygon.split()) if polygon else None
            region = GivenMask(mask, sides, corners, invert_mask, grow, feather)  # type: ignore[arg-type]
        how = keep_inversion, region, force, keep_path, size, original, edit_seed
        request = EditRequest(source, tuple(to), editor, strength, edit_guidance, *how)
    if dry_run:
        _rehearse(request)
        return
    with session(out, picture, inversion, mask, original, model.name, spared=KEPT) as (staging, bench):
        report = bench.edit(request).write(staging, inversion=write)
    print_report(report, out)
    answer({**report, "out": str(out)})


@app.command()
@with_model
def sweep(
    context: typer.Context,
    to: To,
    picture: EditedPicture = None,
    prompt: EditedPrompt = None,
    inversion: EditedInversion = None,
    out: Out = Path("out"),
    editor: EditorName = None,
    strength: Annotated[str | None, typer.Option(help="Shares of the levels run again, as 0.4,0.6,0.8.")] = None,
    edit_guidance: Annotated[str | None, typer.Option(help="Guidance scales of the edit, as 1,2,4.")] = None,
    edit_seed: Annotated[str | None, typer.Option(help="Seeds of the noise that the editor draws, as 0,1,2.")] = None,
    mask: Annotated[
        list[Path] | None, typer.Option("--mask", help="A region, as a picture; again for another.")
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option("--box", help="A region: left,top,width,height; again for another.")
    ] = None,
    own_region: Annotated[
        bool, typer.Option("--own-region", help="Take the editor's own region too, beside a mask or box.")
    ] = False,
    method: StageMethods = "bdia",
    num_inference_steps: Steps = 20,
    guidance_scale: StageGuidance = "1",
    seed: Seed = 0,
    fit: Fit = "pad",
    force: Force = False,
    dry_run: DryRun = False,
    model: Any = None,
) -> None:
    """Edit one inversion by many settings, on a contact sheet.

    Every strength, guidance, seed, region and prompt is combined with every other.
    """
    with errors():
        from iterinv.cli.sweep import requests_of, write
        from iterinv.workbench import EditRequest

        base = EditRequest(_source(context, model), tuple(to), editor, force=force, size="model")
        requests = requests_of(base, strength, edit_guidance, edit_seed, mask or [], box or [], own_region)
    if dry_run:
        _rehearse(requests)
        return
    with session(out, picture, inversion, *(mask or ()), model.name) as (staging, bench):
        cells = write(requests, bench.edit_each(requests), staging, out)
    for k, cell in enumerate(cells, 1):
        say(f"{k}  {cell['command']}")
    say(f"{len(cells)} edits; sweep.png and sweep.json in {out}")
    answer({"cells": cells, "out": str(out)})


@app.command()
@with_model
def invert(
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    prompt: Prompt,
    out: Out = Path("out"),
    method: StageMethods = "bdia",
    num_inference_steps: Steps = 20,
    guidance_scale: StageGuidance = "1",
    seed: Seed = 0,
    fit: Fit = "pad",
    trajectory: Trajectory = False,
    dry_run: DryRun = False,
    model: Any = None,
) -> None:
    """Invert a picture and save the inversion as a file."""
    with errors():
        from iterinv.cli.options import by_stage
        from iterinv.workbench import InvertRequest

        how = by_stage(method, guidance_scale)
        request = InvertRequest(picture, prompt, how[0], num_inference_steps, how[1], seed, fit, model)
    if dry_run:
        _rehearse(request)
        return
    with session(out, picture, model.name) as (staging, bench):
        report = bench.invert(request).write(staging, reconstruction=False, trajectory=trajectory)
    print_report(report, out)
    answer({**report, "out": str(out)})


@app.command()
@with_model
def reconstruct(
    inversion: Annotated[Path, typer.Argument(help="An inversion file.")], out: Out = Path("out"), model: Any = None
) -> None:
    """Reconstruct the picture from an inversion file."""
    with session(out, inversion, model.name, spared=KEPT) as (staging, bench):
        from iterinv.workbench import ReopenRequest

        report = bench.reopen(ReopenRequest(inversion, model)).write(staging, inversion=False)
    print_report(report, out)
    answer({**report, "out": str(out)})


@app.command()
@with_model
def compare(
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    prompt: Prompt,
    out: Out = Path("out"),
    methods: Annotated[
        str,
        typer.Option(
            autocompletion=completing("METHODS", ","), help="Names, separated by commas; all that can run if not given."
        ),
    ] = "",
    num_inference_steps: Steps = 20,
    guidance_scale: Guidance = 1.0,
    seed: Seed = 0,
    fit: Fit = "pad",
    dry_run: DryRun = False,
    model: Any = None,
) -> None:
    """Run many methods on one picture; compare cost and fidelity."""
    rows: list[dict[str, Any]] = []
    with errors():
        from iterinv.workbench import CompareRequest, InvertRequest, comparison_settings

        names = tuple(name.strip() for name in methods.split(",") if name.strip())
        source = InvertRequest(picture, prompt, "bdia", num_inference_steps, guidance_scale, seed, fit, model)
        request = CompareRequest(source, names)
    if dry_run:
        _rehearse(request)
        return
    with session(out, picture, model.name) as (staging, bench):
        from iterinv.evaluate.compare import plot
        from iterinv.evaluate.folder import write_json
        from iterinv.manifest import versions

        for row in bench.compare(request):
            rows.append(row)
            bench.on_note(f"{row['method']}: {decibels_by_stage(row)}, {row['seconds']:.1f} s")
        title = f"{picture.name}, {num_inference_steps} steps, guidance {guidance_scale:g}"
        report = {"picture": picture.name, "prompt": prompt.strip(), "steps": num_inference_steps}
        report |= {"guidance": guidance_scale, "seed": seed, "model": model.load().fingerprint}
        report |= {"versions": versions(), "methods": rows}
        write_json(staging / "compare.json", report)
        settings = comparison_settings(request, model.load(), rows)
        plot(rows, staging / "compare.png", title, settings)
    print_comparison(rows, title, out)
    answer({**report, "out": str(out)})


app.command()(measure)
app.command()(info)
app.command()(presets)
app.command()(table1)


@app.command()
def methods() -> None:
    """List the inversion methods."""
    with errors():
        from iterinv.methods import METHODS

        _list("method", {name: method.about for name, method in METHODS.items()})


@app.command()
def editors() -> None:
    """List the editors."""
    with errors():
        from iterinv.edits import EDITORS

        _list("editor", {name: _first_sentence(made) for name, made in EDITORS.items()})


@app.command()
def samplers() -> None:
    """List the solver steps that can sample pictures."""
    with errors():
        from iterinv.steps import RULES

        bases = {name: type(base).__name__ for name, rule in RULES.items() if (base := getattr(rule, "base", None))}
        on = {name: f", on {bases[name]}" if bases.get(name, "DDIM") != "DDIM" else "" for name in RULES}
        _list("sampler", {name: _first_sentence(type(rule)) + on[name] for name, rule in RULES.items()})


@app.command()
def cost(
    model: Annotated[
        str, typer.Argument(autocompletion=completing("PRESETS"), help="A preset or a folder on this disk.")
    ] = "deepfloyd",
    method: Method = "bdia",
    num_inference_steps: Steps = 20,
    guidance_scale: Guidance = 1.0,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16; by default float32 on a CPU, else float16.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Compute the cost of inverting a picture, without any weights."""
    with errors():
        from iterinv import costs, methods
        from iterinv.loading import precision
        from iterinv.models.memory import checked_device

        device = checked_device(device)
        numbers = precision(dtype or ("float32" if device == "cpu" else "float16"))
        stage_costs = costs.costs(model, methods.plan(method, num_inference_steps, guidance_scale), numbers)
        speed, peaks = costs.rate(device, numbers), {mode: costs.peak(stage_costs, mode) for mode in costs.MODES}
        print_costs(stage_costs, speed, peaks)
        stages = [{**asdict(each), "seconds": each.seconds(speed)} for each in stage_costs]
        answer({"stages": stages, "peak_memory": peaks, "flops_per_second": speed})


@app.command()
def doctor(model: Model = "embedded", device: Device = "cpu") -> None:
    """Check this machine and a model, and name what is missing."""
    every = []
    with errors():
        from iterinv.inspect.doctor import findings

        for finding in findings(model, device):
            mark = {True: "ok", False: "NO", None: "  "}[finding.well]
            print_entry(f"{mark}  {finding.about:20}", finding.said)
            every.append(finding._asdict())
    well = all(each["well"] is not False for each in every)
    answer({"well": well, "findings": every})
    if not well:
        raise typer.Exit(1)


@app.command()
@with_model
def sample(
    prompt: Annotated[str, typer.Argument(help="A description of the picture.")],
    out: Out = Path("out"),
    num_images_per_prompt: Annotated[
        int, typer.Option("--num-images-per-prompt", "--count", min=1, help="Pictures to draw.")
    ] = 1,
    num_inference_steps: Annotated[
        int | None,
        typer.Option(
            "--num-inference-steps", "--steps", "-n", min=2, help="Steps at every stage; the model's own if not given."
        ),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance-scale", "--guidance", callback=finite, help="The model's own if not given; 1 is none."
        ),
    ] = None,
    sampler: Sampler = None,
    gamma: Gamma = None,
    seed: Seed = 0,
    height: Height = None,
    width: Width = None,
    dry_run: DryRun = False,
    model: Any = None,
) -> None:
    """Draw pictures from a prompt alone."""
    with errors():
        from iterinv.images import save, sides
        from iterinv.workbench import SampleRequest, sample_settings

        how = num_inference_steps, guidance_scale, sampler, gamma, seed, height, width, model
        request = SampleRequest(prompt, num_images_per_prompt, *how)
    if dry_run:
        _rehearse(request)
        return
    with session(out, model.name) as (staging, bench):
        pictures = bench.sample(request)
        for k, picture in enumerate(pictures):
            save(picture, staging / f"sample-{k}.png", sample_settings(request, model.load(), k))
    size = sides(pictures[0].size[::-1])
    say(f"{len(pictures)} picture(s) of {size} px in {out}")
    answer({"pictures": [f"sample-{k}.png" for k in range(len(pictures))], "size": size, "out": str(out)})


@app.command()
def version() -> None:
    """Print the versions of this package and of its libraries."""
    with errors():
        from iterinv.manifest import versions

        numbers = versions()
        for name, number in numbers.items():
            say(f"{name} {number}")
        answer(numbers)


@errors()
def _rehearse(request: Any) -> None:
    """Print the estimate of a request."""
    from iterinv.cli.rehearse import print_estimate
    from iterinv.estimates import estimate

    print_estimate(estimate(request))


def _source(context: typer.Context, model: Any) -> Any:
    """The picture or the inversion that the options of a command name. Raises ``ValueError`` for both, and for
    neither."""
    from iterinv.cli.options import by_stage
    from iterinv.workbench import InvertRequest, ReopenRequest

    options = context.params
    picture, inversion, prompt = (options[name] for name in ("picture", "inversion", "prompt"))
    if (picture is None) == (inversion is None):
        raise ValueError("give a picture to edit, or an inversion with --inversion")
    own = ("method", "num_inference_steps", "guidance_scale", "seed", "fit")
    if inversion is not None:
        given = [name.replace("_", "-") for name in ("prompt", *own) if _given(context, name)]
        if given:
            raise ValueError(
                f"--{' --'.join(given)}: an inversion has its own; leave the option out, or give the picture"
            )
        return ReopenRequest(inversion, model)
    if prompt is None:
        raise ValueError("--prompt is missing: describe the picture")
    method, scale = by_stage(options["method"], options["guidance_scale"])
    return InvertRequest(
        picture, prompt, method, options["num_inference_steps"], scale, options["seed"], options["fit"], model
    )


def _list(what: str, named: dict[str, str]) -> None:
    """Print names and a line about each, and give them as the answer."""
    print_table((what, "about"), list(named.items()), text=(0, 1))
    answer({f"{what}s": named})


def _first_sentence(thing: Any) -> str:
    """The first sentence of a docstring, without its markup."""
    sentence = " ".join((thing.__doc__ or "").split()).partition(". ")[0].removesuffix(".")
    return re.sub(r":\w+:`(?:[\w.]*\.)?(\w+)`|`", r"\1", sentence)


def _given(context: typer.Context, name: str) -> bool:
    """Tell whether an option stands on the command line or in a file of settings."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")

"""The command line: thin. Each command reads its options, calls :mod:`iterinv.app`, and prints what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from iterinv.cli.options import (
    Device,
    EditGuidance,
    EditorName,
    Fit,
    Gamma,
    Guidance,
    Method,
    Model,
    Out,
    Prompt,
    Sampler,
    Seed,
    Steps,
    Strength,
    editor_of,
    load,
    on_a_machine,
)
from iterinv.cli.session import errors, frame_of, reopen, session
from iterinv.cli.session import invert as inverted
from iterinv.cli.tell import kept, tell, tell_costs, tell_rows

app = typer.Typer(
    help="Turn a picture back into the noise and the path that reproduce it, and edit it with words.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip


@app.command()
@on_a_machine
def edit(
    context: typer.Context,
    to: Annotated[str, typer.Option("--to", "-t", help="What it should show.")],
    picture: Annotated[Path | None, typer.Argument(help="A picture file.", show_default=False)] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What the picture shows.")] = None,
    inversion: Annotated[Path | None, typer.Option("--inversion", "-i", help="Edit this inversion, not a picture.")] = None,
    out: Out = Path("out"),
    editor: EditorName = "flowedit",
    strength: Strength = None,
    edit_guidance: EditGuidance = None,
    method: Method = "bdia",
    steps: Steps = 20,
    seed: Seed = 0,
    fit: Fit = "pad",
    model: Model = "embedded",
) -> None:
    """Invert a picture, reconstruct it, and run it again with other words."""
    with session(out, picture) as (staging, progress, say):
        from iterinv import app as work

        how = editor_of(editor, strength, edit_guidance)
        to = work.check_prompt(to, "--to")
        if (picture is None) == (inversion is None):
            raise ValueError("give a picture to edit, or an inversion with --inversion")
        if inversion is not None:
            given = [name for name in ("prompt", "method", "steps", "seed", "fit") if _given(context, name)]
            if given:
                raise ValueError(f"--{' --'.join(given)}: an inversion has its own; leave out, or give the picture instead")
            opened = reopen(inversion, model, progress)
        else:
            if prompt is None:
                raise ValueError("--prompt is missing: say what the picture shows")
            assert picture is not None
            opened = inverted(picture, prompt, method, steps, 1.0, seed, fit, model, progress, say)
        for advice in opened.cascade.defaults.prompt_advice(to, "--to"):
            say(advice)
        if to.lower() == opened.inversion.prompt.lower():
            say("--to says what the prompt says, so nothing is asked to change")
        edited = opened.cascade.edit(opened.inversion, to, how, progress)
        if edited.masks is not None and not edited.masks[0].any():
            say("the mask is empty: the model sees no difference between the two prompts in this picture, so nothing changed")
        opened.write_original(staging)
        opened.write_reconstruction(staging)
        opened.write_inversion(staging)
        opened.write_edit(staging, edited)
        told = {**opened.report(), "edit": work.edit_report(to, how, edited, opened.saved.frame)}
        work.write_report(staging, told)
    tell(told, out)


@app.command()
@on_a_machine
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
    with session(out, picture) as (staging, progress, say):
        from iterinv import app as work

        opened = inverted(picture, prompt, method, steps, guidance, seed, fit, model, progress, say)
        opened.write_original(staging)
        opened.write_inversion(staging)
        told = opened.report()
        work.write_report(staging, told)
    tell(told, out)


@app.command()
@on_a_machine
def reconstruct(
    inversion: Annotated[Path, typer.Argument(help="An inversion file.")],
    out: Out = Path("out"),
    model: Model = "embedded",
) -> None:
    """Make the picture again from an inversion file."""
    with session(out) as (staging, progress, _):
        from iterinv import app as work

        opened = reopen(inversion, model, progress)
        opened.write_original(staging)
        opened.write_reconstruction(staging)
        told = opened.report()
        work.write_report(staging, told)
    tell(told, out)


@app.command()
@on_a_machine
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
    with session(out, picture) as (staging, progress, say):
        from iterinv import app as work
        from iterinv.evaluate import compare as comparison
        from iterinv.methods import METHODS

        prompt = work.check_prompt(prompt, "--prompt")
        cascade = load(model)
        for advice in cascade.defaults.prompt_advice(prompt, "--prompt"):
            say(advice)
        frame, _ = frame_of(picture, cascade.size, fit, say)
        names = [name.strip() for name in methods.split(",") if name.strip()] or list(METHODS)
        for row in comparison.compare(cascade, frame, prompt, names, steps, guidance, seed, progress):
            rows.append(row)
            say(f"{row['method']}: {kept(row)}, {row['seconds']:.1f} s")
        title = f"{picture.name}, {steps} steps, guidance {guidance:g}"
        told = {"picture": picture.name, "prompt": prompt, "steps": steps, "guidance": guidance, "seed": seed}
        told |= {"model": cascade.fingerprint, "versions": work.versions(), "methods": rows}
        (staging / "compare.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        comparison.plot(rows, staging / "compare.png", title)
    tell_rows(rows, title, out)


@app.command()
def methods() -> None:
    """List the inversion methods."""
    with errors():
        from iterinv.methods import METHODS

        for name, method in METHODS.items():
            typer.echo(f"{name:17} {method.about}")


@app.command()
def plan(
    model: Annotated[str, typer.Argument(help="What --model takes, published or on this disk.")] = "deepfloyd",
    method: Method = "bdia",
    steps: Steps = 20,
    guidance: Guidance = 1.0,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16; if not given float32 on a CPU, else half.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Say what inverting a picture would cost, without loading any weights."""
    with errors():
        from iterinv import costs, methods
        from iterinv.app import precision

        numbers = precision(dtype or ("float32" if device == "cpu" else "float16"))
        found = costs.costs(model, methods.plan(method, steps, guidance), numbers)
        tell_costs(found, costs.rate(device, numbers), {mode: costs.peak(found, mode) for mode in costs.MODES})


@app.command()
def doctor(
    model: Model = "embedded",
    device: Device = "cpu",
) -> None:
    """Say whether it will work here, and what is missing."""
    well = True
    with errors():
        from iterinv.doctor import findings

        for found in findings(model, device):
            mark = {True: "ok", False: "NO", None: "  "}[found.well]
            typer.echo(f"{mark}  {found.about:20} {found.said}")
            well = well and found.well is not False
    if not well:
        raise typer.Exit(1)


@app.command()
@on_a_machine
def sample(
    prompt: Annotated[str, typer.Argument(help="What the picture should show.")],
    out: Out = Path("out"),
    count: Annotated[int, typer.Option("--num-images-per-prompt", "--count", min=1, help="Pictures to draw.")] = 1,
    steps: Annotated[
        int | None, typer.Option("--num-inference-steps", "--steps", "-n", min=2, help="A stage; the model's own if not given.")
    ] = None,
    guidance: Guidance = 2.0,
    sampler: Sampler = "ddim",
    gamma: Gamma = None,
    seed: Seed = 0,
    model: Model = "embedded",
) -> None:
    """Draw pictures from words alone."""
    with session(out) as (staging, progress, say):
        from PIL import Image

        from iterinv import app as work
        from iterinv import methods
        from iterinv.images import to_uint8

        rule = methods.sampler(sampler, gamma)
        prompt = work.check_prompt(prompt, "the prompt")
        cascade = load(model)
        for advice in cascade.defaults.prompt_advice(prompt, "the prompt"):
            say(advice)
        steps = steps or cascade.defaults.sampling_steps
        *_, pictures = cascade.sample(prompt, steps, guidance, seed, count, rule, progress=progress)
        for k in range(count):
            Image.fromarray(to_uint8(pictures[k : k + 1])).save(staging / f"sample-{k}.png")
    typer.echo(f"{count} picture(s) of {cascade.size} px in {out}")


@app.command()
def version() -> None:
    """Say the versions of this package and of what it computes with."""
    from iterinv.app import versions

    with errors():
        for name, number in versions().items():
            typer.echo(f"{name} {number}")


def _given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"

"""The command ``iterinv presets``: the cascades by name, and how to get their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from iterinv.cli.names import completing
from iterinv.cli.session import answer, errors, say
from iterinv.cli.tables import gigabytes, print_entry, print_table

if TYPE_CHECKING:
    from iterinv.presets import Preset


def presets(
    name: Annotated[
        str | None,
        typer.Argument(autocompletion=completing("PRESETS"), help="One of them, to see how to get its weights."),
    ] = None,
) -> None:
    """List the cascades by name, with sizes, licences and memory."""
    with errors():
        from iterinv.presets import presets as known

        every = known()
        if name is not None and name not in every:
            raise ValueError(f"there is no preset {name!r}: the presets are {', '.join(every)}")
        facts = {each: _facts(preset) for each, preset in every.items() if name in (None, each)}
        if name is None:
            rows = [_row(each, preset) for each, preset in every.items()]
            print_table(("name", "px", "weights", "memory", "here", "about"), rows, text=(0, 1, 5))
            say("weights: in half precision; memory: of the device, with all networks there and")
            say("with a layer at a time; `iterinv presets NAME` says how to get the weights")
        else:
            _print(name, every[name], facts[name])
        answer({"presets": facts})


def _row(name: str, preset: Preset) -> list[str]:
    memory = " / ".join(gigabytes(size).removesuffix(" GB") for size in preset.memory) + " GB" if preset.weights else ""
    about = f"{preset.title}; {preset.licence}"
    here = "no" if preset.missing else "yes"
    return [name, _pixels(preset), gigabytes(preset.weights) if preset.weights else "", memory, here, about]


def _pixels(preset: Preset) -> str:
    return " ".join(map(str, preset.pixels))


def _facts(preset: Preset) -> dict[str, Any]:
    return {
        "title": preset.title,
        "pixels": preset.pixels,
        "weights": preset.weights,
        "memory": {"resident": preset.memory[0], "layered": preset.memory[1]},
        "licence": preset.licence,
        "gated": any(getattr(source, "gated", False) for source in preset.sources),
        "sources": [str(getattr(source, "name", source)) for source in preset.sources],
        "missing": [str(getattr(source, "name", source)) for source in preset.missing],
        "get": _remedies(preset),
    }


def _remedies(preset: Preset) -> list[str]:
    """The commands that get the weights that are not on this disk."""
    if preset.extra and preset.missing:
        return [f"pip install 'iterinv[{preset.extra}]'"]
    return [getattr(source, "remedy", f"{source} is missing: install iterinv again") for source in preset.missing]


def _print(name: str, preset: Preset, facts: dict[str, Any]) -> None:
    print_entry(f"{'name':<9}", name)
    print_entry(f"{'about':<9}", preset.title)
    print_entry(f"{'px':<9}", _pixels(preset))
    print_entry(f"{'licence':<9}", preset.licence)
    if preset.weights:
        print_entry(f"{'weights':<9}", f"{gigabytes(preset.weights)} in half precision")
        whole, layered = map(gigabytes, preset.memory)
        print_entry(f"{'memory':<9}", f"{whole} with all networks on the device, {layered} with a layer at a time")
    print_entry(f"{'here':<9}", "no" if facts["missing"] else "yes")
    for remedy in facts["get"]:
        print_entry(f"{'get':<9}", remedy)

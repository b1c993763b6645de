"""The command ``iterinv info``: how a picture or an inversion file was made, and how to make it again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from iterinv.cells import decibels
from iterinv.cli.session import answer, errors, say
from iterinv.cli.tables import print_entry

NAMES = (
    *("picture", "inversion", "method", "steps", "guidance", "sampler", "gamma", "prompt", "prompts"),
    *("seed", "seeds", "number", "fit", "model", "weights"),
)
"""The settings that are printed, in this order."""

LONGEST = 2000
"""The most characters of a value that are printed."""


def info(file: Annotated[Path, typer.Argument(help="A PNG file or an inversion file that iterinv wrote.")]) -> None:
    """Say how a picture or an inversion file was made. The command that makes it again is printed too."""
    with errors():
        facts = facts_of_file(file)
        _print(facts)
        answer(facts)


def facts_of_file(file: Path) -> dict[str, Any]:
    """The facts that a file holds on how it was made, with ``file``, its name, and ``what`` it is.

    A command in a picture is given with every word quoted, and left out where it is none of ``iterinv``. Raises
    ``FileNotFoundError`` where there is no file, :class:`iterinv.provenance.NoSettings` and
    :class:`iterinv.store.BadInversion` for a file without such facts.
    """
    from iterinv.reading.png import SIGNATURE

    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    with open(file, "rb") as opened:
        picture = opened.read(len(SIGNATURE)) == SIGNATURE
    if picture:
        from iterinv.provenance import read_settings

        facts: dict[str, Any] = {**read_settings(file), "file": file.name}
        for each in (facts, *_dicts(facts.get("cells"))):
            each["commands"] = [command for text in _list(each.get("commands")) if (command := _safe(text))]
        return facts
    from iterinv.inversion import facts_of

    facts = {"file": file.name, "what": "an inversion", **facts_of(file)}
    return {**facts, "fidelity": _met(facts["stages"]), "commands": _commands(file.name, facts)}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in _list(value) if isinstance(each, dict)]


def _safe(command: Any) -> str:
    """A command of ``iterinv`` with every word quoted, so that a shell runs nothing else; empty for anything else."""
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        return ""
    return shlex.join(words) if words[:1] == ["iterinv"] else ""


def _met(stages: list[dict[str, Any]]) -> list[str]:
    """A sentence for each stage of an inversion file: its method, its cost, and how well the rerun met it."""
    said = []
    for k, stage in enumerate(stages, 1):
        calls, residual = stage["network_calls"], stage["residual_max"]
        met = "it was not run again" if residual is None else f"inverting and rerunning met to {residual:.0e}"
        kind = "an exact method" if stage["exact"] else "no exact method"
        said.append(f"stage {'I' * k}: {kind}, {calls['forward']} + {calls['backward']} network calls; {met}")
    return said


def _commands(name: str, facts: dict[str, Any]) -> list[str]:
    """The commands that make an inversion file again, of pictures whose names it does not hold."""
    from iterinv.commands import command_of
    from iterinv.requests import InvertRequest, ReopenRequest

    method, scale = (tuple(each) if isinstance(each, list) else each for each in (facts["method"], facts["guidance"]))
    lines = []
    for prompt, seed in zip(facts["prompts"], facts["seeds"], strict=True):
        steps = facts["steps"] if isinstance(facts["steps"], int) else max(facts["steps"])
        request = InvertRequest(Path("PICTURE"), prompt, method, steps, scale, seed, facts["fit"])
        lines.append(command_of(request))
    return [*lines, command_of(ReopenRequest(Path(name)))]


def _print(facts: dict[str, Any]) -> None:
    entries: list[tuple[str, Any]] = [("file", facts["file"]), ("what", facts.get("what", "a picture"))]
    entries += [(name, facts[name]) for name in NAMES if facts.get(name) is not None]
    versions = facts.get("versions")
    if isinstance(versions, dict):
        entries.append(("versions", ", ".join(f"{name} {number}" for name, number in versions.items())))
    entries += _edit(facts) + _fidelity(facts)
    for name, value in entries:
        print_entry(f"{name:<12}", _short(value))
    if commands := [each for of in (facts, *_dicts(facts.get("cells"))) for each in of.get("commands", [])]:
        say("to make it again:")
        for command in commands:
            say(f"  {command}")


def _edit(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """An entry for each setting of an edit, or a line for each of several."""
    edit = facts.get("edit")
    edits = [edit] if isinstance(edit, dict) else _dicts(facts.get("edits"))
    entries = []
    for each in edits:
        entries += [("edited to", str(each.get("to"))), ("editor", _edited_by(each))]
        if isinstance(share := each.get("mask"), float):
            same = each.get("background_exact_pixels")
            outside = f"; outside it {same:.2%} of pixels equal" if isinstance(same, float) else ""
            entries.append(("region", f"{share:.1%} of the picture{outside}"))
    return entries


def _edited_by(edit: dict[str, Any]) -> str:
    apart = ("to", "editor", "why", "mask", "background_exact_pixels", "own_size")
    settings = ", ".join(f"{name} {_short(value)}" for name, value in edit.items() if name not in apart)
    return f"{edit.get('editor')}, {settings}" if settings else str(edit.get("editor"))


def _fidelity(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Entries on how well the picture comes back, as far as the file says."""
    entries = []
    measured = facts.get("reconstruction")
    if isinstance(measured, dict) and isinstance(pixels := measured.get("exact_pixels"), (int, float)):
        psnr = measured.get("psnr")
        said = decibels(psnr if isinstance(psnr, (int, float)) else None)
        entries.append(("fidelity", f"reconstruction {said}, {pixels:.2%} of pixels equal"))
    entries += [("fidelity", _short(each)) for each in _list(facts.get("fidelity"))]
    for row in _dicts(facts.get("methods")):
        said = "exact" if row.get("exact_pixels") == 1 else f"{_short(row.get('psnr'))} dB"
        entries.append(("fidelity", f"{row.get('method')}: {said}"))
    return entries


def _short(value: Any) -> str:
    if isinstance(value, list):
        text = ", ".join(map(_short, value))
    else:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"

"""Reports in plain words."""

from collections.abc import Sequence
from typing import Any

from iterinv.reports import edit_sentences
from iterinv.workbench import Result


def report(inverted: Sequence[Result], edited: Sequence[Result]) -> str:
    """The report on the inversions of a batch, and on the edits of the same pictures if there are any."""
    parts = []
    for k, result in enumerate(inverted):
        lines = [f"Picture {k + 1}:"] if len(inverted) > 1 else []
        lines += _inversion(result.report())
        if edited:
            lines += _edit(edited[k])
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _inversion(facts: dict[str, Any]) -> list[str]:
    back = facts["reconstruction"]
    if all(stage["reconstruction"]["psnr"] is None for stage in facts["stages"]):
        lines = ["Every pixel comes back, at every stage."]
    else:
        exact = "Every pixel comes" if back["psnr"] is None else f"{back['exact_pixels']:.2%} of the pixels come"
        lines = [f"{exact} back. {facts['why']}"]
    for stage in facts["stages"]:
        calls, fidelity, noise = stage["network_calls"], stage["reconstruction"]["psnr"], stage["terminal_noise"]
        lines.append(
            f"Stage {stage['stage']} at {stage['width']} x {stage['height']} px: "
            f"{'exact' if fidelity is None else f'{fidelity:.1f} dB'}, {calls['forward']} network calls forward and "
            f"{calls['backward']} backward, noise with a spread of {noise['std']:.2f} (1 in a sampler's)."
        )
    return [*lines, *_notes(facts["notes"])]


def _edit(result: Result) -> list[str]:
    (edit,) = result.edit_reports
    editor = f"{edit['editor']} chose {edit['chose']}" if edit.get("chose") else edit["editor"]
    lines = [f"Edit to “{edit['to']}”: {editor}.", *edit_sentences(edit)]
    return [*lines, *_notes(result.notes)]


def _notes(notes: Sequence[str]) -> list[str]:
    return [f"Note: {each}." for each in dict.fromkeys(notes)]

"""Reports: an inversion and an edit as plain values, from the measurements of their runs. They call no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from iterinv import images, metrics
from iterinv.cascade import Cascade
from iterinv.edits.site import Edit, Editor
from iterinv.inspect.diagnosis import diagnose
from iterinv.inversion import Inversion, one_or_each
from iterinv.manifest import peak_memory_mb, versions


def inversion_report(
    cascade: Cascade, inversion: Inversion, seconds: float, notes: list[str], k: int = 0
) -> dict[str, Any]:
    """The report of the ``k``-th picture of an inversion, as ``report.json`` holds it (``docs/report.md``)."""
    inversion, cascade = inversion.row(k) if len(inversion) > 1 else inversion, cascade.at(*inversion.extent)
    (canvas,), plans = inversion.canvases, [stage_inversion.plan for stage_inversion in inversion.stages]
    stages: list[dict[str, Any]] = [
        {
            "stage": stage.name,
            "size": stage.size,
            "height": stage.extent[0],
            "width": stage.extent[1],
            "network_calls": {"forward": stage_inversion.report.forward, "backward": stage_inversion.report.backward},
            "seconds": round(stage_inversion.report.seconds, 3),
            "depth": stage_inversion.trajectory.depth,
        }
        for stage, stage_inversion in zip(cascade.stages, inversion.stages, strict=True)
    ]
    measured, why = _measured(cascade, inversion, canvas, stages) if inversion.whole else ({}, "")
    h, w = canvas.image.shape[:2]
    origin, rerun = (
        inversion.stages[0].origin,
        [stage_inversion.rerun for stage_inversion in inversion.stages if stage_inversion.rerun is not None],
    )
    here = cascade.stages[0].arithmetic(len(inversion))
    arithmetic: dict[str, Any] = {"made": asdict(rerun[0].made if rerun else origin.arithmetic if origin else here)}
    if rerun:
        arithmetic |= {"here": asdict(rerun[0].here), "same_pixels": all(each.pixels for each in rerun)}
        arithmetic["remedy"] = next((each.remedy for each in rerun if each.remedy), None)
    if measured:
        measured["why"] = f"{why} It was {inversion.rerun_note()}." if rerun and not arithmetic["same_pixels"] else why
    return {
        "method": one_or_each([plan.method for plan in plans]),
        "steps": one_or_each([plan.steps for plan in plans]),
        "guidance": one_or_each([plan.guidance for plan in plans]),
        "prompt": inversion.prompt,
        "seed": inversion.seeds[0],
        "stages": stages,
        **measured,
        "seconds": round(seconds, 3),
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "model": cascade.fingerprint,
        "arithmetic": arithmetic,
        "picture": {"height": h, "width": w},
        "notes": notes,
        "versions": versions(),
    }


def _measured(
    cascade: Cascade, inversion: Inversion, canvas: images.Canvas, stages: list[dict[str, Any]]
) -> tuple[dict[str, Any], str]:
    """Add the facts that only a whole inversion has to ``stages``; give the fidelity of all, and the diagnosis."""
    picture = canvas.covered()
    losses, why = diagnose(cascade.stages, inversion, picture)
    for entry, stage, stage_inversion, loss in zip(stages, cascade.stages, inversion.stages, losses, strict=True):
        expected = images.to_uint8(images.resize(picture, stage.extent))
        entry |= {
            "residual_max": stage_inversion.report.residual_max,
            "root_error_max": stage_inversion.report.root_error_max,
            "terminal_noise": metrics.terminal_noise(stage_inversion.noise / stage_inversion.grid[0].noise_scale),
            "reconstruction": metrics.fidelity(expected, images.to_uint8(stage_inversion.picture)),
            "loss": loss,
        }
    fidelity = metrics.fidelity(canvas.crop(canvas.image), canvas.crop(canvas.place(inversion.picture)))
    return {"reconstruction": fidelity}, why


def edit_report(editor: Editor, edit: Edit) -> dict[str, Any]:
    """The report of an edit of one picture: the settings used, the share of the picture in the mask, the background."""
    (canvas,) = edit.canvases
    report: dict[str, Any] = {"to": edit.prompts[0], "editor": type(editor).__name__, **edit.reports[0]}
    if edit.masks is not None:
        outside = ~(canvas.crop(canvas.place_mask(edit.masks[-1])) > 0)
        same = canvas.crop((canvas.place(edit.pictures[-1]) == canvas.image).all(-1))
        report["mask"] = float(1 - outside.mean())
        report["background_exact_pixels"] = float(same[outside].mean()) if outside.any() else None
    return report


def edit_sentences(edit: Mapping[str, Any]) -> list[str]:
    """Sentences on an edit of a report: its region, what lies outside it, and whether the network sees the target
    prompt, as far as the editor reports them."""
    said = []
    if edit.get("mask") is not None:
        said.append(f"The region is {edit['mask']:.1%} of the picture.")
    if edit.get("background_exact_pixels") is not None:
        said.append(f"{edit['background_exact_pixels']:.2%} of the pixels outside it equal the original's.")
    if edit.get("sees_target") is not None:
        sees = "sees" if edit["sees_target"] else "does not see"
        said.append(f"The network {sees} the target prompt in the result.")
    return said

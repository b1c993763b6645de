"""Why does a picture not come back? Every loss of an inversion measured apart, and the largest named."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from iterinv.cascade import Cascade, resize
from iterinv.guidance import CFG
from iterinv.inversion import Inversion, StageInversion, reconstructed, rerun_stage
from iterinv.models import Stage
from iterinv.roots import rms

EIGHT_BITS = 1 / 255
"""Half of an 8-bit step in [-1, 1]: what no loss may reach where pixels are to be equal."""


def losses(stage: Stage, found: StageInversion, x: Tensor) -> dict[str, float | None]:
    """What a stage loses of its picture ``x`` (batch, 3, size, size), each an rms in [-1, 1].

    ``round_trip`` is all of it. ``solver`` is what inverting and rerunning miss of each other where the words and the guidance
    are the same (``None`` for a rule that undoes itself: it loses by rounding alone); ``guidance`` what guidance adds to that
    where the inversion was made without (``None`` elsewhere); ``dtype`` the rounding that the state's precision and the rule's
    growth allow; ``codec`` what an autoencoder alone would lose (``None`` for pixels): it is kept beside the states and added
    to what they decode to.
    """
    assert found.picture is not None
    plan = found.plan
    growth = plan.inverter.growth(plan.rule, found.grid)
    whole = _rms(found.picture - x)
    solver, guidance = (None if plan.inverter.exact else whole), None
    if plan.refine is not None and plan.guidance != 1 and found.offsets is None:
        bare = replace(found, guidance=CFG())
        *_, again = rerun_stage(stage, bare, None)
        solver = _rms(reconstructed(stage, found, again) - x)
        guidance = max(whole - solver, 0.0)
    codec = None if found.lost is None else _rms(found.lost)
    rounding = torch.finfo(getattr(torch, plan.dtype)).eps * growth * _rms(found.noise)
    return {"round_trip": whole, "solver": solver, "guidance": guidance, "dtype": rounding, "codec": codec}


def diagnose(cascade: Cascade, inversion: Inversion, picture: Tensor) -> tuple[list[dict[str, float | None]], str]:
    """The losses of every stage, and one line that names the largest and what to do about it."""
    told = [
        losses(stage, found, resize(picture, stage.size).to(found.noise))
        for stage, found in zip(cascade.stages, inversion.stages, strict=True)
    ]
    largest = [
        float((found.picture.clamp(-1, 1) - resize(picture, stage.size).to(found.picture)).abs().max())
        for stage, found in zip(cascade.stages, inversion.stages, strict=True)
        if found.picture is not None
    ]
    if max(largest) < EIGHT_BITS:
        return told, "Every pixel comes back, at every stage."
    k = max(range(len(told)), key=lambda k: told[k]["round_trip"] or 0.0)
    plan, name = inversion.stages[k].plan, cascade.stages[k].name
    parts = {part: told[k][part] or 0.0 for part in ("solver", "guidance", "dtype")}
    better = "more steps" if plan.inverter.target_error else "iterinv-anderson, which is solved to a tolerance"
    worst = max(parts, key=lambda part: parts[part])
    if parts[worst] < 0.1 * (told[k]["round_trip"] or 0.0):
        worst = "unknown"
    words = {
        "solver": f"the solver: {plan.method} finds states that its rerun leaves"
        + (f", the more so under guidance {plan.guidance:g}" if plan.guidance != 1 and plan.refine is None else "")
        + f"; take bdia, which is exact, or {better}",
        "guidance": f"guidance {plan.guidance:g}, under which the rerun leaves the path inverted without it; take less, more "
        "iterations, or bdia",
        "dtype": f"rounding: the rule multiplies that of {plan.dtype}; take a gamma nearer to 1, fewer steps or float64",
        "unknown": "nothing that is measured: the network may not predict the same noise twice, by dropout, half precision "
        "or what else changes between two calls",
    }[worst]
    return told, f"Stage {name} loses most (rms {told[k]['round_trip']:.1e}), and to {words}."


def _rms(x: Tensor) -> float:
    return float(rms(x).max())

"""Diagnosis: it separates the losses of an inversion and names the largest. Nothing here calls a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iterinv.images import resize
from iterinv.inversion import Inversion
from iterinv.models import Stage
from iterinv.roots import rms
from iterinv.stage_inversion import StageInversion

EIGHT_BITS = 1 / 255
"""Half of an 8-bit step in [-1, 1]: below it pixels are equal."""


def losses(inversion: StageInversion, x: Tensor) -> dict[str, float | None]:
    """The losses of a stage's picture ``x`` (batch, 3, h, w), each an rms in [-1, 1].

    ``round_trip`` is all of it. ``solver`` is the part by which inverting and rerunning miss each other under the same
    prompt and guidance (``None`` for a rule that undoes itself, which loses by rounding alone); ``guidance`` is the
    part that guidance adds where the inversion was made without (``None`` elsewhere); ``dtype`` is the rounding that
    the state's precision and the rule's growth allow; ``codec`` is the loss of an autoencoder alone (``None`` for
    pixels), which is kept beside the states and added to what they decode to.
    """
    plan = inversion.plan
    whole, unguided = float(rms(inversion.picture - x).max()), inversion.report.unguided_rms
    solver, guidance = (None if plan.inverter.exact else whole), None
    if unguided is not None:
        solver, guidance = unguided, max(whole - unguided, 0.0)
    growth = plan.inverter.growth(plan.rule, inversion.grid)
    rounding = torch.finfo(getattr(torch, plan.dtype)).eps * growth * float(rms(inversion.noise).max())
    codec = None if inversion.lost is None else float(rms(inversion.lost).max())
    return {"round_trip": whole, "solver": solver, "guidance": guidance, "dtype": rounding, "codec": codec}


def diagnose(
    stages: Sequence[Stage], inversion: Inversion, picture: Tensor
) -> tuple[list[dict[str, float | None]], str]:
    """Return the losses of every stage, and one line that names the largest and a remedy."""
    pairs = list(zip(stages, inversion.stages, strict=True))
    by_stage = [
        losses(stage_inversion, resize(picture, stage.extent).to(stage_inversion.noise))
        for stage, stage_inversion in pairs
    ]
    largest = [
        float(
            (stage_inversion.picture.clamp(-1, 1) - resize(picture, stage.extent).to(stage_inversion.picture))
            .abs()
            .max()
        )
        for stage, stage_inversion in pairs
    ]
    if max(largest) < EIGHT_BITS:
        return by_stage, "Every pixel comes back, at every stage."
    k = max(range(len(by_stage)), key=lambda k: by_stage[k]["round_trip"] or 0.0)
    plan, name = inversion.stages[k].plan, stages[k].name
    parts = {part: by_stage[k][part] or 0.0 for part in ("solver", "guidance", "dtype")}
    better = "more steps" if plan.inverter.target_error else "iterinv-anderson, which is solved to a tolerance"
    worst = max(parts, key=lambda part: parts[part])
    if parts[worst] < 0.1 * (by_stage[k]["round_trip"] or 0.0):
        worst = "unknown"
    words = {
        "solver": f"the solver: the rerun of {plan.method} leaves the inverted states"
        + (f", the more so under guidance {plan.guidance:g}" if plan.guidance != 1 and plan.refine is None else "")
        + f"; take bdia, which is exact, or {better}",
        "guidance": f"guidance {plan.guidance:g}: the rerun leaves the path that was inverted without it; take "
        "less, more iterations, or bdia",
        "dtype": f"rounding: the rule multiplies that of {plan.dtype}; take a gamma nearer to 1, fewer steps or "
        "float64",
        "unknown": "no measured cause: the network may not predict the same noise twice, because of dropout, half "
        "precision or another change between two calls",
    }[worst]
    return by_stage, f"Stage {name} loses most (rms {by_stage[k]['round_trip']:.1e}), by {words}."

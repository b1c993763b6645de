"""Exactness and editability: the pair of BDIA that reproduces a picture exactly ruins it once the words change, and the
aligned rerun is exact and follows them."""

from __future__ import annotations

import math
import time

from torch import Tensor

from common import publish, recolourings, table
from iterinv.cascade import Cascade, load
from iterinv.edits import PromptSwap
from iterinv.embedded.scenes import COLORS, caption, object_mask, render
from iterinv.images import from_uint8, to_uint8
from iterinv.inverters import Align, Solve
from iterinv.metrics import psnr
from iterinv.plans import Plan
from iterinv.roots import FixedPoint
from iterinv.steps import BDIA, DDIM, Step

COUNT, STEPS = 50, 25
CASES: list[tuple[str, Plan, Step]] = [
    ("DDIM", Plan(DDIM(), Solve(FixedPoint(1)), steps=STEPS), DDIM()),
    ("aligned", Plan(DDIM(), Align(), steps=STEPS), DDIM()),
    *(("BDIA, gamma 1", Plan(BDIA(), steps=STEPS), rule) for rule in (BDIA(), DDIM())),
]


def decibels(a: Tensor, b: Tensor, where: Tensor) -> float:
    """PSNR of two pictures (1, 3, h, w) over the pixels where ``where`` (1, 1, h, w) is not 0."""
    value = psnr(to_uint8(a), to_uint8(b), where[0, 0].numpy() > 0)
    return math.inf if value is None else value


def measure(cascade: Cascade, plan: Plan, rule: Step, count: int = COUNT) -> tuple[int, float, float]:
    """Count the prompt swaps at stage I, of ``count``, that show the new colour, and take two mean PSNR: of the
    background, and of the thing against the truth."""
    stage = Cascade(cascade.stages[:1])
    changed, background, true = 0, 0.0, 0.0
    for source, target in recolourings(count):
        x = from_uint8(to_uint8(render(source, stage.size)[None]))
        inversion = stage.invert(x, caption(source), plan)
        edited = stage.edit(inversion, caption(target), PromptSwap(rule=rule)).pictures[0]
        thing = object_mask(source, stage.size)[None]
        answers = {c: decibels(edited, render(source.with_(color=c), stage.size)[None], thing) for c in COLORS}
        changed += max(answers, key=lambda c: answers[c]) == target.things[0].color
        background += decibels(edited, x, (thing == 0).float()) / count
        true += answers[target.things[0].color] / count
    return changed, background, true


def main() -> None:
    began, cascade, rows, editor = time.time(), load(), [], PromptSwap()
    for name, plan, rule in CASES:
        again = f"BDIA, gamma {rule.gamma:g}" if isinstance(rule, BDIA) else "DDIM"
        again = name if plan.inverter.reads_path else again
        changed, background, true = measure(cascade, plan, rule)
        rows.append([name, again, f"{changed} of {COUNT}", f"{background:.1f}", f"{true:.1f}"])
        print(*rows[-1], sep=" | ", flush=True)
    body = f"""
Stage I, {COUNT} held-out scenes, inverted at {STEPS} steps with the source caption, the last {editor.strength:.0%} run
again with another colour word at guidance {editor.guidance:g}, no mask. *Background*: outside the thing, against the
source.
*Truth*: within the thing, against the render of the recoloured scene.

{table(["inverted by", "run again by", "colour changed", "background, dB", "truth, dB"], rows)}
"""
    publish("editability", "Exactness and editability", body, began)


if __name__ == "__main__":
    main()

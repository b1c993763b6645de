"""Inversion methods by name: a rule, a way of inverting it, a refinement or none. Samplers by name: a rule alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from iterinv.inverters import Align, IndependentNoise, Inverter, Relax, Solve, Undo
from iterinv.plans import Plan, Refinement
from iterinv.refine import NegativePrompt, NullText, Offsets, Proximal
from iterinv.roots import Anderson, Average, Damped, FixedPoint, GradientDescent
from iterinv.steps import BDIA, BELM, DDIM, DDPM, DPMPP2M, DPMPP2S, EDICT, RULES, FixedPointBDIA, Heun, Rex, Step
from iterinv.typed import checked


class Method(NamedTuple):
    """The parts of a method, and a line about it."""

    about: str
    rule: Step
    inverter: Inverter = Undo()
    refine: Refinement | None = None


METHODS: dict[str, Method] = {
    "bdia": Method("exact, one call a step (BDIA, gamma 1)", BDIA()),
    "bdia-fixed": Method("exact to the last bit: BDIA in fixed-point arithmetic", FixedPointBDIA()),
    "bdia-heun": Method("exact, three calls a step: BDIA on Heun", BDIA(base=Heun())),
    "bdia-2s": Method("exact, three calls a step: BDIA on DPM-Solver++ 2S", BDIA(base=DPMPP2S())),
    "belm": Method("exact, one call a step (O-BELM)", BELM()),
    "edict": Method("exact, two calls a step (EDICT)", EDICT()),
    "rex": Method("exact, two calls a step (Rex on Euler)", Rex()),
    "rex-heun": Method("exact, four calls a step (Rex on Heun)", Rex(base=Heun())),
    "aligned": Method("exact, one call a step: DDIM, rerun where it was inverted (DirectEdit)", DDIM(), Align()),
    "aligned-fixed": Method("exact to the last bit: the aligned rerun in fixed-point arithmetic", DDIM(), Align(40)),
    "ddim": Method("DDIM inversion: one step towards the solution of the next four", DDIM(), Solve(FixedPoint(1))),
    "iterinv": Method("DDIM solved by gradient descent, as IterInv publishes it", DDIM(), Solve(GradientDescent())),
    "iterinv-damped": Method("DDIM solved by damped steps, to a tolerance", DDIM(), Solve(Damped())),
    "iterinv-anderson": Method("DDIM solved by Anderson acceleration, to a tolerance", DDIM(), Solve(Anderson())),
    "renoise": Method("DDIM by the mean of the last two of ten iterates (ReNoise)", DDIM(), Solve(Average())),
    "dpmpp-2m": Method("DPM-Solver++ 2M, solved in sweeps over its whole path", DPMPP2M(), Relax()),
    "null-text": Method(
        "DDIM inversion with a null embedding fitted to guidance", DDIM(), Solve(FixedPoint(1)), NullText()
    ),
    "negative-prompt": Method(
        "DDIM inversion with the prompt as null embedding", DDIM(), Solve(FixedPoint(1)), NegativePrompt()
    ),
    "proximal": Method(
        "negative-prompt, with edits by large differences only", DDIM(), Solve(FixedPoint(1)), Proximal()
    ),
    "direct": Method(
        "DDIM inversion that stores the error of each step (direct inversion)", DDIM(), Solve(FixedPoint(1)), Offsets()
    ),
    "edit-friendly": Method("independent noises, with DDPM's noise maps stored", DDPM(), IndependentNoise(), Offsets()),
}


def plan(method: str = "bdia", steps: int = 20, guidance: float = 1.0, dtype: str = "float64") -> Plan:
    """The plan of a method by name. Raises ``ValueError`` for another name, and for settings that cannot work."""
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}: the methods are {', '.join(METHODS)}")
    steps, guidance = checked(steps, int, "num_inference_steps"), checked(guidance, float, "guidance")
    _, rule, inverter, refine = METHODS[method]
    return Plan(rule, inverter, refine, steps, guidance, dtype=dtype, method=method)


def plans(
    method: str | Sequence[str], steps: int = 20, guidance: float | Sequence[float] = 1.0
) -> Plan | tuple[Plan, ...]:
    """The plan of a method by name for all stages; or one for each stage, where names or guidance scales are a list.

    Raises ``ValueError`` as :func:`plan` does, and for lists of two lengths.
    """
    several = [list(each) for each in (method, guidance) if isinstance(each, Sequence) and not isinstance(each, str)]
    if not several:
        return plan(method, steps, guidance)  # type: ignore[arg-type]
    count = len(several[0])
    if len(several[-1]) != count:
        raise ValueError(f"there are {count} methods and {len(several[-1])} guidance scales: give one for each stage")
    names = [method] * count if isinstance(method, str) else method
    scales = guidance if isinstance(guidance, Sequence) else [guidance] * count
    return tuple(plan(name, steps, scale) for name, scale in zip(names, scales, strict=True))


def sampler(name: str = "ddim", gamma: float | None = None) -> Step:
    """The rule that a sampler's name stands for, one of :data:`iterinv.steps.RULES`, with ``gamma`` where it is given.

    ``gamma`` in [0, 1] is how much of the bi-directional correction a sampler of BDIA's kind makes; at 0 it is its
    base. Raises ``ValueError`` for another name, a gamma outside, and for one where the rule has none.
    """
    if name not in RULES:
        raise ValueError(f"there is no sampler {name!r}: the samplers are {', '.join(RULES)}")
    rule: Any = RULES[name]
    if gamma is None:
        return rule
    gamma = checked(gamma, float, "gamma")
    if "gamma" not in {each.name for each in fields(rule)}:
        ways = [other for other, each in RULES.items() if "gamma" in {one.name for one in fields(each)}]  # type: ignore[arg-type]
        raise ValueError(f"{name} has no gamma; those that have are {', '.join(ways)}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is {gamma:g}; it lies between 0 and 1")
    return DDIM() if gamma == 0 and name == "bdia" else replace(rule, gamma=gamma)

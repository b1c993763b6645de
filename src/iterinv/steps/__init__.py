"""Solver steps carry a state from one level of a grid to the next; one file per rule.

A rule is a frozen dataclass. It receives the *field*, ``field(x, level)``, and may call it as often as it needs.
"""

from __future__ import annotations

from iterinv.steps.bdia import BDIA, BDIADPMPP, BDIAHeun, FixedPointBDIA
from iterinv.steps.belm import BELM
from iterinv.steps.ddim import DDIM
from iterinv.steps.ddpm import DDPM
from iterinv.steps.dpmpp import DPMPP2M, DPMPP2S
from iterinv.steps.edict import EDICT
from iterinv.steps.heun import Heun
from iterinv.steps.one_step import OneStep
from iterinv.steps.rex import Rex
from iterinv.steps.step import Multistep, Reversible, Step, Wrapped, rule_name

RULES: dict[str, Step] = {
    "ddim": DDIM(),
    "heun": Heun(),
    "dpmpp-2s": DPMPP2S(),
    "dpmpp-2m": DPMPP2M(),
    "bdia": BDIA(),
    "bdia-fixed": FixedPointBDIA(),
    "bdia-heun": BDIAHeun(),
    "bdia-dpmpp": BDIADPMPP(),
    "edict": EDICT(),
    "belm": BELM(),
    "rex": Rex(),
    "rex-heun": Rex(base=Heun()),
}
"""Rules by name, with their defaults."""

__all__ = [
    "BDIA",
    "BDIADPMPP",
    "BELM",
    "DDIM",
    "DDPM",
    "DPMPP2M",
    "DPMPP2S",
    "EDICT",
    "RULES",
    "BDIAHeun",
    "FixedPointBDIA",
    "Heun",
    "Multistep",
    "OneStep",
    "Reversible",
    "Rex",
    "Step",
    "Wrapped",
    "rule_name",
]

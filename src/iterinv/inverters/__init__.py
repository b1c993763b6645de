"""Ways of inverting a rule, one file each: from clean data back to the state that a rerun starts from."""

from __future__ import annotations

from iterinv.inverters.independent_noise import IndependentNoise
from iterinv.inverters.inverter import Inverted, Inverter
from iterinv.inverters.relax import Relax
from iterinv.inverters.solve import Solve
from iterinv.inverters.undo import Undo

__all__ = ["IndependentNoise", "Inverted", "Inverter", "Relax", "Solve", "Undo"]

"""Inverters: ways of inverting a rule, from clean data back to the state where a rerun starts; one file each."""

from __future__ import annotations

from iterinv.inverters.align import Align
from iterinv.inverters.independent_noise import IndependentNoise
from iterinv.inverters.inverter import Inverted, Inverter
from iterinv.inverters.relax import Relax
from iterinv.inverters.solve import Solve
from iterinv.inverters.undo import Undo

__all__ = ["Align", "IndependentNoise", "Inverted", "Inverter", "Relax", "Solve", "Undo"]

"""Checks that editors share."""

from __future__ import annotations

import math


def check_guidance(guidance: float) -> None:
    """Raise ``ValueError`` for a scale that is not finite."""
    if not math.isfinite(guidance):
        raise ValueError(f"guidance is {guidance}; it is a finite number, 1 for none")


def check_shares(**shares: float) -> None:
    """Raise ``ValueError``, naming it, for a share of the levels outside (0, 1]."""
    for name, share in shares.items():
        if not 0 < share <= 1:
            raise ValueError(f"{name} is {share}; it is a share of the levels and lies in (0, 1]")

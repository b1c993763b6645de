"""Checks that editors share."""

from __future__ import annotations


def check_shares(**shares: float) -> None:
    """Raise ``ValueError``, naming it, for a share of the levels outside (0, 1]."""
    for name, share in shares.items():
        if not 0 < share <= 1:
            raise ValueError(f"{name} is {share}; it is a share of the levels and lies in (0, 1]")

"""Rectangles: the heights and widths, besides its square, that a cascade can work at."""

from __future__ import annotations

import math
from collections.abc import Sequence

from iterinv.models import Stage

LONGEST = 4
"""The largest aspect ratio of a rectangle. Networks are trained on squares, or on pictures of up to this ratio."""


def unit_of(stages: Sequence[Stage]) -> int:
    """The px at the largest stage that the sides of a rectangle are multiples of, so that they are whole at every stage
    and every level of its network.

    Raises ``ValueError`` where a stage takes its square alone.
    """
    largest, unit = stages[-1].size, 1
    for stage in stages:
        if stage.unit is None:
            raise ValueError(
                f"stage {stage.name} takes squares of {stage.size} px alone: pad or crop the pictures to a square"
            )
        unit = math.lcm(unit, math.lcm(stage.unit * largest, stage.size) // stage.size)
    return unit


def at_extent(stages: Sequence[Stage], extent: tuple[int, int]) -> tuple[Stage, ...]:
    """The stages at pictures (h, w) in px of the largest; those below are smaller by the same factor as their squares.

    Raises ``ValueError`` where a stage takes its square alone, and for sides that are no multiples of the unit.
    """
    largest = stages[-1].size
    if extent == (largest, largest):
        return tuple(stage.at(None) for stage in stages)
    unit = unit_of(stages)
    if min(extent) < 1 or any(side % unit for side in extent):
        raise ValueError(
            f"the height and width are {extent[0]} and {extent[1]} px; this cascade takes multiples of {unit}"
        )
    return tuple(stage.at((extent[0] * stage.size // largest, extent[1] * stage.size // largest)) for stage in stages)


def rectangle(height: int, width: int, side: int, unit: int) -> tuple[int, int]:
    """The sides (h, w) of a rectangle for a picture: about as many px as a square of ``side``, and the picture's aspect
    ratio up to half a unit of padding.

    Both sides are multiples of ``unit``; that of a square picture is the square. Of the rectangles whose short side is
    next to the ideal one, it is the one with the least sum of the errors of ratio and area, as logarithms. Raises
    ``ValueError`` for a picture of an aspect ratio of more than :data:`LONGEST`.
    """
    if height == width:
        return side, side
    ratio = max(height, width) / min(height, width)
    if ratio > LONGEST:
        raise ValueError(
            f"a picture of {width}x{height} px is longer than {LONGEST} times its short side: cut it shorter, or pad "
            "or crop it to a square"
        )
    ideal = side / unit / math.sqrt(ratio)
    pairs = [
        (short, long)
        for short in {max(1, math.floor(ideal)), math.ceil(ideal)}
        for long in {math.floor(short * ratio + 0.5), math.ceil(short * ratio - 0.5)}
    ]

    def error(pair: tuple[int, int]) -> float:
        short, long = pair
        return abs(math.log(long / short / ratio)) + abs(math.log(short * long * (unit / side) ** 2))

    short, long = (unit * sides for sides in min(sorted(pairs), key=error))
    return (short, long) if height < width else (long, short)

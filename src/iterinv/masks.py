"""Masks that a user gives: a picture file, a box, a polygon; grown, feathered, inverted. White is where a picture may
change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from iterinv.reading import read_mask
from iterinv.typed import Range, check_fields

Mask = str | Path | Image.Image | np.ndarray | torch.Tensor
"""A mask of any size: a file, a PIL image, or values (h, w) in [0, 1], 0 to 255 if uint8."""


@dataclass(frozen=True)
class GivenMask:
    """The union of a mask file, a ``box`` (left, top, width, height) and a ``polygon`` of corners (x, y), in pixels of
    the upright picture.

    ``invert`` swaps inside and outside, before the mask is grown by ``grow`` pixels (shrunk, if negative). ``feather``
    is the width in pixels of a soft seam, which lies inside the mask. Raises ``ValueError`` where nothing is given, and
    for a polygon of fewer than three corners.
    """

    file: Path | None = None
    box: tuple[int, int, int, int] | None = None
    polygon: tuple[tuple[int, int], ...] | None = None
    invert: bool = False
    grow: Annotated[int, Range(-10_000, 10_000)] = 0
    feather: Annotated[int, Range(0, 10_000)] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.file is None and self.box is None and self.polygon is None:
            raise ValueError("there is no mask to invert, grow or feather: give a mask file, a box or a polygon")
        if self.polygon is not None and len(self.polygon) < 3:
            raise ValueError(f"the polygon has {len(self.polygon)} corners; it takes three or more")

    def drawn(self, height: int, width: int) -> tuple[np.ndarray, list[str]]:
        """The mask (height, width) in [0, 1] for a picture of that size, and notes. Raises ``ValueError`` for a box or
        polygon outside the picture and for a mask that is empty."""
        mask, notes = np.zeros((height, width), np.float32), list[str]()
        if self.file is not None:
            values = read_mask(self.file)
            if values.shape != mask.shape:
                h, w = values.shape
                notes.append(f"the mask of {w}x{h} px is resized to the picture's {width}x{height}")
                values = resized(values, height, width)
            mask = np.maximum(mask, values)
        for corners, name in ((_corners(self.box), "box"), (self.polygon, "polygon")):
            if corners:
                mask = np.maximum(mask, _polygon(corners, height, width, name))
        mask = 1 - mask if self.invert else mask
        mask = feathered(grown(mask, self.grow), self.feather)
        if not mask.any():
            raise ValueError("the mask is empty: white in it is where the picture may change")
        if (mask == 1).all():
            notes.append("the mask covers all of the picture")
        return mask, notes


def to_mask(mask: Mask) -> np.ndarray:
    """A mask as values (h, w) float32 in [0, 1]. Raises ``TypeError`` or ``ValueError`` for one of another kind."""
    if isinstance(mask, (str, Path)):
        return read_mask(Path(mask))
    if isinstance(mask, Image.Image):
        mask = np.asarray(mask.convert("L"))
    values: Any = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else mask
    if not isinstance(values, np.ndarray):
        raise TypeError(f"the mask is a {type(mask).__name__}; it is a file, a PIL image, an array or a tensor")
    values = values.reshape(values.shape[-2:]) if values.size == np.prod(values.shape[-2:]) else values
    if values.ndim != 2:
        raise ValueError(f"the mask is {tuple(values.shape)}; it is (h, w)")
    values = values.astype(np.float32) / (255 if values.dtype == np.uint8 else 1)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError("the mask's values lie in [0, 1], or 0 to 255 in uint8")
    return np.asarray(values)


def resized(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask (h, w) at another size; a pixel that is covered in part gets that part."""
    if mask.shape == (height, width):
        return mask
    large = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(large).clip(0, 1)


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A mask (h, w) with every pixel within ``pixels`` of its inside; shrunk by as many, if negative."""
    if not pixels:
        return mask
    from scipy.ndimage import distance_transform_edt

    if pixels < 0:
        return 1 - grown(1 - mask, -pixels)
    if not mask.any():
        return mask
    return np.maximum(mask, (distance_transform_edt(mask == 0) <= pixels).astype(np.float32))


def feathered(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A mask (h, w) that rises from its edge to 1 over ``pixels`` inside it; the picture's own edge is none."""
    if not pixels:
        return mask
    return (mask * (depth_inside(mask > 0, pixels + 1) / (pixels + 1)).clip(0, 1)).astype(np.float32)


def depth_inside(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The distance in pixels of every pixel inside a mask (h, w) of true and false to its edge, 0 outside; right up to
    ``pixels``. The picture's own edge is none."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(np.pad(mask, pixels, mode="edge"))[pixels:-pixels, pixels:-pixels])


def _corners(box: tuple[int, int, int, int] | None) -> tuple[tuple[int, int], ...]:
    if box is None:
        return ()
    left, top, width, height = box
    if width < 1 or height < 1:
        raise ValueError(f"the box is {width} x {height} px; it is left, top, width, height, at least 1 x 1")
    return (left, top), (left + width - 1, top), (left + width - 1, top + height - 1), (left, top + height - 1)


def _polygon(corners: tuple[tuple[int, int], ...], height: int, width: int, name: str) -> np.ndarray:
    if any(not (0 <= x < width and 0 <= y < height) for x, y in corners):
        raise ValueError(f"the {name} reaches outside the picture of {width}x{height} px: {corners}")
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).polygon(list(corners), fill=255)
    return np.asarray(canvas, np.float32) / 255

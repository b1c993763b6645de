"""Edits at a picture's own size: the change that was worked out at the model's size is carried up to the file's pixels.

At an edge a new colour is nearly an affine function of the old ones. This function is fitted in small windows at the
model's size, enlarged, and applied to the file's pixels (fast guided filter: He, Sun, 2015,
https://arxiv.org/abs/1505.00996), and the rest of the change is enlarged and added: a new colour ends where the old
one does, and the fine detail stays. Where structure changed, that detail would be a ghost of the old thing, and the
enlarged edited picture takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iterinv.edits.structure import WINDOW, edge_slope, structure_change
from iterinv.images import from_uint8
from iterinv.masks import depth_inside
from iterinv.provenance import chunks
from iterinv.reading import Original
from iterinv.reading.encoding import Encoding
from iterinv.writing import write_png

BAND, STRIP = 1 << 19, 128
"""The pixels of the picture, and the rows at the model's size, that are worked on at a time."""

REACH = 2 * WINDOW
"""The distance, in pixels at the model's size, up to which the change at one pixel counts at another, and more."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
GREY_KEPT = "its colour profile is for grey alone, so the edit is grey at the picture's own size"


@dataclass(frozen=True, eq=False)
class OwnSize:
    """An edited picture at its own size, upright.

    ``values`` (h, w, 1 or 3) uint8 or uint16 are in the file's own ``encoding``, and ``alpha`` (h, w) is the file's.
    ``region`` (h, w) uint8 is the weight of the change: every pixel where it is 0 is the file's own. ``worked_at`` is
    the height and width that the edit was worked out at, ``changed`` the share of the pixels that differ.
    """

    values: np.ndarray
    alpha: np.ndarray | None
    encoding: Encoding
    region: np.ndarray
    worked_at: tuple[int, int]
    changed: float
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        (h, w), (height, width) = self.values.shape[:2], self.worked_at
        return f"OwnSize({w} x {h} px, worked out at {width} x {height}, {self.changed:.1%} of the pixels changed)"

    @property
    def array(self) -> np.ndarray:
        """The picture (h, w, 1 to 4) uint8 or uint16, alpha last."""
        return self.values if self.alpha is None else np.dstack([self.values, self.alpha])

    @property
    def image(self) -> Image.Image:
        """The picture as a PIL image of 8 bits a channel with the file's ICC profile; :meth:`save` keeps 16 bits."""
        array = self.array
        array = array if array.dtype == np.uint8 else np.rint(array / np.float32(257)).astype(np.uint8)
        image = Image.fromarray(array if array.shape[2] > 1 else array[..., 0])
        if profile := self.encoding.profile:
            image.info["icc_profile"] = profile
        return image

    def save(self, path: str | Path, settings: Mapping[str, Any] | None = None) -> None:
        """Write a PNG file with the file's own depth, alpha channel and colours; ``settings`` say how it was made
        (:mod:`iterinv.provenance`).

        Raises ``ValueError`` for a name that does not end in .png, and :class:`iterinv.files.CannotWrite`.
        """
        if Path(path).suffix.lower() != ".png":
            raise ValueError(f"{path} is no name of a PNG file, the format that keeps every pixel: end it in .png")
        write_png(Path(path), self.array, (*self.encoding.chunks, *chunks(settings)))

    def report(self) -> dict[str, Any]:
        """The sizes in pixels, the depth, the share of the pixels that may differ from the file's and of those that do,
        and notes."""
        height, width, _ = self.values.shape
        return {
            "height": height,
            "width": width,
            "bits": 8 * self.values.dtype.itemsize,
            "worked_at": {"height": self.worked_at[0], "width": self.worked_at[1]},
            "region": float((self.region > 0).mean()),
            "changed": self.changed,
            "notes": list(self.notes),
        }


def carry_up(
    original: Original, before: np.ndarray, after: np.ndarray, mask: np.ndarray, limit: np.ndarray | None = None
) -> OwnSize:
    """Carry a change from the model's size to a picture's own.

    ``before`` and ``after`` (h, w, 3) uint8 are the picture and its edit at the model's size, in sRGB; ``mask`` (h, w)
    is above 0 where they may differ. The change fades over the half small pixel around the mask. ``limit``, of the size
    of the original, is true where its pixels may change at all; the change fades inside it, over one small pixel.
    """
    (height, width), scale = original.values.shape[:2], len(original.values) / len(before)
    grey = before[mask > 0], after[mask > 0]
    original, notes = _with_colours(original, grey=all(not np.ptp(each, axis=-1).any() for each in grey))
    box, planes = _box(mask, height, width), _Planes(before, after, mask, (height, width))
    values, region, changed = original.values.copy(), np.zeros((height, width), np.uint8), 0
    fade = None if limit is None else (limit, max(1, round(scale)))
    shown = original.shown
    for rows, columns in _bands(*box, fade[1] if fade else 0):
        part = rows, columns
        weight = planes.weight(*part)
        if fade is not None:
            weight = np.minimum(weight, _faded(*fade, *part))
        if not weight.any():
            continue
        colours = shown[part].astype(np.float32)
        change = planes.change(colours, *part) * weight[..., None]
        new = _changed(original, change, part, planes)
        inside = (weight > 0) & (change != 0).any(-1)
        changed += int((inside[..., None] & (new != values[part])).any(-1).sum())
        np.copyto(values[part], new, where=inside[..., None])
        region[part] = np.ceil(255 * weight)
    return OwnSize(
        values,
        original.alpha,
        original.encoding,
        region,
        (before.shape[0], before.shape[1]),
        changed / (height * width),
        (*original.notes, *notes),
    )


class _Planes:
    """The change at the model's size, as an affine function of colours, and its enlargement."""

    def __init__(self, before: np.ndarray, after: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> None:
        slope, offset, structure = _affine_change(before, after)
        each = [*slope.reshape(9, *mask.shape), *offset, structure, (mask > 0).astype(np.float32)]
        self.images = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in each]
        self.scale = mask.shape[0] / size[0], mask.shape[1] / size[1]

    def change(self, colours: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """The change (h, w, 3) in 8-bit levels of colours (h, w, 3) of a part of the picture."""
        out = np.empty_like(colours)
        for j in range(3):
            out[..., j] = self._enlarged(9 + j, rows, columns)
            for i in range(3):
                out[..., j] += self._enlarged(3 * i + j, rows, columns) * colours[..., i]
        return out

    def structure(self, rows: slice, columns: slice) -> np.ndarray:
        """The share (h, w) of a part of the picture that is drawn anew, 0 to 1."""
        return self._enlarged(12, rows, columns).clip(0, 1)

    def weight(self, rows: slice, columns: slice) -> np.ndarray:
        """The weight (h, w) of the change in a part of the picture: 1 within the mask, 0 from half a small pixel on."""
        return (2 * self._enlarged(13, rows, columns, Image.Resampling.BILINEAR)).clip(0, 1)

    def _enlarged(
        self, k: int, rows: slice, columns: slice, how: Image.Resampling = Image.Resampling.BICUBIC
    ) -> np.ndarray:
        plane, (y, x) = self.images[k], self.scale
        box = columns.start * x, rows.start * y, min(columns.stop * x, plane.width), min(rows.stop * y, plane.height)
        size = columns.stop - columns.start, rows.stop - rows.start
        return np.asarray(plane.resize(size, how, box=box))


def _affine_change(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The change as an affine function of the colours of ``before``, in 8-bit levels: its slope (3, 3, h, w), offset
    (3, h, w), and the share of structure (h, w). Where all is structure, it takes the old colours off.

    At the model's size the function gives the edited picture exactly.
    """
    h, w = before.shape[:2]
    slope, offset, structure = (np.zeros((*channels, h, w), np.float32) for channels in ((3, 3), (3,), ()))
    ys, xs = np.nonzero((before != after).any(-1))
    if not len(ys):
        return slope, offset, structure
    columns = slice(max(0, xs.min() - REACH), xs.max() + REACH + 1)
    for top in range(max(0, ys.min() - REACH), min(h, ys.max() + REACH + 1), STRIP):
        above = min(REACH, top)  # the rows around a strip that its windows reach
        part, inner = (slice(top - above, top + STRIP + REACH), columns), slice(above, above + STRIP)
        x, y = from_uint8(before[part]), from_uint8(after[part])
        anew = structure_change(x, y)[0].numpy()
        fitted = (1 - anew) * edge_slope(x, y - x)[0].numpy() - anew * np.eye(3)[..., None, None]
        old, new = (each[part].astype(np.float64).transpose(2, 0, 1) for each in (before, after))
        rest = new - old - np.einsum("ijhw,ihw->jhw", fitted, old)
        here = slice(top, top + STRIP), columns
        slope[:, :, *here], offset[:, *here], structure[here] = fitted[:, :, inner], rest[:, inner], anew[0, inner]
    return slope, offset, structure


def _changed(original: Original, change: np.ndarray, part: tuple[slice, slice], planes: _Planes) -> np.ndarray:
    """The values (h, w, c) of a part of the picture under a change (h, w, 3) of its colours on white."""
    values = original.values[part]
    full = np.iinfo(values.dtype).max
    if original.alpha is not None:  # the less a pixel shows, the more it changes for the same change on white
        alpha = original.alpha[part].astype(np.float32)[..., None]
        change = np.where(alpha > 0, change * (full / alpha.clip(1)), 0)
    if original.encoding.plain:
        change = change if values.shape[2] == 3 else change @ LUMA[:, None]
        return np.rint(values + change * np.float32(full / 255)).clip(0, full).astype(values.dtype)
    colours = original.rgb[part]
    target = np.rint(colours + change).clip(0, 255).astype(np.uint8)
    was, new = (
        original.encoding.values(each)[..., : values.shape[2]].astype(np.float32) * np.float32(full / 255)
        for each in (colours, target)
    )
    lost = (1 - planes.structure(*part)[..., None]) * (values - was)  # which 8-bit sRGB does not hold of the values
    same = (target == colours).all(-1, keepdims=True)
    return np.where(same, values, np.rint(new + lost).clip(0, full)).astype(values.dtype)


def _with_colours(original: Original, grey: bool) -> tuple[Original, list[str]]:
    """The original with channels for the colours of an edit, unless that is ``grey`` too; and notes."""
    if original.values.shape[2] == 3 or grey:
        return original, []
    if original.encoding.icc:
        if not original.encoding.plain:
            return original, [GREY_KEPT]
        original = replace(original, encoding=Encoding.srgb())  # whose levels they are
    return replace(original, values=np.broadcast_to(original.values, original.rgb.shape)), []


def _box(mask: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of the picture that a mask at the model's size reaches."""
    slices = []
    for axis, size in ((1, height), (0, width)):
        inside = np.flatnonzero((mask > 0).any(axis))
        n = mask.shape[1 - axis]
        first, last = (max(0, inside[0] - 1), min(n, inside[-1] + 2)) if len(inside) else (0, 0)
        slices.append(slice(int(first * size / n), min(size, -int(-last * size // n))))
    return slices[0], slices[1]


def _bands(rows: slice, columns: slice, least: int) -> Iterator[tuple[slice, slice]]:
    """The parts of a box that are worked on at a time, of ``least`` rows or more."""
    if columns.stop == columns.start:
        return
    step = max(1, least, BAND // (columns.stop - columns.start))
    for top in range(rows.start, rows.stop, step):
        yield slice(top, min(top + step, rows.stop)), columns


def _faded(limit: np.ndarray, over: int, rows: slice, columns: slice) -> np.ndarray:
    """A part of a limit (h, w) that rises from its edge to 1 ``over`` pixels inside it; the picture's edge is none."""
    top, left = max(0, rows.start - over), max(0, columns.start - over)
    depth = depth_inside(limit[top : rows.stop + over, left : columns.stop + over], over)
    part = depth[rows.start - top :, columns.start - left :][: rows.stop - rows.start, : columns.stop - columns.start]
    return np.asarray(part / np.float32(over)).clip(0, 1)

"""Pictures: files, PIL, numpy and torch to one form and back, and pictures of any shape to a cascade's and back.

Tensors are (batch, 3, h, w) in [-1, 1]. Arrays are (h, w, 3) uint8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from iterinv.masks import resized
from iterinv.provenance import chunks
from iterinv.reading import BadPicture as BadPicture
from iterinv.reading import Original, read_original, to_original, to_rgb
from iterinv.reading import read as read
from iterinv.reading.colour import srgb_profile
from iterinv.reading.encoding import profile_chunk
from iterinv.writing import write_png

FITS = ("pad", "crop", "aspect")
"""The ways to bring a picture to a cascade: padded or cropped to its square, or worked on at a rectangle of about the
picture's aspect ratio."""

SAME = 2.0
"""The mean difference in 8-bit levels up to which two pictures count as one, since decoders of JPEG differ."""

OUTPUT_TYPES = ("pil", "np", "pt")

Picture = str | Path | Image.Image | np.ndarray | Tensor
"""A picture file, a PIL image, an array (h, w, 3) uint8, or a tensor (3, h, w) or (1, 3, h, w) in [-1, 1]."""

Pictures = list[Image.Image] | list[np.ndarray] | Tensor
"""Pictures as ``output_type`` says: PIL images, arrays (h, w, 3) uint8, or a tensor (batch, 3, h, w) in [-1, 1]."""


def to_array(picture: Picture) -> tuple[np.ndarray, list[str]]:
    """A picture as an array (h, w, 3) uint8, upright, and a note for everything that was converted on the way.

    Raises :class:`BadPicture` for a file that is no picture, and for arrays and tensors of another shape or range.
    """
    if isinstance(picture, (str, Path)):
        return read(Path(picture))
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    if isinstance(picture, Tensor):
        x = picture[None] if picture.ndim == 3 else picture
        if x.ndim != 4 or x.shape[:2] != (1, 3):
            raise BadPicture(f"a picture's tensor is (3, h, w), not {tuple(picture.shape)}: give several as a list")
        if not bool(torch.isfinite(x).all()) or float(x.abs().max()) > 1 + 1e-6:
            raise BadPicture("the picture's values must be finite and lie in [-1, 1]")
        return to_uint8(x), []
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        return picture, []
    shape = f" of shape {picture.shape} and dtype {picture.dtype}" if isinstance(picture, np.ndarray) else ""
    raise BadPicture(
        f"a {type(picture).__name__}{shape} is no picture: give a file, a PIL image, an array (h, w, 3) of "
        "uint8 or a tensor "
        "(3, h, w) in [-1, 1]"
    )


def to_own_pixels(picture: Picture) -> Original:
    """A picture's own pixels, upright: those of its file, or of what is given. Raises as :func:`to_array` does."""
    if isinstance(picture, (str, Path)):
        return read_original(Path(picture))
    if isinstance(picture, Image.Image):
        return to_original(picture)
    return Original.of_array(to_array(picture)[0])


def to_pil(array: np.ndarray) -> Image.Image:
    """An array (h, w, 3) uint8 as a PIL image with the profile of sRGB, which its files carry too."""
    image = Image.fromarray(array)
    image.info["icc_profile"] = srgb_profile()
    return image


def check_output_type(output_type: str) -> None:
    """Raise ``ValueError`` for a form of pictures that is not one of :data:`OUTPUT_TYPES`."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type {output_type!r} is not one of {', '.join(OUTPUT_TYPES)}")


def output(arrays: Sequence[np.ndarray], output_type: str) -> Pictures:
    """Arrays (h, w, 3) uint8 as ``pil``, ``np`` or ``pt``. Raises ``ValueError`` for another type."""
    check_output_type(output_type)
    if output_type == "pil":
        return [to_pil(array) for array in arrays]
    if output_type == "np":
        return list(arrays)
    if len({array.shape for array in arrays}) > 1:
        raise ValueError("pictures of several shapes are no tensor: take output_type 'pil' or 'np'")
    return torch.cat([from_uint8(array) for array in arrays])


def check_fit(how: str) -> None:
    """Raise ``ValueError`` for a way to bring a picture to a cascade that is not one of :data:`FITS`."""
    if how not in FITS:
        raise ValueError(f"fit {how!r} is not one of {', '.join(FITS)}")


def fits(height: int, width: int, extent: tuple[int, int], top: int, left: int) -> bool:
    """Tell whether a rectangle (h, w) lies over a picture as :meth:`Canvas.fit` lays it."""
    h, w = extent
    laid = (top, left) == ((height - h) // 2, (width - w) // 2) and (height == h or width == w)
    return laid and height * width <= (Image.MAX_IMAGE_PIXELS or math.inf)


@dataclass(frozen=True, eq=False)
class Canvas:
    """A picture at working scale, and the place over it of the rectangle that the cascade works on.

    ``image`` is (h, w, 3) uint8. The rectangle is ``extent`` (h, w), most often a square; ``top`` and ``left`` place it
    over the picture: negative or zero where the picture was padded. ``source`` is the picture as it was given, where
    that is known.
    """

    image: np.ndarray
    extent: tuple[int, int]
    top: int
    left: int
    source: Picture | None = None

    @classmethod
    def fit(cls, picture: np.ndarray, extent: tuple[int, int], how: str = "pad") -> tuple[Canvas, list[str]]:
        """Bring a picture to working scale: ``crop`` puts the rectangle ``extent`` (h, w) on its middle, and any other
        way keeps all of it in the rectangle.

        A picture of that extent is taken as it is. Gives notes of what was done. Raises ``ValueError`` for
        an unknown ``how``, for a picture so long that padding leaves it thinner than eight pixels, or that scaling
        makes it too large.
        """
        check_fit(how)
        h, w = picture.shape[:2]
        scale = (max if how == "crop" else min)(extent[0] / h, extent[1] / w)
        height, width = max(1, round(h * scale)), max(1, round(w * scale))
        if min(height, width) < 8:
            raise BadPicture(
                f"a picture of {w}x{h} px would be {width}x{height} within {described(extent)}: cut it to a squarer "
                "shape, or crop instead of pad"
            )
        if height * width > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise BadPicture(
                f"a picture of {w}x{h} px would be {width}x{height} around {described(extent)}: cut it shorter"
            )
        notes = []
        if (height, width) != (h, w):
            verb = "reduced" if height * width < h * w else "enlarged"
            notes.append(f"{verb} from {w}x{h} to {width}x{height} px, which the model works at")
            picture = np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
        if (height, width) != extent:
            padded = f"padded to {described(extent)}; the padding is taken off again"
            how_said = "only its middle is worked on" if how == "crop" else padded
            notes.append(f"not square: {how_said}")
        return cls(picture, extent, (height - extent[0]) // 2, (width - extent[1]) // 2), notes

    def __repr__(self) -> str:
        h, w = self.image.shape[:2]
        return f"Canvas({w}x{h} px, {described(self.extent)})"

    def covered(self) -> Tensor:
        """The part of the picture that the rectangle covers, the cascade's input: (1, 3, *extent) float32 in [-1, 1];
        padding repeats the edge."""
        return from_uint8(self._covered(self.image))

    def cover(self, mask: np.ndarray) -> Tensor:
        """A mask (h, w) in [0, 1] of the whole picture, of any size, as the rectangle's: (1, 1, *extent) float32."""
        h, w = self.image.shape[:2]
        return torch.from_numpy(self._covered(resized(mask, h, w)).copy())[None, None]

    def crop(self, picture: np.ndarray) -> np.ndarray:
        """The part of a picture or mask (h, w, ...) that the rectangle lies over, which the cascade has worked on."""
        return picture[max(0, self.top) :, max(0, self.left) :][: self.extent[0], : self.extent[1]]

    def place(self, part: Tensor) -> np.ndarray:
        """The whole picture (h, w, 3) uint8 with the rectangle's part (1, 3, *extent) put back in its place."""
        return self._place(to_uint8(part), self.image)

    def place_mask(self, mask: Tensor) -> np.ndarray:
        """A mask (1, 1, *extent) in [0, 1] over the whole picture: (h, w) uint8, 255 inside."""
        values = (mask[0, 0] * 255).round().byte().cpu().numpy()
        return self._place(values, np.zeros(self.image.shape[:2], np.uint8))

    def check_original(self, original: Original) -> None:
        """Raise :class:`BadPicture` for another picture than the one on this canvas, which is reduced or enlarged."""
        (h, w), (height, width) = self.image.shape[:2], original.values.shape[:2]
        differs = f"it is {width}x{height} px, and the picture that was inverted was {w}x{h} at the model's size"
        if abs(height * w / width - h) <= 1 or abs(width * h / height - w) <= 1:
            small = Image.fromarray(original.shown).resize((w, h), Image.Resampling.LANCZOS)
            off = float(np.abs(np.asarray(small, np.int16) - self.image).mean())
            differs = f"it differs by {off:.0f} of 255 levels on average" if off > SAME else ""
        if differs:
            raise BadPicture(f"the original is another picture than the inverted one ({differs}): give that one's file")

    def _covered(self, values: np.ndarray) -> np.ndarray:
        """The values (h, w, ...) under the rectangle, its padding those of the edge."""
        rows, columns = (
            np.clip(np.arange(side) + first, 0, size - 1)
            for side, first, size in zip(self.extent, (self.top, self.left), values.shape[:2], strict=True)
        )
        return values[rows][:, columns]

    def _place(self, values: np.ndarray, under: np.ndarray) -> np.ndarray:
        h, w = under.shape[:2]
        top, left = max(0, self.top), max(0, self.left)
        rows, columns = min(h, self.extent[0]), min(w, self.extent[1])
        out = under.copy()
        inner = values[max(0, -self.top) :, max(0, -self.left) :]
        out[top : top + rows, left : left + columns] = inner[:rows, :columns]
        return out


def from_uint8(picture: np.ndarray) -> Tensor:
    """(h, w, 3) uint8 to (1, 3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_uint8(x: Tensor) -> np.ndarray:
    """The first picture of (batch, 3, h, w) in [-1, 1], clamped, to (h, w, 3) uint8."""
    return ((x[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def sides(extent: Sequence[int]) -> str:
    """A rectangle (h, w) in short: its width and height, or a square's side."""
    height, width = extent
    return str(height) if height == width else f"{width}x{height}"


def described(extent: tuple[int, int]) -> str:
    """A rectangle (h, w) in words: its width and height, or that it is a square."""
    height, width = extent
    return f"a square of {height} px" if height == width else f"a rectangle of {width}x{height} px"


def resize(picture: Tensor, extent: tuple[int, int]) -> Tensor:
    """A picture (batch, 3, h, w) in [-1, 1] at a stage's extent (h, w): area averages, rounded to 8 bits.

    Rounded, because a stage's reconstruction is judged by its 8-bit pixels, and an average may lie just between two.
    """
    if picture.shape[-2:] == extent:
        return picture
    small = F.interpolate(picture, extent, mode="area")
    return ((small + 1) * 127.5).round() / 127.5 - 1


def save(picture: Image.Image | np.ndarray, path: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Write a picture, an image or an array (h, w) or (h, w, 3) of uint8, as a PNG file, whole or not at all.

    ``settings`` say how it was made (:mod:`iterinv.provenance`). An array of colours is in sRGB; an image has the
    profile that it holds. Raises :class:`iterinv.files.CannotWrite`.
    """
    if isinstance(picture, np.ndarray):
        picture = to_pil(picture) if picture.ndim == 3 else Image.fromarray(picture)
    values = np.asarray(picture)
    profile = picture.info.get("icc_profile")
    colours = (profile_chunk(profile),) if profile else ()
    write_png(path, values if values.ndim == 3 else values[..., None], (*colours, *chunks(settings)))


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The difference of two pictures (h, w, 3) uint8 in the channel that differs most: (h, w) uint8, brightened so that
    the largest is 255, and 0 where no pixel differs."""
    values = np.abs(one.astype(np.int16) - other.astype(np.int16)).max(-1)
    return (values * (255 / max(1, int(values.max())))).round().astype(np.uint8)


def strip(pictures: list[tuple[str, np.ndarray]], gap: int = 8) -> Image.Image:
    """Pictures side by side at equal height, each under its name."""
    return labelled([pictures], gap)


def labelled(rows: Sequence[Sequence[tuple[str, np.ndarray]]], gap: int = 8) -> Image.Image:
    """Rows of pictures (h, w, 3) uint8, each under its name; a name may have several lines."""
    from PIL import ImageDraw, ImageFont

    font, line = ImageFont.load_default(16), 20
    heads = [8 + line * max(name.count("\n") + 1 for name, _ in row) for row in rows]
    heights = [head + max(picture.shape[0] for _, picture in row) for head, row in zip(heads, rows, strict=True)]
    width = max(sum(picture.shape[1] + gap for _, picture in row) for row in rows) + gap
    sheet = Image.new("RGB", (width, sum(heights) + gap * len(rows)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for row, head, height in zip(rows, heads, heights, strict=True):
        x = gap
        for name, picture in row:
            draw.text((x, top + 5), name, fill="black", font=font)
            sheet.paste(Image.fromarray(picture), (x, top + head))
            x += picture.shape[1] + gap
        top += height + gap
    sheet.info["icc_profile"] = srgb_profile()
    return sheet


def contact_sheet(pictures: Sequence[np.ndarray], columns: int, side: int | None = None) -> Image.Image:
    """Arrays (h, w, 3) uint8 in rows of ``columns``, each scaled to a square of ``side`` px if that is given."""
    cell = side or max(max(picture.shape[:2]) for picture in pictures)
    sheet = Image.new("RGB", (columns * cell, -(-len(pictures) // columns) * cell), "white")
    for k, picture in enumerate(pictures):
        image = Image.fromarray(picture)
        sheet.paste(image.resize((cell, cell)) if side else image, (k % columns * cell, k // columns * cell))
    return sheet

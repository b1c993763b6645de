"""A picture's own pixels, upright: with the depth, the alpha channel and the colours of its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from iterinv.reading.encoding import Encoding
from iterinv.reading.layers import Layers, to_eight_bits

IN_SRGB = "its colours cannot be written to a PNG file as they are: its edit at its own size is in sRGB"


@dataclass(frozen=True, eq=False)
class Original:
    """A picture's own pixels, upright.

    ``values`` (h, w, 1 or 3) uint8 or uint16 are the file's own, which ``encoding`` explains; ``alpha`` (h, w) is of
    the same type, ``None`` without one. ``rgb`` (h, w, 3) uint8 are their colours in sRGB, without regard to alpha.
    ``notes`` say what cannot be kept.
    """

    values: np.ndarray
    alpha: np.ndarray | None
    rgb: np.ndarray
    encoding: Encoding
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, layers: Layers, info: Mapping[Any, Any], rgb: np.ndarray) -> Original:
        """The pixels of decoded layers; of inks and of a profile without a way back, in sRGB."""
        encoding = Encoding.of(layers.space, info) if layers.space in ("L", "RGB") else None
        if encoding is None:
            alpha = None if layers.alpha is None else to_eight_bits(layers.alpha)
            return cls(rgb, alpha, rgb, Encoding.srgb(), (IN_SRGB,))
        values = layers.values
        if layers.space == "L" and encoding.icc and encoding.space == "RGB":
            values = np.broadcast_to(values, (*values.shape[:2], 3))
        return cls(values, layers.alpha, rgb, encoding)

    @classmethod
    def of_array(cls, rgb: np.ndarray) -> Original:
        """An array (h, w, 3) uint8 in sRGB."""
        return cls(rgb, None, rgb, Encoding.srgb())

    def turned(self, turn: Callable[[np.ndarray], np.ndarray]) -> Original:
        """The picture turned."""
        alpha = None if self.alpha is None else turn(self.alpha)
        return replace(self, values=turn(self.values), alpha=alpha, rgb=turn(self.rgb))

    @property
    def shown(self) -> np.ndarray:
        """The picture (h, w, 3) uint8 in sRGB, laid on white, which a model works on."""
        return self.rgb if self.alpha is None else on_white(self.rgb, self.alpha)

    @property
    def plain(self) -> bool:
        """Tell whether the picture is 8-bit sRGB colour without alpha, so that the model's pictures are as deep."""
        deep = self.values.dtype != np.uint8 or self.values.shape[2] != 3
        return self.alpha is None and self.encoding.chunks == Encoding.srgb().chunks and not deep


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) uint8 laid on white, by an alpha channel (h, w)."""
    over, shown = (Image.fromarray(np.ascontiguousarray(each)) for each in (rgb, to_eight_bits(alpha)))
    return np.asarray(Image.composite(over, Image.new("RGB", over.size, "white"), shown))

"""Metrics by name: the direction and range of each, what it needs, and the function."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from iterinv.metrics import clip, dino, pie_bench
from iterinv.metrics.flip import flip
from iterinv.metrics.lpips import lpips
from iterinv.metrics.lpips import missing as lpips_needs
from iterinv.metrics.ms_ssim import ms_ssim
from iterinv.metrics.pixels import exact_pixels, max_abs_8bit, mse
from iterinv.metrics.psnr import psnr
from iterinv.metrics.ssim import ssim
from iterinv.metrics.ssim_border import ssim_border
from iterinv.metrics.st_lpips import missing as st_lpips_needs
from iterinv.metrics.st_lpips import st_lpips

WINGS = ("iterinv.embedded.metrics",)
"""Modules that register metrics of their own when they are imported."""


def nothing(weights: Path | None = None) -> str | None:
    """Return no reason: the metric runs wherever this package does."""
    return None


@dataclass(frozen=True)
class Metric:
    """A metric of pictures, as people choose and read it.

    ``range`` is the least and the largest value, ``unit`` what one is, empty for a plain number. ``needs`` is called
    with a folder of weights or ``None`` and returns the reason why the metric cannot run here, or ``None``.
    ``prompts`` is 1 where it reads the picture's prompt, 2 where it reads the reference's too. ``downloads``: it takes
    the folder of weights too.

    ``function`` takes a reference and a picture, (h, w, 3) uint8, a mask (h, w) bool or ``None``, and by name
    ``prompts`` (the reference's and the picture's) and ``weights``, where it has these; it returns a value, or ``None``
    where there is none. A metric of two *sets* of pictures has ``features`` in its place: these are called with one
    picture, and ``weights`` by name, and their sets are compared by :func:`iterinv.metrics.frechet`.
    """

    about: str
    direction: Literal["lower", "higher"]
    range: tuple[float, float]
    unit: str = ""
    needs: Callable[[Path | None], str | None] = nothing
    function: Callable[..., float | None] | None = None
    features: Callable[..., Tensor] | None = None
    prompts: int = 0
    downloads: bool = False

    def __call__(
        self,
        reference: np.ndarray,
        picture: np.ndarray,
        mask: np.ndarray | None = None,
        prompts: tuple[str, str] = ("", ""),
        weights: Path | None = None,
    ) -> float | None:
        """The value of a pair. Raises as the function does, and ``TypeError`` for a metric of sets."""
        if self.function is None:
            raise TypeError("this metric compares sets of pictures: take its features")
        how = {"prompts": prompts} if self.prompts else {}
        return self.function(reference, picture, mask=mask, **how, **self._loading(weights))

    def look(self, picture: np.ndarray, weights: Path | None = None) -> Tensor:
        """The features (d,) of one picture (h, w, 3) uint8, for a metric of sets. Raises ``TypeError`` for another."""
        if self.features is None:
            raise TypeError("this metric compares pairs of pictures: call it")
        return self.features(picture, **self._loading(weights))

    def _loading(self, weights: Path | None) -> dict[str, Path | None]:
        return {"weights": weights} if self.downloads else {}


UNIT, OPEN = (0.0, 1.0), (0.0, math.inf)


def _lpips(network: str, about: str) -> Metric:
    needs, function = partial(lpips_needs, network), partial(lpips, network=network)
    return Metric(about, "lower", OPEN, "", needs, function, downloads=True)


def _clip_features(picture: np.ndarray, weights: Path | None = None) -> Tensor:
    return clip.load(weights).look(picture)[0]


METRICS: dict[str, Metric] = {
    "mse": Metric("mean squared difference", "lower", UNIT, function=mse),
    "psnr": Metric("peak signal-to-noise ratio, dB", "higher", OPEN, "dB", function=psnr),
    "max-abs": Metric("largest difference of a value", "lower", (0, 255), "8-bit steps", function=max_abs_8bit),
    "exact-pixels": Metric("share of pixels that are equal", "higher", UNIT, function=exact_pixels),
    "ssim": Metric("structural similarity", "higher", (-1, 1), function=ssim),
    "ssim-border": Metric("SSIM, border included", "higher", (-1, 1), function=ssim_border),
    "ms-ssim": Metric("SSIM at five scales", "higher", UNIT, function=ms_ssim),
    "ms-ssim-border": Metric("MS-SSIM, border included", "higher", UNIT, function=partial(ms_ssim, border=True)),
    "flip": Metric("difference seen on flipping", "lower", UNIT, function=flip),
    "lpips-alex": _lpips("alex", "LPIPS of AlexNet"),
    "lpips-vgg": _lpips("vgg", "LPIPS of VGG-16"),
    "lpips-squeeze": _lpips("squeeze", "LPIPS of SqueezeNet"),
    "st-lpips": Metric("LPIPS that forgives shifts", "lower", OPEN, "", st_lpips_needs, st_lpips),
    "st-lpips-vgg": Metric("ST-LPIPS of VGG-16", "lower", OPEN, "", st_lpips_needs, partial(st_lpips, network="vgg")),
    "dino-structure": Metric(
        "structure distance of DINO", "lower", (0, 4), "", dino.missing, dino.dino_structure, downloads=True
    ),
    "dino-structure-255": Metric(
        "the same, as PIE-Bench feeds it",
        "lower",
        (0, 4),
        "",
        dino.missing,
        partial(dino.dino_structure, published=True),
        downloads=True,
    ),
    "clip-score": Metric(
        "fit of B and its prompt", "higher", (-100, 100), "", clip.missing, clip.clip_score, prompts=1, downloads=True
    ),
    "clip-direction": Metric(
        "fit of the change and prompts",
        "higher",
        (-1, 1),
        "",
        clip.missing,
        clip.clip_direction,
        prompts=2,
        downloads=True,
    ),
    "frechet-clip": Metric(
        "distance of folders, by CLIP", "lower", OPEN, "", clip.missing, features=_clip_features, downloads=True
    ),
    "mse-pie": Metric("MSE, black outside the mask", "lower", UNIT, function=pie_bench.mse_pie),
    "psnr-pie": Metric("PSNR, black outside the mask", "higher", OPEN, "dB", function=pie_bench.psnr_pie),
    "ssim-pie": Metric("SSIM, black outside the mask", "higher", (-1, 1), function=pie_bench.ssim_pie),
    "lpips-squeeze-pie": Metric(
        "LPIPS, black outside the mask",
        "lower",
        OPEN,
        "",
        partial(lpips_needs, "squeeze"),
        pie_bench.lpips_pie,
        downloads=True,
    ),
}
"""Metrics by name; modules of :data:`WINGS` add theirs."""

USUAL = ("exact-pixels", "mse", "psnr", "ssim", "flip", "st-lpips", "lpips-alex")
"""The metrics that are measured where none is named, as far as they can run."""


def metrics() -> dict[str, Metric]:
    """All metrics by name, those of the wings included."""
    for wing in WINGS:
        importlib.import_module(wing)
    return METRICS

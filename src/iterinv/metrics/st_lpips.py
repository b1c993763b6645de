"""ST-LPIPS, a perceptual distance that forgives a shift of a pixel (Ghildyal and Liu, 2022),
https://arxiv.org/abs/2207.13686

The trained weights travel in the package ``stlpips-pytorch``, which is in the extra ``[metrics]``. Its code needs
torchvision, so the networks are built here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iterinv.metrics.backbones import check_size, distance
from iterinv.metrics.pixels import check_pair

NETWORKS = {
    "alex": "conv 0 2, blur 1, relu, tap, pool 3 1, blur 4, conv 5 2, relu, tap, pool 3 1, blur 8, conv 9 1, relu, "
    "tap, conv 11 1, relu, tap, conv 13 1, relu, tap",
    "vgg": "conv 0 1, relu, conv 2 1, relu, tap, pool 2 1, blur 5, conv 6 1, relu, conv 8 1, relu, tap, "
    "pool 2 1, blur 11, conv 12 1, relu, conv 14 1, relu, conv 16 1, relu, tap, "
    "pool 2 1, blur 19, conv 20 1, relu, conv 22 1, relu, conv 24 1, relu, tap, "
    "pool 2 1, blur 27, conv 28 1, relu, conv 30 1, relu, conv 32 1, relu, tap",
}
"""The layers of the shift-tolerant networks, as :func:`iterinv.metrics.backbones.features` reads them."""

SMALLEST = 16
"""Pictures have this many pixels a side or more."""


def missing(weights: Path | None = None) -> str | None:
    """Say in words what ST-LPIPS lacks here and what to do; ``None`` where it can run. Its weights are those of its
    package, whatever the folder ``weights`` holds."""
    return None if find_spec("stlpips_pytorch") else "needs its trained weights: pip install 'iterinv[metrics]'"


@cache
def load(network: str) -> Mapping[str, Tensor]:
    """The trained weights of a network, ``alex`` or ``vgg``. Raises ``ModuleNotFoundError`` where they are missing."""
    spec = find_spec("stlpips_pytorch")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"ST-LPIPS {missing()}")
    file = Path(spec.origin).parent / "weights" / "vST0.0" / f"{network}_shift_tolerant.pth"
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    return {
        name.removeprefix("net.").split(".", 1)[1] if name.startswith("net.") else name: x for name, x in loaded.items()
    }


def st_lpips(
    reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None = None, network: str = "alex"
) -> float | None:
    """Return the ST-LPIPS of two pictures (h, w, 3) uint8 of 16 or more pixels a side: 0 for equal ones, about 1 for
    unlike ones; less is better. ``network`` is ``alex`` or ``vgg``.

    In a mask (h, w) bool only differences inside it count, in the mean over it; ``None`` where it is empty. Raises
    ``ModuleNotFoundError`` without the weights, and ``ValueError`` for another network, pictures that are too
    small, and as :func:`iterinv.metrics.pixels.check_pair` does.
    """
    check_pair(reference, picture, mask)
    if network not in NETWORKS:
        raise ValueError(f"there is no network {network!r}: the networks are {', '.join(NETWORKS)}")
    check_size(reference, SMALLEST, "ST-LPIPS")
    weights = load(network)
    heads = [weights[f"lin{k}.model.1.weight"] for k in range(NETWORKS[network].count("tap"))]
    shift, scale = weights["scaling_layer.shift"], weights["scaling_layer.scale"]
    return distance(reference, picture, mask, NETWORKS[network], weights, heads, shift, scale)

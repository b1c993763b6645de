"""ST-LPIPS, a perceptual distance that forgives a shift of a pixel (Ghildyal and Liu, 2022),
https://arxiv.org/abs/2207.13686

The trained weights travel in the package ``stlpips-pytorch``, which is the extra ``[metrics]``. Its code needs
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
from torch.nn import functional as F

from iterinv.images import from_uint8
from iterinv.metrics.pixels import check_pair

NETWORKS = {
    "alex": "conv 0 2, blur 1, relu tap, pool 3, blur 4, conv 5 2, relu tap, pool 3, blur 8, conv 9 1, relu tap, "
    "conv 11 1, relu tap, conv 13 1, relu tap",
    "vgg": "conv 0 1, relu, conv 2 1, relu tap, pool 2, blur 5, conv 6 1, relu, conv 8 1, relu tap, "
    "pool 2, blur 11, conv 12 1, relu, conv 14 1, relu, conv 16 1, relu tap, "
    "pool 2, blur 19, conv 20 1, relu, conv 22 1, relu, conv 24 1, relu tap, "
    "pool 2, blur 27, conv 28 1, relu, conv 30 1, relu, conv 32 1, relu tap",
}
"""The layers of the shift-tolerant networks: convolutions with the number of their weights and their padding, blurs
that halve the size, pools of a kernel that keep it; features are compared after each ``tap``."""

SMALLEST = 16
"""Pictures have this many pixels a side or more."""


def available() -> bool:
    """Tell whether the package that holds the weights is installed."""
    return find_spec("stlpips_pytorch") is not None


@cache
def _weights(network: str) -> Mapping[str, Tensor]:
    spec = find_spec("stlpips_pytorch")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("ST-LPIPS needs its trained weights: pip install 'iterinv[metrics]'")
    file = Path(spec.origin).parent / "weights" / "vST0.0" / f"{network}_shift_tolerant.pth"
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    return {
        name.removeprefix("net.").split(".", 1)[1] if name.startswith("net.") else name: x for name, x in loaded.items()
    }


def _features(x: Tensor, layers: str, weights: Mapping[str, Tensor]) -> list[Tensor]:
    taps = []
    for layer in layers.split(", "):
        kind, *rest = layer.split()
        if kind == "conv":
            x = F.conv2d(x, weights[f"{rest[0]}.weight"], weights[f"{rest[0]}.bias"], padding=int(rest[1]))
        elif kind == "blur":
            filters = weights[f"{rest[0]}.filt"]
            x = F.conv2d(F.pad(x, [2] * 4, mode="reflect"), filters, stride=2, groups=len(filters))
        elif kind == "pool":
            x = F.max_pool2d(x, int(rest[0]), 1)
        else:
            x = x.relu()
        if rest == ["tap"]:
            taps.append(x)
    return taps


@torch.no_grad()
def st_lpips(reference: np.ndarray, picture: np.ndarray, network: str = "alex") -> float:
    """Return the ST-LPIPS of two pictures (h, w, 3) uint8 of 16 or more pixels a side: 0 for equal ones, about 1 for
    unlike ones; less is better. ``network`` is ``alex`` or ``vgg``.

    Raises ``ModuleNotFoundError`` without the weights, and ``ValueError`` for another network, pictures that are too
    small, and as :func:`iterinv.metrics.pixels.check_pair` does.
    """
    check_pair(reference, picture)
    if network not in NETWORKS:
        raise ValueError(f"there is no network {network!r}: the networks are {', '.join(NETWORKS)}")
    if min(reference.shape[:2]) < SMALLEST:
        raise ValueError(
            f"pictures are {reference.shape[1]}x{reference.shape[0]} px; ST-LPIPS compares {SMALLEST} px a side or more"
        )
    weights = _weights(network)
    both = torch.cat([from_uint8(np.ascontiguousarray(each)) for each in (reference, picture)]).float().cpu()
    both = (both - weights["scaling_layer.shift"]) / weights["scaling_layer.scale"]
    total = 0.0
    for k, features in enumerate(_features(both, NETWORKS[network], weights)):
        one, other = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
        total += float(F.conv2d((one - other).square()[None], weights[f"lin{k}.model.1.weight"]).mean())
    return total

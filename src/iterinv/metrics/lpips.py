"""LPIPS, a perceptual distance (Zhang, Isola, Efros, Shechtman, Wang, 2018), version 0.1,
https://arxiv.org/abs/1801.03924

The networks are built here. Their trained heads travel in the package ``torchmetrics``, which is in the extra
``[metrics]``; their trunks are torchvision's files of weights, which a user downloads.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iterinv.metrics.backbones import Weights, check_size, distance
from iterinv.metrics.pixels import check_pair
from iterinv.metrics.weights import check_hash, torch_command, torch_file

SMALLEST = 32
"""Pictures have this many pixels a side or more."""

SHIFT, SCALE = ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
"""Bring values in [-1, 1] to those that the trunks were trained on."""


class Network(NamedTuple):
    """A trunk: the file of its weights, and its layers as :func:`iterinv.metrics.backbones.features` reads them."""

    file: str
    layers: str


NETWORKS = {
    "alex": Network(
        "alexnet-owt-7be5be79.pth",
        "conv 0 2 4, relu, tap, pool 3 2, conv 3 2, relu, tap, pool 3 2, conv 6 1, relu, tap, conv 8 1, relu, tap, "
        "conv 10 1, relu, tap",
    ),
    "vgg": Network(
        "vgg16-397923af.pth",
        "conv 0 1, relu, conv 2 1, relu, tap, pool 2 2, conv 5 1, relu, conv 7 1, relu, tap, pool 2 2, "
        "conv 10 1, relu, conv 12 1, relu, conv 14 1, relu, tap, pool 2 2, "
        "conv 17 1, relu, conv 19 1, relu, conv 21 1, relu, tap, pool 2 2, "
        "conv 24 1, relu, conv 26 1, relu, conv 28 1, relu, tap",
    ),
    "squeeze": Network(
        "squeezenet1_1-b8a52dc0.pth",
        "conv 0 0 2, relu, tap, pool 3 2 whole, fire 3, fire 4, tap, pool 3 2 whole, fire 6, fire 7, tap, "
        "pool 3 2 whole, fire 9, tap, fire 10, tap, fire 11, tap, fire 12, tap",
    ),
}


def lpips(
    reference: np.ndarray,
    picture: np.ndarray,
    mask: np.ndarray | None = None,
    network: str = "alex",
    weights: Path | None = None,
) -> float | None:
    """Return the LPIPS of two pictures (h, w, 3) uint8 of 32 or more pixels a side: 0 for equal ones, about 1 for
    unlike ones. ``network`` is ``alex``, ``vgg`` or ``squeeze``; ``weights`` is a folder with its file.

    In a mask (h, w) bool only differences inside it count, in the mean over it; ``None`` where it is empty. Raises
    ``ModuleNotFoundError`` where heads or trunk are missing, ``ValueError`` for another network, for a file of weights
    that is damaged, for pictures that are too small, and as :func:`iterinv.metrics.pixels.check_pair` does.
    """
    check_pair(reference, picture, mask)
    if network not in NETWORKS:
        raise ValueError(f"there is no network {network!r}: the networks are {', '.join(NETWORKS)}")
    check_size(reference, SMALLEST, "LPIPS")
    if reason := missing(network, weights):
        raise ModuleNotFoundError(f"LPIPS {reason}")
    file = torch_file(NETWORKS[network].file, weights)
    assert file is not None
    return between(reference, picture, mask, network, _trunk(file))


def between(
    reference: np.ndarray, picture: np.ndarray, mask: np.ndarray | None, network: str, trunk: Weights
) -> float | None:
    """:func:`lpips` with the weights of a trunk, by the names that torchvision gives them within ``features``."""
    shift, scale = (torch.tensor(each)[None, :, None, None] for each in (SHIFT, SCALE))
    return distance(reference, picture, mask, NETWORKS[network].layers, trunk, _heads(network), shift, scale)


def missing(network: str, weights: Path | None = None) -> str | None:
    """Say in words what LPIPS lacks here and what to do; ``None`` where it can run."""
    if not _head_file(network).is_file():
        return "needs the trained heads of torchmetrics: pip install 'iterinv[metrics]'"
    file = NETWORKS[network].file
    if torch_file(file, weights) is None:
        return f"needs {file}: {torch_command(file)}"
    return None


def _head_file(network: str) -> Path:
    spec = find_spec("torchmetrics")
    folder = Path(spec.origin).parent if spec and spec.origin else Path("torchmetrics")
    return folder / "functional" / "image" / "lpips_models" / f"{network}.pth"


@cache
def _heads(network: str) -> list[Tensor]:
    loaded = torch.load(_head_file(network), map_location="cpu", weights_only=True)
    return [loaded[f"lin{k}.model.1.weight"].float() for k in range(NETWORKS[network].layers.count("tap"))]


@cache
def _trunk(file: Path) -> dict[str, Tensor]:
    check_hash(file)
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    return {name.removeprefix("features."): x for name, x in loaded.items() if name.startswith("features.")}

"""Structure distance of DINO (Tumanyan, Bar-Tal, Bagon, Dekel, 2022, "Splicing ViT Features for Semantic Appearance
Transfer"): whether the parts of two pictures are as like each other, whatever they look like."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from iterinv.images import from_uint8
from iterinv.metrics.pixels import check_pair, region_of
from iterinv.metrics.weights import hub_command, hub_folder

MODEL = "facebook/dino-vitb8"
SIDE = 224
"""The shorter side of a picture is brought to this many pixels."""

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dino_structure(
    reference: np.ndarray,
    picture: np.ndarray,
    mask: np.ndarray | None = None,
    weights: Path | None = None,
    published: bool = False,
) -> float | None:
    """Mean squared difference of two pictures' self-similarities: the cosines between the keys of all patches in the
    last layer. 0 is the same structure; pictures are (h, w, 3) uint8.

    In a mask (h, w) bool only differences inside it count: the picture is the reference outside; ``None`` where it is
    empty. ``published``: values go in as 0 to 255, which the published tables of PIE-Bench did by mistake, in place of
    0 to 1. ``weights`` is a folder that holds the model's. Raises ``ModuleNotFoundError`` without the weights.
    """
    check_pair(reference, picture, mask)
    if mask is not None and not mask.any():
        return None
    if reason := missing(weights):
        raise ModuleNotFoundError(f"the structure distance {reason}")
    folder = hub_folder(MODEL, weights)
    assert folder is not None
    scale = 255.0 if published else 1.0
    one, other = (
        self_similarity(_model(folder), each, scale) for each in (reference, region_of(reference, picture, mask))
    )
    return float((one - other).square().mean())


def missing(weights: Path | None = None) -> str | None:
    """Say in words what the structure distance lacks here and what to do; ``None`` where it can run."""
    return None if hub_folder(MODEL, weights) else f"needs {MODEL}: {hub_command(MODEL)}"


@torch.no_grad()
def self_similarity(model: Any, picture: np.ndarray, scale: float = 1.0) -> Tensor:
    """The cosines (tokens, tokens) between the keys of a vision transformer's last layer, for a picture (h, w, 3)
    uint8, whose values go in as 0 to ``scale``."""
    patch = model.config.patch_size
    x = (from_uint8(picture) + 1) / 2
    height, width = x.shape[-2:]
    shrink = SIDE / min(height, width)
    size = [max(1, round(side * shrink / patch)) * patch for side in (height, width)]
    x = F.interpolate(x, size, mode="bilinear", antialias=True) * scale
    x = (x - torch.tensor(MEAN)[None, :, None, None]) / torch.tensor(SPREAD)[None, :, None, None]
    keys: list[Tensor] = []
    names = [name for name, _ in model.named_modules() if name.endswith((".k_proj", ".key"))]
    handle = model.get_submodule(names[-1]).register_forward_hook(lambda _, __, out: keys.append(out[0]))
    try:
        model(pixel_values=x, interpolate_pos_encoding=True)
    finally:
        handle.remove()
    directions = F.normalize(keys[0], dim=-1)
    return directions @ directions.mT


@cache
def _model(folder: Path) -> Any:
    from transformers import ViTModel

    return ViTModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False).eval()

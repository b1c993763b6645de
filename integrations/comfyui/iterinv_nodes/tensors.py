"""Pictures and masks of ComfyUI, and those of iterinv."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def pictures(image: Any) -> list[np.ndarray]:
    """The pictures (h, w, 3) uint8 of an IMAGE (batch, h, w, 3) in [0, 1]. Raises ``ValueError`` for anything else."""
    values = _values(image, "image", 4)
    if values.shape[-1] != 3:
        raise ValueError(
            f"the image has {values.shape[-1]} channels; iterinv takes three: split the alpha channel off, or "
            "convert the image to RGB"
        )
    return list(np.rint(255 * values).astype(np.uint8))


def masks(mask: Any, count: int) -> list[np.ndarray]:
    """A mask (h, w) in [0, 1] for each of ``count`` pictures, of a MASK (batch, h, w) or (h, w). Raises ``ValueError``
    for anything else, and for another number of masks."""
    values = _values(mask[None] if isinstance(mask, torch.Tensor) and mask.ndim == 2 else mask, "mask", 3)
    if len(values) not in (1, count):
        raise ValueError(f"there are {len(values)} masks for {count} images: give one for all, or one for each")
    return list(values) * (count if len(values) == 1 else 1)


def image_of(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """The IMAGE (batch, h, w, 3) in [0, 1] of pictures (h, w, 3) uint8."""
    return torch.from_numpy(np.stack(arrays).astype(np.float32) / 255)


def mask_of(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """The MASK (batch, h, w) in [0, 1] of masks (h, w) float32 in [0, 1]."""
    return torch.from_numpy(np.stack(arrays).astype(np.float32))


def _values(tensor: Any, name: str, axes: int) -> np.ndarray:
    shape = "(batch, height, width, 3)" if axes == 4 else "(batch, height, width)"
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(
            f"the {name} is a {type(tensor).__name__}; it is a tensor {shape}: connect a node that makes one"
        )
    if tensor.ndim != axes or 0 in tensor.shape:
        raise ValueError(f"the {name} has the shape {tuple(tensor.shape)}; it is {shape}, and not empty")
    values = tensor.detach().cpu().float().numpy()
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise ValueError(f"the values of the {name} are not all in [0, 1]: clamp them before this node")
    return values

"""Named random streams: one CPU generator for each picture, stage and purpose.

A draw depends on its seed and its name alone, never on the size of a batch, the order of other draws or the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def stream(seed: int, *name: str | int) -> torch.Generator:
    """The generator of a seed and a name, such as ``stream(0, "low_noise", "II")``."""
    digest = hashlib.sha256(repr((seed, *name)).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw_noise(shape: Sequence[int], seeds: Sequence[int], *name: str | int) -> Tensor:
    """Unit noise (len(seeds), *shape) in float32: a row for each seed, from the stream of that name."""
    how: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    return torch.cat([torch.randn((1, *shape), generator=stream(seed, *name), **how) for seed in seeds])

"""A small network that finds broken places in a picture of a tabletop scene: ghosts, torn outlines, smears,
half-changed floors.

The reader says which scene a picture shows; this network says how well it shows it. It was trained by ``iterinv train
inspector`` on rendered pictures and on pictures made from them by faults that edits have. Its answer is a network's
estimate; the docs give how often it is right.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iterinv.embedded.reader import Block

WEIGHTS = Path(__file__).parent / "weights" / "inspector" / "inspector.safetensors"
SIZE, CELLS = 256, 32
"""Pictures are inspected at 256 px, in 32 by 32 cells."""

SURE, BROKEN = 0.6, 2
"""A picture is broken where more than so many of its cells are broken with more than this probability. Of 28 held-out
renders, half of them drawn as a network draws a good picture, none is."""


class Inspector(nn.Module):
    """Pictures (batch, 3, 256, 256) in [-1, 1] to a score of each cell (batch, 32, 32): above 0 it is broken."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 32, 4, 4), Block(32))
        self.middle = nn.Sequential(nn.Conv2d(32, 64, 4, 2, 1), Block(64), Block(64))
        self.coarse = nn.Sequential(nn.Conv2d(64, 96, 4, 2, 1), Block(96), Block(96))
        self.last = nn.Sequential(
            nn.Conv2d(160, 64, 3, padding=1), Block(64), nn.GroupNorm(8, 64), nn.SiLU(), nn.Conv2d(64, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        middle = self.middle(self.fine(x))
        coarse = F.interpolate(self.coarse(middle), scale_factor=2.0, mode="nearest")
        scores: Tensor = self.last(torch.cat([middle, coarse], 1))
        return scores[:, 0]


@cache
def load(path: Path = WEIGHTS) -> Inspector:
    """The trained inspector. Raises ``FileNotFoundError`` where its weights are not."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install iterinv again, or run `iterinv train inspector`")
    with torch.device("cpu"):
        network = Inspector().float()
    network.load_state_dict({name: x.float() for name, x in load_file(path).items()})
    return network.eval().requires_grad_(False)


@torch.no_grad()
def inspect(pictures: Tensor) -> Tensor:
    """Return the probability that each cell (batch, 32, 32) of pictures (batch, 3, 256, 256) in [-1, 1] is broken.

    Raises ``ValueError`` for pictures of another size.
    """
    if pictures.ndim != 4 or pictures.shape[1:] != (3, SIZE, SIZE):
        raise ValueError(f"pictures are {tuple(pictures.shape)}; the inspector takes (batch, 3, {SIZE}, {SIZE})")
    return load()(pictures.float()).sigmoid()


def clean(pictures: Tensor) -> list[bool]:
    """Tell of each picture whether no more than :data:`BROKEN` of its cells are surely broken."""
    return [int((cells > SURE).sum()) <= BROKEN for cells in inspect(pictures)]

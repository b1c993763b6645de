"""Conditions: everything a network is given besides the sample and its level, as named tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

FROM_PROMPT = ("text", "pooled_text", "time_ids")
"""The entries that a prompt is encoded to, and which are encoded again when an inversion is reopened."""


class Condition(Mapping[str, Tensor]):
    """Named tensors (rows, ...), made once a picture. A prompt is one condition, the negative prompt another.

    ``text`` (rows, tokens, width) is the encoded prompt, ``pooled_text`` (rows, width) the prompt as a whole, and
    ``time_ids`` (rows, 6) are SDXL's. ``guidance`` (rows,) is the guidance scale that a distilled network takes as an
    input (FLUX.1-dev): it stays where the prompt changes, and is not the scale of classifier-free guidance.
    ``low_image`` (rows, 3, h, w) in [-1, 1] is the picture of the stage below and ``low_noise`` (rows, 3, H,
    W), at the size of the states, the noise that is drawn on it. An entry of one row holds for every picture of a
    batch. ``notes`` are sentences on the prompt that a user should read.
    """

    def __init__(self, tensors: Mapping[str, Tensor], notes: Sequence[str] = ()) -> None:
        self._tensors, self.notes = dict(tensors), tuple(notes)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __eq__(self, other: object) -> bool:
        return self is other  # guidance asks whether two conditions are one

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Condition({', '.join(f'{name} {tuple(x.shape)}' for name, x in self.items())})"

    def updated(self, **tensors: Tensor) -> Condition:
        """The condition with some entries in place of its own."""
        return Condition({**self._tensors, **tensors}, self.notes)

    def only(self, *names: str) -> Condition:
        """The condition of some entries alone, as far as it has them."""
        return Condition({name: x for name, x in self.items() if name in names})

    def at(self, height: int, width: int) -> Condition:
        """The condition for pictures of another height and width in px, which SDXL's ``time_ids`` hold: original size,
        crop, target size."""
        if "time_ids" not in self:
            return self
        ids = self["time_ids"].new_tensor([[height, width, 0, 0, height, width]])
        return self.updated(time_ids=ids.expand(len(self["time_ids"]), -1))

    def without(self, *names: str) -> Condition:
        """The condition but for some entries."""
        return Condition({name: x for name, x in self.items() if name not in names})

    def row(self, k: int) -> Condition:
        """The condition of the ``k``-th picture of a batch."""
        return Condition({name: x if len(x) == 1 else x[k : k + 1] for name, x in self.items()})

    def expand(self, rows: int) -> Condition:
        """The condition with every entry in ``rows`` rows."""
        return Condition({name: x if len(x) == rows else x.expand(rows, *x.shape[1:]) for name, x in self.items()})

    @staticmethod
    def stack(conditions: Sequence[Condition], rows: int) -> Condition:
        """Conditions one after another, ``rows`` rows each, for one batch through the network."""
        each = [condition.expand(rows) for condition in conditions]
        return Condition({name: torch.cat([condition[name] for condition in each]) for name in each[0]})


def enlarged(low_image: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture (batch, 3, h, w) of the stage below at a larger size: bilinear with aligned corners, as IF's pipelines
    do."""
    return F.interpolate(low_image, size, mode="bilinear", align_corners=True)

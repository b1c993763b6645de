"""A small network that reads a scene's attributes from its picture. In the embedded world it takes the place of CLIP
and DINO.

It was trained by ``iterinv train reader`` on rendered pictures; the docs give its accuracy on others. Its
answer on an edit or a sample is a network's estimate, not the renderer's truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iterinv.embedded.scenes.caption import side
from iterinv.embedded.scenes.scene import OF_SCENE, OF_THING, Scene

WEIGHTS = Path(__file__).parent / "weights" / "reader" / "reader.safetensors"
SIZE = 64
"""Pictures are read at this many pixels a side; larger ones are averaged down."""

WIDTHS, FEATURES = (32, 64, 128), 256
QUESTIONS: dict[str, tuple[str, ...]] = {
    "count": ("none", "one", "two"),
    "side": ("left", "middle", "right"),
    **{f"{k} {name}": values for k in (0, 1) for name, values in OF_THING.items()},
    **OF_SCENE,
}
"""The questions and the possible answers: thing 0 is the one to the left, and the side is a single thing's."""


class ThingAttributes(NamedTuple):
    """The attributes that the reader predicts for a thing."""

    shape: str
    color: str
    material: str
    size: str


class SceneAttributes(NamedTuple):
    """The attributes that the reader predicts for a scene: its things from left to right, floor, wall, side of the
    light, and the side of a single thing, "left", "middle" or "right"; that is empty for none or two."""

    things: tuple[ThingAttributes, ...]
    floor: str
    wall: str
    light: str
    side: str = ""

    @classmethod
    def of(cls, scene: Scene) -> SceneAttributes:
        """Return the true attributes of a scene."""
        things = tuple(ThingAttributes(each.shape, each.color, each.material, each.size) for each in scene.things)
        return cls(things, scene.floor, scene.wall, scene.light, _side(scene))


def _side(scene: Scene) -> str:
    return side(scene.things[0]) or "middle" if len(scene.things) == 1 else ""


def answers(scene: Scene) -> list[int]:
    """The right answer to each of :data:`QUESTIONS`; -1 where there is none, since no such thing stands there."""
    place = _side(scene)
    indices = [len(scene.things), QUESTIONS["side"].index(place) if place else -1]
    for k in (0, 1):
        thing = scene.things[k] if k < len(scene.things) else None
        indices += [-1 if thing is None else values.index(getattr(thing, name)) for name, values in OF_THING.items()]
    return indices + [values.index(getattr(scene, name)) for name, values in OF_SCENE.items()]


class Block(nn.Module):
    """Two normalised convolutions of one width, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.silu(norm(y)))
        return x + y


class Reader(nn.Module):
    """Pictures (batch, 3, 64, 64) in [-1, 1] to scores of all answers, one tensor a question."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(before, width, 4, 2, 1), Block(width), Block(width)]
        self.body = nn.Sequential(
            *layers, nn.GroupNorm(8, WIDTHS[-1]), nn.SiLU(), nn.Conv2d(WIDTHS[-1], 24, 1), nn.Flatten()
        )
        self.features = nn.Linear(24 * (SIZE >> len(WIDTHS)) ** 2, FEATURES)
        self.heads = nn.ModuleList(nn.Linear(FEATURES, len(values)) for values in QUESTIONS.values())

    def look(self, x: Tensor) -> Tensor:
        """The features (batch, 256) that all answers are read from."""
        return F.silu(self.features(self.body(x)))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self.look(x)
        return [head(features) for head in self.heads]


@cache
def load(path: Path = WEIGHTS) -> Reader:
    """The trained reader. Raises ``FileNotFoundError`` where its weights are not."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install iterinv again, or run `iterinv train reader`")
    with torch.device("cpu"):
        network = Reader().float()  # whatever torch's default dtype is
    network.load_state_dict({name: x.float() for name, x in load_file(path).items()})
    return network.eval().requires_grad_(False)


def _small(pictures: Tensor) -> Tensor:
    """Scale pictures down. Raises ``ValueError`` for pictures that are not square or too small."""
    if (
        pictures.ndim != 4
        or pictures.shape[1] != 3
        or pictures.shape[2] != pictures.shape[3]
        or pictures.shape[2] < SIZE
    ):
        raise ValueError(
            f"pictures are {tuple(pictures.shape)}; the reader takes (batch, 3, n, n) with n of {SIZE} or more"
        )
    return F.interpolate(pictures.float(), (SIZE, SIZE), mode="area")


@torch.no_grad()
def features(pictures: Tensor) -> Tensor:
    """Return features (batch, 256) of pictures (batch, 3, n, n) in [-1, 1], n of 64 or more, for Fréchet distances."""
    return load().look(_small(pictures))


@torch.no_grad()
def read(pictures: Tensor) -> list[SceneAttributes]:
    """Read each of the pictures (batch, 3, n, n) in [-1, 1], n of 64 or more."""
    return most_likely(load()(_small(pictures)))


def most_likely(scores: Sequence[Tensor]) -> list[SceneAttributes]:
    """Return the attributes with the highest scores for each picture."""
    rows = torch.stack([each.argmax(1) for each in scores], 1).tolist()
    scenes = []
    for row in rows:
        answer = {name: values[k] for (name, values), k in zip(QUESTIONS.items(), row, strict=True)}
        things = tuple(ThingAttributes(*(answer[f"{k} {name}"] for name in OF_THING)) for k in range(row[0]))
        place = answer["side"] if len(things) == 1 else ""
        scenes.append(SceneAttributes(things, answer["floor"], answer["wall"], answer["light"], place))
    return scenes

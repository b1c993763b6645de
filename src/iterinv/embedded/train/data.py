"""Training data of the embedded cascade: rendered scenes, and crops of photographs that installed libraries carry.

Pictures are rendered once, by all cores, into ``scenes-{size}-{count}.npy`` (count, size, size, 3) uint8: row ``k`` is
:func:`scene` of seed ``k``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from iterinv.embedded.scenes import Scene, render
from iterinv.embedded.seeds import HELD_OUT
from iterinv.evaluate.folder import processes, read_array, write_array

# Astronaut, coffee and chelsea are left out: the benchmarks invert them as photographs never seen.
PHOTOGRAPHS = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "skimage": (
        "data/rocket.jpg",
        "data/motorcycle_left.png",
        "data/motorcycle_right.png",
        "data/ihc.png",
        "data/retina.jpg",
        "data/hubble_deep_field.jpg",
    ),
}


EMPTY = 12
"""One in this many of the scenes to train on is an empty table, so that the only thing of a scene can be removed."""


def scene(seed: int) -> Scene:
    """Return the scene of a seed. Of the seeds to train on, those below :data:`HELD_OUT`, some are empty tables."""
    empty = seed < HELD_OUT and seed % EMPTY == EMPTY - 1
    return Scene.random(seed, things=0 if empty else None)


def _draw(task: tuple[int, int]) -> np.ndarray:
    seed, size = task
    return to_uint8(render(scene(seed), size))


def to_uint8(x: Tensor) -> np.ndarray:
    """(3, h, w) in [-1, 1] to (h, w, 3) uint8."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def rendered(path: Path, draw: Callable[[Any], np.ndarray], tasks: Sequence[Any], size: int, what: str) -> None:
    """Draw a picture (size, size, 3) uint8 of each task by all cores, and write them to ``path`` in their order."""
    from iterinv.cli.session import progress

    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.empty((len(tasks), size, size, 3), np.uint8)
    with processes() as pool, progress() as drawing:
        for k, picture in enumerate(pool.imap(draw, tasks, chunksize=20)):
            pictures[k] = picture
            drawing.step(what, k + 1, len(tasks))
    write_array(path, pictures)


def scenes(folder: Path, size: int, count: int, first: int = 0) -> np.ndarray:
    """Return the rendered scenes of ``count`` seeds from ``first`` on (count, size, size, 3) uint8. They are drawn now
    if they are not on disk yet, or if the first and last there are of other scenes."""
    path = folder / (f"scenes-{size}-{count}.npy" if first == 0 else f"scenes-{size}-{first}-{count}.npy")
    there = read_array(path, count, (size, size, 3))
    if there is None or not _is_of(there, size, first):
        tasks = [(first + k, size) for k in range(count)]
        rendered(path, _draw, tasks, size, f"rendering {count} scenes at {size} px")
    return np.load(path, mmap_mode="r")


def _is_of(pictures: np.ndarray, size: int, first: int) -> bool:
    """Tell whether pictures are the renders of these seeds, up to the rounding of another machine."""
    ends = {0, len(pictures) - 1}
    return all(np.abs(pictures[k].astype(int) - _draw((first + k, size))).mean() < 1 for k in ends)


def photographs(size: int, shortest: tuple[int, ...] = (256, 320, 420)) -> list[Tensor]:
    """Photographs (3, h, w) in [-1, 1], each at several scales: the shorter side is one of ``shortest``, at least
    ``size``."""
    pictures = []
    for package, names in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(
                f"training reads photographs that ship inside {package}: pip install 'iterinv[train]'"
            )
        for name in names:
            with Image.open(Path(spec.origin).parent / name) as file:
                x = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1
            for side in shortest:
                scale = max(side, size) / min(x.shape[1:])
                if scale <= 1:
                    h, w = (round(n * scale) for n in x.shape[1:])
                    pictures.append(F.interpolate(x[None], (h, w), mode="area")[0])
    return pictures

"""Rendered datasets: held-out scenes to invert, and SceneEdit, whose edits have a true answer and a true region."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iterinv.evaluate.datasets.task import Dataset, Task, digest_of

if TYPE_CHECKING:
    from iterinv.embedded.scenes import Scene
    from iterinv.images import Picture

COUNT = 100
"""Tasks where no number is given."""


def scenes(words: str, count: int | None) -> Dataset:
    """Held-out scenes, no edits; the first seed is ``words``, that of benchmarks if it is empty. Raises ``ValueError``
    for another text."""
    from iterinv.embedded.scenes import Scene, caption
    from iterinv.embedded.seeds import HELD_OUT

    if words and not words.isdecimal():
        raise ValueError(f"scenes:{words} is no dataset: write scenes, or scenes: and the first seed")
    first = int(words) if words else HELD_OUT
    keys = [f"scenes/{first + k}" for k in range(count or COUNT)]

    def make(k: int, size: int) -> Task:
        scene = Scene.random(first + k)
        return Task(keys[k], _drawn(scene, size), caption(scene))

    return Dataset("scenes", keys, [False] * len(keys), digest_of(["scenes", first]), make)


def scene_edit(words: str, count: int | None) -> Dataset:
    """Tasks of SceneEdit: scene after scene, each by every kind; ``words`` are kinds with commas between them, all if
    it is empty. Raises ``ValueError`` for another kind."""
    from iterinv.embedded.evaluate import tasks
    from iterinv.embedded.seeds import SCENE_EDIT

    kinds = [each.strip() for each in words.split(",") if each.strip()] or list(tasks.KINDS)
    for kind in kinds:
        tasks.scene_edit(0, kind)
    named = [(kinds[k % len(kinds)], SCENE_EDIT + k // len(kinds)) for k in range(count or COUNT)]
    keys = [f"scene-edit/{kind}/{seed}" for kind, seed in named]

    def make(k: int, size: int) -> Task:
        kind, seed = named[k]
        task = tasks.scene_edit(seed, kind)
        pictures = (_drawn(each, size) for each in (task.source, task.target))
        return Task(keys[k], next(pictures), task.prompt, task.to, task.region(size)[0].numpy(), next(pictures), kind)

    return Dataset("scene-edit", keys, [True] * len(keys), digest_of(["scene-edit", kinds]), make)


def _drawn(scene: Scene, size: int) -> Picture:
    """The render (size, size, 3) uint8."""
    from iterinv.embedded.scenes import render
    from iterinv.images import to_uint8

    return to_uint8(render(scene, size)[None])

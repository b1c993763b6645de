"""Helpers of the benchmarks: the folder of results, the machine they were made on, and the pictures they use."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iterinv import images
from iterinv.cascade import Cascade, load
from iterinv.embedded.scenes import COLORS, Scene
from iterinv.embedded.seeds import HELD_OUT
from iterinv.evaluate.folder import append_line, processes, read_lines
from iterinv.images import Canvas
from iterinv.manifest import versions

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "benchmarks"
PHOTOGRAPHS = {"astronaut": "astronaut.png", "coffee": "coffee.png", "chelsea": "chelsea.png"}


def shipped() -> dict[str, tuple[np.ndarray, str]]:
    """The pictures under ``examples/`` and their captions."""
    pictures = {}
    for text in sorted((ROOT / "examples").glob("*.txt")):
        pictures[text.stem] = images.read(text.with_suffix(".png"))[0], text.read_text(encoding="utf-8").strip()
    return pictures


def photographs() -> dict[str, tuple[np.ndarray, str]]:
    """Photographs that scikit-image carries and that the cascade was not trained on. No words: it knows none for
    them."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    return {name: (images.read(folder / file)[0], "") for name, file in PHOTOGRAPHS.items()}


RESUMED = "What was done before was not done again; commit, time and machine below are those of the last run alone."
"""For pages of benchmarks that go on from what is there."""


def short(cascade: Cascade) -> str:
    """A name for a cascade's weights, for folders."""
    return "".join(stage.fingerprint[:4] for stage in cascade.stages)


@cache
def shipping(stages: int = 3) -> str:
    """The name of the weights that ship now, of the first stages of the cascade."""
    return short(Cascade(load().stages[:stages]))


def measured(file: Path, stages: int = 3) -> list[dict[str, Any]]:
    """The rows of a file that were measured on the weights that ship now, by runs of the first stages alone."""
    name = shipping(stages)
    return [row for row in read_lines(file) if str(row.get("weights"))[: len(name)] == name]


def measure(file: Path, work: Callable[[Any], list[dict[str, Any]]], jobs: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Do ``work`` on each of the jobs, by a process for each core, and add the rows that it returns to a file; yield
    each row once it is written."""
    with processes() as pool:
        for rows in pool.imap_unordered(work, jobs):
            for row in rows:
                append_line(file, {**row, "commit": COMMIT, "weights": shipping()})
                yield row


def square(picture: np.ndarray, size: int) -> Canvas:
    return Canvas.fit(picture, (size, size), "crop")[0]


def recolourings(count: int) -> list[tuple[Scene, Scene]]:
    """Held-out scenes of one thing, each with the same scene in another colour: source and true answer."""
    names, pairs = list(COLORS), []
    for k in range(count):
        scene = Scene.random(HELD_OUT + k, things=1)
        now = names.index(scene.things[0].color)
        pairs.append((scene, scene.with_(color=names[(now + 1 + k % (len(names) - 1)) % len(names)])))
    return pairs


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


STAGES = "stage I", "stage II", "stage III"
"""The networks of the cascade, small to large."""

PARTS = {name: f"cascade/stage{k}" for k, name in enumerate(STAGES, 1)} | {"reader": "reader", "inspector": "inspector"}
"""The networks that ship with the package, and the folder of the weights of each."""


def weights(part: str) -> str:
    """A name for the weights of one of :data:`PARTS` that ship now."""
    digest = hashlib.sha256()
    for file in sorted((ROOT / "src" / "iterinv" / "embedded" / "weights" / PARTS[part]).rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def publish(name: str, title: str, body: str, began: float, uses: Sequence[str] = STAGES) -> None:
    """Print a result and write it to ``docs/benchmarks/{name}.md`` with what it was made on; ``uses`` are the networks
    of :data:`PARTS` that the figures depend on."""
    made = ", ".join(f"{k} {v}" for k, v in versions().items())
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads of {_processor()}"
    networks = "".join(f"; {part} {weights(part)}" for part in uses)
    run = f"`python benchmarks/{name}.py` at {COMMIT} in {time.time() - began:.0f} s"
    foot = f"Made by {run}: {machine}{networks}; {made}."
    text = f"# {title}\n\n{body.strip()}\n\n{foot}\n"
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def commit() -> str:
    """The commit that is checked out, and whether anything but what benchmarks write was changed since."""
    head, changed = (
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", ".", ":!docs/benchmarks"])
    )
    return f"{head}-dirty" if changed else head or "no commit"


COMMIT = commit()  # of the code that is loaded: the tree may change while it works


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "an unnamed processor"
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "an unnamed processor")

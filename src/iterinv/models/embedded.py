"""The cascade that comes with the package: 32, 64, 256 px, trained on the scenes of :mod:`iterinv.scenes`.

Its weights are three ordinary diffusers folders beside a ``cascade.json``; ``iterinv train all`` makes them again.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from iterinv.models import Stage, pipelines
from iterinv.scenes import vocabulary

FOLDER = Path(__file__).parents[1] / "weights" / "embedded"


def load(folder: Path = FOLDER, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Stage, ...]:
    """The stages of a cascade folder: ``cascade.json`` names the stages' folders and the noise level between them.

    Raises ``FileNotFoundError`` for a folder without it, ``ValueError`` for a file that does not say so.
    """
    file = folder / "cascade.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no cascade.json; give a folder that `iterinv train pack` wrote")
    cascade = pipelines.read_json(file)
    names, noise_level = cascade.get("stages"), cascade.get("noise_level")
    if not isinstance(names, list) or not names or not isinstance(noise_level, int):
        raise ValueError(f'{file} must hold "stages", a list of folders from small to large, and "noise_level", a number')
    stages: list[Stage] = []
    for k, name in enumerate(names):
        pipe = pipelines.open_folder(folder / str(name), k, dtype, device)
        stages.append(pipelines.stage(pipe, k, stages[-1] if stages else None, noise_level))
    return tuple(stages)


def unknown_words(prompt: str) -> list[str]:
    """The prompt's words that the embedded cascade was not trained on, in order, each once."""
    known = set(vocabulary())
    return list(dict.fromkeys(word for word in re.findall(r"[^\W_]+", prompt.lower()) if word not in known))

"""The cascade that comes with the package: 32, 64, 256 px, trained on the scenes of :mod:`iterinv.scenes`.

Its weights are three ordinary diffusers folders beside a ``cascade.json``; ``iterinv train all`` makes them again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from iterinv.models import Stage, deepfloyd
from iterinv.scenes import vocabulary

FOLDER = Path(__file__).parents[1] / "weights" / "embedded"


def load(folder: Path = FOLDER, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Stage, ...]:
    """The stages of a cascade folder: ``cascade.json`` names the stages' folders and the noise level between them."""
    file = folder / "cascade.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no cascade.json; give a folder that `iterinv train pack` wrote")
    cascade = json.loads(file.read_text(encoding="utf-8"))
    folders = [folder / name for name in cascade["stages"]]
    return deepfloyd.load(folders, dtype, device, cascade["noise_level"])


def unknown_words(prompt: str) -> list[str]:
    """The prompt's words that the embedded cascade was not trained on, in order, each once."""
    known = set(vocabulary())
    return list(dict.fromkeys(word for word in re.findall(r"[^\W_]+", prompt.lower()) if word not in known))

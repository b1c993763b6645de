"""The cascade that comes with the package: 32, 64, 256 px, trained on the scenes of :mod:`iterinv.scenes`.

Its weights are three ordinary diffusers folders beside a ``cascade.json``; ``iterinv train all`` makes them again.
"""

from __future__ import annotations

import re
from pathlib import Path

from iterinv.models.pipelines import read_json
from iterinv.scenes import vocabulary

FOLDER = Path(__file__).parents[1] / "weights" / "embedded"


def parts(folder: Path = FOLDER) -> tuple[list[Path], int]:
    """The stages' folders of a cascade folder, small to large, and the label of the noise between them, as its
    ``cascade.json`` names them.

    Raises ``FileNotFoundError`` for a folder without it, ``ValueError`` for a file that does not say so.
    """
    file = folder / "cascade.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no cascade.json; give a folder that `iterinv train pack` wrote")
    cascade = read_json(file)
    names, noise_level = cascade.get("stages"), cascade.get("noise_level")
    if not isinstance(names, list) or not names or not isinstance(noise_level, int):
        raise ValueError(f'{file} must hold "stages", a list of folders from small to large, and "noise_level", a number')
    return [folder / str(name) for name in names], noise_level


def unknown_words(prompt: str) -> list[str]:
    """The prompt's words that the embedded cascade was not trained on, in order, each once."""
    known = set(vocabulary())
    return list(dict.fromkeys(word for word in re.findall(r"[^\W_]+", prompt.lower()) if word not in known))

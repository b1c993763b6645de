"""The cascade that comes with the package: 32, 64, 256 px, trained on the scenes of :mod:`iterinv.scenes`.

Its weights are three ordinary diffusers folders beside a ``cascade.json``; ``iterinv train all`` makes them again.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from iterinv.models.pipelines import read_json
from iterinv.scenes import vocabulary

FOLDER = Path(__file__).parents[1] / "weights" / "embedded"

SUMS = "SHA256SUMS"
"""Of a cascade folder, the hashes of its files, as `sha256sum --check` reads them."""


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


def seal(folder: Path) -> None:
    """Write down the hashes of a folder's files, for :func:`damaged`."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    lines = (f"{sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def damaged(folder: Path) -> list[str]:
    """Which of a sealed folder's files are missing or other than they were."""
    told = (line.split("  ", 1) for line in (folder / SUMS).read_text(encoding="utf-8").splitlines())
    return [name for hashed, name in told if not (folder / name).is_file() or sha256(folder / name) != hashed]


def sha256(file: Path) -> str:
    """A file's hash, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def unknown_words(prompt: str) -> list[str]:
    """The prompt's words that the embedded cascade was not trained on, in order, each once."""
    known = set(vocabulary())
    return list(dict.fromkeys(word for word in re.findall(r"[^\W_]+", prompt.lower()) if word not in known))

"""Cascade folders: a ``cascade.json`` that names the stages' folders, and the hashes of all files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from iterinv.files import whole
from iterinv.models.pipelines import read_json

SUMS = "SHA256SUMS"
"""The hashes of a cascade folder's files, as `sha256sum --check` reads them."""


def parts(folder: Path) -> tuple[list[Path], int]:
    """The stages' folders of a cascade folder, small to large, and the timestep of the noise between them.

    Raises ``FileNotFoundError`` for a folder without a ``cascade.json``, ``ValueError`` for a file without these
    entries.
    """
    file = folder / "cascade.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} holds no cascade.json and no model_index.json; give a folder that `iterinv train pack` wrote, "
            "or that of a diffusers pipeline"
        )
    cascade = read_json(file)
    names, noise_level = cascade.get("stages"), cascade.get("noise_level")
    if not isinstance(names, list) or not names or not isinstance(noise_level, int):
        raise ValueError(
            f'{file} must hold "stages", a list of folders from small to large, and "noise_level", a number'
        )
    return [folder / str(name) for name in names], noise_level


def seal(folder: Path) -> None:
    """Write the hashes of a folder's files, for :func:`damaged`."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    lines = (f"{sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    with whole(folder / SUMS) as file:
        file.write("".join(lines).encode())


def damaged(folder: Path) -> list[str]:
    """The files of a sealed folder that are missing or differ from their hash."""
    lines = (line.split("  ", 1) for line in (folder / SUMS).read_text(encoding="utf-8").splitlines())
    return [name for digest, name in lines if not (folder / name).is_file() or sha256(folder / name) != digest]


def sha256(file: Path) -> str:
    """The hash of a file, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

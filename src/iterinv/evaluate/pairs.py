"""Pairs of picture files: two files, or the files of two folders that have the same path in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from iterinv import images
from iterinv.evaluate.suffixes import SUFFIXES
from iterinv.masks import resized
from iterinv.reading import read_mask

NAMED = 5
"""A note names so many files at most."""


class Pair(NamedTuple):
    """A reference's file, a picture's and a mask's, and their name in the results."""

    name: str
    reference: Path
    picture: Path
    mask: Path | None = None


def pairs(a: Path, b: Path, mask: Path | None = None) -> tuple[list[Pair], list[str]]:
    """The pairs of two files or two folders, and notes that name the files without a partner.

    Files of two folders are partners by their path in the folder; by the path without its ending where just one file of
    each folder has it. A mask is one file for all pairs, or a folder whose files are partners too. Raises
    ``FileNotFoundError`` for a path that is not there, and ``ValueError`` for a file and a folder, for folders without
    pictures or without partners, and for a picture without a mask.
    """
    for each in (a, b, *([mask] if mask else [])):
        if not each.exists():
            raise FileNotFoundError(f"{each}: there is no file or folder of this name")
    if a.is_dir() != b.is_dir():
        folder, file = (a, b) if a.is_dir() else (b, a)
        raise ValueError(f"{folder} is a folder and {file} is a file: give two pictures or two folders")
    if not a.is_dir():
        if mask is not None and mask.is_dir():
            raise ValueError(f"{mask} is a folder: give the mask of two pictures as a file")
        return [Pair(b.name, a, b, mask)], []
    there, here = _inside(a), _inside(b)
    matched = {name: partner for name in there if (partner := _partner(name, there, here))}
    if not matched:
        raise ValueError(f"no picture in {a} has a partner of the same path in {b}: name the files alike")
    notes = []
    for folder, alone in ((a, set(there) - set(matched)), (b, set(here) - set(matched.values()))):
        if alone:
            notes.append(f"{len(alone)} in {folder} without a partner: {_listed(sorted(alone))}")
    masks = _inside(mask) if mask is not None and mask.is_dir() else None
    result = []
    for name, partner in matched.items():
        own = mask
        if masks is not None:
            own_name = _partner(name, there, masks)
            if own_name is None:
                raise ValueError(f"{mask} holds no mask for {name}: add it under the same path")
            own = masks[own_name]
        result.append(Pair(name, there[name], here[partner], own))
    return result, notes


def read_pair(
    pair: Pair, resize: bool, note: Callable[[str, str], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The pictures (h, w, 3) uint8 of a pair and its mask (h, w) bool, true where the file is not black.

    ``resize``: a picture and a mask of another size are brought to the reference's. ``note`` is called with a sentence
    on what was converted, and with a file's name. Raises ``ValueError`` for a file that cannot be read, another size
    without ``resize``, and a mask that is black all over.
    """
    reference, notes = images.read(pair.reference)
    for text in notes:
        note(text, pair.reference.name)
    picture, notes = images.read(pair.picture)
    for text in notes:
        note(text, pair.picture.name)
    height, width = reference.shape[:2]
    if picture.shape != reference.shape:
        _check_resize(resize, pair.reference, reference, pair.picture, picture)
        note(f"resized from {_size(picture)} to the reference's {width}x{height} px (Lanczos)", pair.picture.name)
        picture = np.asarray(images.to_pil(picture).resize((width, height), Image.Resampling.LANCZOS))
    if pair.mask is None:
        return reference, picture, None
    mask = read_mask(pair.mask) > 0
    if not mask.any():
        raise ValueError(f"{pair.mask} is black all over: a mask is white inside")
    if mask.shape != (height, width):
        _check_resize(resize, pair.reference, reference, pair.mask, mask)
        note(f"resized from {_size(mask)} to the reference's {width}x{height} px", pair.mask.name)
        mask = resized(mask.astype(np.float32), height, width) > 0
    if mask.all():
        note("the mask covers all of the picture, so nothing is outside", pair.mask.name)
    return reference, picture, mask


def _check_resize(resize: bool, first: Path, reference: np.ndarray, second: Path, other: np.ndarray) -> None:
    if not resize:
        raise ValueError(
            f"{first} is {_size(reference)} px and {second} is {_size(other)}: files of one size are compared; "
            "--resize brings the second to the first's"
        )


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


def _inside(folder: Path) -> dict[str, Path]:
    """The picture files in a folder and below, by their path in it. Raises ``ValueError`` where there is none."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise ValueError(f"{folder} holds no pictures: give a folder with PNG, JPEG or other picture files in it")
    return {file.relative_to(folder).as_posix(): file for file in files}


def _partner(name: str, own: dict[str, Path], others: dict[str, Path]) -> str | None:
    """The name of a file's partner: the same name, else the one of the same name but for its ending."""
    if name in others:
        return name
    bare = _bare(name)
    alike = [other for other in others if _bare(other) == bare]
    return alike[0] if len(alike) == 1 and sum(_bare(each) == bare for each in own) == 1 else None


def _bare(name: str) -> str:
    return name.rpartition(".")[0]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")

"""Output folders that get all of their files or none."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def outputs(folder: Path) -> Iterator[Path]:
    """A staging folder whose files move to ``folder`` when the block ends well, and vanish when it does not.

    Files of the same names are replaced; they come back if not all can be. Raises ``OSError`` at once if ``folder``
    cannot be written.
    """
    made: list[Path] = []
    staging = folder / f".iterinv-{secrets.token_hex(8)}"  # named before it is made: a stop may come right after
    try:
        try:
            made = [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            staging.mkdir(mode=0o700)
        except OSError as error:
            raise OSError(f"the output folder {folder} cannot be written ({error.strerror or error})") from None
        yield staging
        _move(staging, folder)
        shutil.rmtree(staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        _remove(made)
        raise


def _move(staging: Path, folder: Path) -> None:
    """Move all files of a folder to another, or none."""
    files = sorted(staging.iterdir())
    for target in (folder / file.name for file in files):
        if target.is_dir():
            raise OSError(f"{target} is a folder, and a file of that name is to be written: choose another --out")
    before = staging / "before"
    before.mkdir()
    try:
        for file in files:
            target = folder / file.name
            if target.exists():
                target.replace(before / file.name)
            file.replace(target)
    except BaseException:
        for file in files:
            if not file.exists():
                (folder / file.name).replace(file)
            if (before / file.name).exists():
                (before / file.name).replace(folder / file.name)
        raise


def _remove(made: list[Path]) -> None:
    """Remove the folders that were made, innermost first, as far as they are empty."""
    for each in made:
        if not each.is_dir() or any(each.iterdir()):
            break
        each.rmdir()

"""Output folders that receive all of their files or none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from iterinv.files import FULL, UNFINISHED, CannotWrite, clean, lock, same_file, unfinished


@contextmanager
def outputs(folder: Path, inputs: Sequence[Path] = (), names: Sequence[str] = ()) -> Iterator[Path]:
    """A staging folder whose files move to ``folder`` when the block ends well, and vanish when it does not.

    Files of the same names are replaced; they come back if not all can be. A run that is killed while its files move
    leaves some of them to the next run on the folder, which first moves the others; one that is killed earlier leaves a
    staging folder, which the next run removes. Raises ``OSError`` at once if ``folder`` cannot be written or another
    run writes to it, ``ValueError`` if one of ``inputs`` would be replaced: at once by one of ``names``, else before
    anything is moved.
    """
    made: list[Path] = []
    staging, descriptor = unfinished(folder), None  # named before it is made: a stop may come right after
    moving = staging.with_suffix(".whole")
    try:
        try:
            made = [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            if (free := lock(descriptor)) is False:
                made = []  # they are the other run's
            else:
                _refuse_inputs(folder, names, inputs)
                if free:
                    clean(folder)
                    _recover(folder)
                staging.mkdir(mode=0o700)
        except OSError as error:
            raise CannotWrite(f"the output folder {folder}", error, "choose another --out") from None
        if free is False:
            raise OSError(f"another run is writing to {folder}: wait until it ends, or choose another --out")
        yield staging
        files = [file.name for file in staging.iterdir()]
        _refuse_inputs(folder, files, inputs)
        for target in (folder / name for name in files):
            if target.is_dir():
                raise OSError(f"{target} is a folder, and a result has the same name: choose another --out")
        staging.rename(moving)
        _move(moving, folder)
        shutil.rmtree(moving)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(moving, ignore_errors=True)
        _remove(made)
        if isinstance(error, OSError) and (isinstance(error, CannotWrite) or error.errno in FULL):
            raise CannotWrite(f"the output folder {folder}", error, "choose another --out") from None
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _refuse_inputs(folder: Path, names: Sequence[str], inputs: Sequence[Path]) -> None:
    """Raise where a file of ``names`` in a folder is one of the inputs."""
    for target in (folder / name for name in names):
        if same_file(target, inputs):
            raise ValueError(f"a result would replace {target}, which this command reads: choose another --out")


def _recover(folder: Path) -> None:
    """Move the files that a killed run was moving, and remove the folders of other killed runs."""
    for each in list(folder.iterdir()):
        if (match := UNFINISHED.fullmatch(each.name)) and each.is_dir() and not each.is_symlink():
            for file in each.iterdir() if match[1] else ():
                if file.is_file() and not (folder / file.name).is_dir():
                    file.replace(folder / file.name)
            shutil.rmtree(each)


def _move(moving: Path, folder: Path) -> None:
    """Move all files of a folder to another, or none."""
    files = sorted(moving.iterdir())
    before = moving / "before"
    before.mkdir()
    try:
        for file in files:
            target = folder / file.name
            if os.path.lexists(target):
                target.replace(before / file.name)
            file.replace(target)
    except BaseException:
        for file in files:
            if not file.exists():
                (folder / file.name).replace(file)
            if os.path.lexists(before / file.name):
                (before / file.name).replace(folder / file.name)
        raise


def _remove(made: list[Path]) -> None:
    """Remove the folders that were made, innermost first, as far as they are empty."""
    for each in made:
        if not each.is_dir() or any(each.iterdir()):
            break
        each.rmdir()

"""PIE-Bench (Ju, Zeng, Bian, Liu, Xu, 2023, https://arxiv.org/abs/2310.01506): 700 pictures of 512 px with two prompts
and the region of the edit. A folder with ``mapping_file.json`` and ``annotation_images``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iterinv.evaluate.datasets.lines import read_text
from iterinv.evaluate.datasets.task import BadDataset, Dataset, Task, digest_of, key_of, listed, words_of

if TYPE_CHECKING:
    import numpy as np

FILE, PICTURES, SIDE = "mapping_file.json", "annotation_images", 512
KINDS = (
    "random",
    "change object",
    "add object",
    "delete object",
    "change content",
    "change pose",
    "change colour",
    "change material",
    "change background",
    "change style",
)
"""Kinds of edit, by ``editing_type_id``."""


def recognises(where: Path) -> bool:
    """Tell whether a path is such a folder or its mapping file."""
    return where.name == FILE if where.is_file() else (where / FILE).is_file()


def opened(where: Path) -> Dataset:
    """The tasks of the folder or its mapping file; a key is the picture's path. Raises :class:`BadDataset`."""
    file = where if where.is_file() else where / FILE
    try:
        entries = json.loads(read_text(file))
    except BadDataset:
        raise
    except (ValueError, RecursionError) as error:
        raise BadDataset(f"{file} is not JSON ({error}): copy it again") from None
    if not isinstance(entries, dict) or not all(isinstance(each, dict) for each in entries.values()):
        raise BadDataset(f"{file} is no mapping of entries, as PIE-Bench has it: copy it again")
    tasks = [_task(file, name, entry) for name, entry in entries.items()]
    runs = [_checked(entry.get("mask"), f"entry {name} of {file}") for name, entry in entries.items()]
    dataset = listed("pie-bench", file, tasks)
    digest = digest_of([dataset.digest, [each.tolist() for each in runs]])
    return replace(dataset, digest=digest, make=lambda k, _: replace(tasks[k], mask=mask_of(runs[k])))


def _task(file: Path, name: str, entry: dict[str, Any]) -> Task:
    where = f"entry {name} of {file}"
    key = key_of(entry.get("image_path"), where)
    prompt, target = (
        words_of(entry.get(field), where, field).replace("[", "").replace("]", "")
        for field in ("original_prompt", "editing_prompt")
    )
    kind = str(entry.get("editing_type_id"))
    if not (kind.isdecimal() and int(kind) < len(KINDS)):
        raise BadDataset(f"{where} has the editing_type_id {kind}: the kinds are 0 to {len(KINDS) - 1}")
    return Task(key, file.parent / PICTURES / key, prompt, target or None, kind=KINDS[int(kind)])


def _checked(mask: Any, where: str) -> np.ndarray:
    """The runs (n, 2) of a mask: start and length. Raises :class:`BadDataset`."""
    whole = isinstance(mask, list) and len(mask) % 2 == 0 and all(type(each) is int for each in mask)
    if not whole or any(not 0 <= start < SIDE * SIDE for start in mask[::2]) or any(n < 0 for n in mask[1::2]):
        raise BadDataset(f"{where} has a mask that is no list of starts and lengths within {SIDE}x{SIDE} pixels")
    import numpy as np

    return np.array(mask, np.int64).reshape(-1, 2)


def mask_of(runs: np.ndarray) -> np.ndarray:
    """The mask (512, 512) uint8, 255 inside, of runs (n, 2) of start and length in its rows; the outermost pixels are
    inside, as in the benchmark's own evaluation.

    >>> import numpy as np
    >>> mask_of(np.array([[512 * 2 + 3, 4]]))[2, :9] // 255
    array([1, 0, 0, 1, 1, 1, 1, 0, 0], dtype=uint8)
    """
    import numpy as np

    flat = np.zeros(SIDE * SIDE, np.uint8)
    for start, length in runs:
        flat[start : start + length] = 255
    mask = flat.reshape(SIDE, SIDE)
    mask[[0, -1]] = 255
    mask[:, [0, -1]] = 255
    return mask

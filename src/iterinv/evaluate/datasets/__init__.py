"""Datasets, one file each. ``--data`` names one: a rendered one by its name, any other by its folder or file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from iterinv.evaluate.datasets import hugging_face, image_inversion, pie_bench, prompts
from iterinv.evaluate.datasets.task import BadDataset, Dataset, Task
from iterinv.evaluate.remote import is_address, local_copy
from iterinv.presets import presets

__all__ = ["DATASETS", "RENDERED", "BadDataset", "Dataset", "Format", "Task", "open_dataset"]


@dataclass(frozen=True)
class Format:
    """A kind of dataset on this disk: a line about it, how its folder is recognised, and how it is opened."""

    about: str
    recognises: Callable[[Path], bool]
    opened: Callable[[Path], Dataset]


DATASETS = {
    "pie-bench": Format("PIE-Bench: a folder with mapping_file.json", pie_bench.recognises, pie_bench.opened),
    "image-inversion": Format(
        "ImageInversion: a folder with prompt_all_imgs.txt", image_inversion.recognises, image_inversion.opened
    ),
    "huggingface": Format(
        "a folder that the library datasets saved, or a name on the hub", hugging_face.recognises, hugging_face.opened
    ),
    "prompts": Format(
        "a folder with prompts.csv, .jsonl or .txt, or a text file beside each picture",
        prompts.recognises,
        prompts.opened,
    ),
}
"""Formats by name, in the order in which a folder is tried."""

RENDERED: dict[str, tuple[str, Callable[[str, int | None], Dataset]]] = {}
"""Datasets that are rendered, by name: a line about each, and how it is opened by the words after its name and a
number of tasks. Wings of the package add theirs (:data:`iterinv.presets.WINGS`)."""


def open_dataset(data: str, count: int | None = None) -> Dataset:
    """The dataset that ``--data`` names, its first ``count`` tasks: a folder or file, ``format:path`` where the format
    is one of :data:`DATASETS`, ``huggingface:name``, or ``name`` or ``name:words`` of :data:`RENDERED`. A path may be
    an address on another file system (:mod:`iterinv.evaluate.remote`), which is copied here first.

    Raises :class:`BadDataset`, ``ModuleNotFoundError`` where a library is missing, and ``ValueError`` for a count below
    1.
    """
    presets()  # the wings register what they render
    if count is not None and count < 1:
        raise ValueError(f"count is {count}; it is 1 or more")
    data = _fetched(data)
    name, colon, rest = data.partition(":")
    if name in RENDERED and not Path(data).exists():
        return RENDERED[name][1](rest, count)
    if Path(data).exists() or not (colon and name in DATASETS):
        return _sniffed(Path(data)).up_to(count)
    if name != "huggingface" and not Path(rest).exists():
        raise BadDataset(f"there is no file or folder {rest}")
    return DATASETS[name].opened(Path(rest)).up_to(count)


def _fetched(data: str) -> str:
    """A dataset with a path in the place of an address, such as ``s3://…``."""
    name, _, rest = data.partition(":")
    if name in DATASETS and is_address(rest):
        return f"{name}:{local_copy(rest)}"
    return str(local_copy(data)) if is_address(data) else data


def _sniffed(where: Path) -> Dataset:
    names = f"{', '.join(RENDERED)}, or a folder or file of these: {', '.join(DATASETS)}"
    if not where.exists():
        raise BadDataset(f"there is no dataset {where}: the datasets are {names}")
    for each in DATASETS.values():
        if each.recognises(where):
            return each.opened(where)
    return DATASETS["prompts"].opened(where)  # it says what is missing

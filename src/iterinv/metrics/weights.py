"""Trained weights that users have on their disk: files of torch's hub, and folders of the Hugging Face hub. Nothing is
downloaded here, and nothing is computed with random weights."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

TORCH_HUB = "https://download.pytorch.org/models"


def torch_file(name: str, folder: Path | None = None) -> Path | None:
    """The path of a file of weights in ``folder``, else in the cache of torch's hub; ``None`` where neither has it."""
    from torch import hub

    places = [*([folder] if folder else []), Path(hub.get_dir()) / "checkpoints"]
    return next((place / name for place in places if (place / name).is_file()), None)


def torch_command(name: str) -> str:
    """The command that gets a file of weights into the cache of torch's hub."""
    return f"python -c \"import torch; torch.hub.load_state_dict_from_url('{TORCH_HUB}/{name}')\""


@cache
def check_hash(file: Path) -> None:
    """Raise ``ValueError`` for a file whose SHA-256 does not begin as its name ends, as torch's hub names files."""
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if not digest.startswith(file.stem.rpartition("-")[2]):
        raise ValueError(f"{file} is damaged or another file: delete it, and type: {torch_command(file.name)}")


def hub_folder(name: str, folder: Path | None = None) -> Path | None:
    """The path of a model of the Hugging Face hub, ``owner/name``: the folder ``name`` in ``folder``, else in the hub's
    cache; ``None`` where its settings or weights are in neither."""
    from huggingface_hub import try_to_load_from_cache

    places = [folder / name.partition("/")[2]] if folder else []
    cached = try_to_load_from_cache(name, "config.json")
    places += [Path(cached).parent] if isinstance(cached, str) else []
    return next((place for place in places if (place / "config.json").is_file() and _weighs(place)), None)


def hub_command(name: str) -> str:
    """The command that gets a model into the hub's cache."""
    return f"hf download {name}"


def _weighs(folder: Path) -> bool:
    return any(file.is_file() for pattern in ("*.safetensors", "pytorch_model.bin") for file in folder.glob(pattern))

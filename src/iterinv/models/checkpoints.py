"""Files of weights: their kind by their first bytes, and checks of the files in a folder."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

PICKLE = (
    "which runs code when it is read: get the .safetensors, or allow it (allow_pickle=True, --allow-pickle) if you "
    "trust who made it"
)
POINTER = "the pointer of a file in Git LFS (type: git lfs pull)"
_WEIGHTS = re.compile(r"(?:diffusion_pytorch_|pytorch_)?model(?:\.([\w-]+?))?(?:-\d+-of-\d+)?\.(safetensors|bin)")


def kind_of(file: Path) -> str:
    """Tell a file's kind: safetensors, TorchScript, pickle, or a phrase that describes another file."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(512)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        if "data.pkl" in names:
            return "TorchScript" if "constants.pkl" in names else "pickle"
        return "a zip archive of no weights"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "pickle"
    if head[:4] == b"GGUF":
        return "a GGUF file, whose weights are quantised"
    if re.match(rb"\s*<(!doctype html|html)", head, re.IGNORECASE):
        return "an HTML page, as a browser saves it where the file itself was meant"
    if head.startswith(b"version https://git-lfs"):
        return POINTER
    if head[:4] == b"PK\x03\x04":
        return "a file of PyTorch that is cut short"
    return "no file of weights" if size else "an empty file"


def checked(file: Path) -> Path:
    """The file, if its tensors are where its header says. Raises ``ValueError`` for a damaged one."""
    try:
        with safe_open(file, framework="pt"):
            return file
    except (SafetensorError, OSError) as error:
        kind = kind_of(file)
        said = f"damaged or cut short ({error})" if kind in ("safetensors", "no file of weights") else kind
        raise ValueError(f"{file} is {said}: get it again") from None


def tensor_names(file: Path) -> list[str]:
    """The names of a safetensors file's tensors."""
    with safe_open(checked(file), framework="pt") as opened:
        return list(opened.keys())


def is_inversion(file: Path) -> bool:
    """Tell whether this package wrote a file, for an inversion or for encoded words."""
    if kind_of(file) != "safetensors":
        return False
    with safe_open(checked(file), framework="pt") as opened:
        return "iterinv" in (opened.metadata() or {})


def variant_in(folder: Path, variant: str | None) -> str | None:
    """The ``variant`` if a folder's weights are there in it, else ``None``."""
    return variant if variant in _variants(folder) else None


def _variants(folder: Path, suffix: str = "") -> set[str | None]:
    matches = (_WEIGHTS.fullmatch(file.name) for file in folder.glob("*"))
    return {match[1] for match in matches if match and match[2].endswith(suffix)}


def check_weights(folder: Path, variant: str | None, allow_pickle: bool) -> None:
    """Check that a network's folder holds whole weights that may be read.

    Raises ``ValueError`` where there are only pickles, unless ``allow_pickle``, where there are only other variants,
    and for a damaged file; ``FileNotFoundError`` for a missing one.
    """
    safe, every = _variants(folder, "safetensors"), _variants(folder)
    wanted = {None, variant}
    if not (every if allow_pickle else safe) & wanted:
        if every & wanted:
            raise ValueError(f"{folder} holds its weights only as a pickle (.bin), {PICKLE}")
        if others := sorted(filter(None, every)):
            raise ValueError(
                f"{folder} holds its weights only in the variant {' or '.join(others)}: load it by variant="
                f"{others[0]!r}, --variant {others[0]}"
            )
        raise FileNotFoundError(f"{folder} holds no weights: get the folder again")
    for index in folder.glob("*.index*.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ValueError(f"{index} is damaged: get the folder again") from None
        used = {match[1] for shard in shards if (match := _WEIGHTS.fullmatch(str(shard)))} & wanted
        if missing := sorted(shard for shard in shards if used and not (folder / shard).is_file()):
            raise FileNotFoundError(
                f"{folder} lacks {', '.join(missing)}, which {index.name} names: get the folder again"
            )
    for file in folder.glob("*.safetensors"):
        if (match := _WEIGHTS.fullmatch(file.name)) and match[1] in wanted:
            checked(file)

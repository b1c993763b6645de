"""Files of named tensors with a JSON header and a checksum: safetensors, nothing that runs when it is read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 5


class BadInversion(ValueError):
    """A file that cannot be taken as an inversion; the message says why and what to do."""


def write(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a header and tensors. The file appears whole or not at all, and the same content gives the same bytes."""
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".partial")
    header = {"format": FORMAT, **header}
    try:
        tensors = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
        # One entry of metadata, since safetensors writes several in no fixed order.
        text = json.dumps({"sha256": checksum(header, tensors), **header})
        save_file(tensors, partial, metadata={"iterinv": text})
        os.chmod(partial, 0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file.

    Raises :class:`BadInversion` for a file that is missing, truncated, of another kind or format, damaged, or not
    finite.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BadInversion(f"{path} is not a file" if path.exists() else f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise BadInversion(f"it is truncated or not an inversion file ({error})") from None
    if "iterinv" not in metadata:
        raise BadInversion("it is a safetensors file, but not an inversion: it has no iterinv header")
    header = json.loads(metadata["iterinv"])
    if header["format"] != FORMAT:
        raise BadInversion(
            f"it has format {header['format']}; this version reads format {FORMAT}: use the version of iterinv "
            "that wrote "
            "it, or invert the picture again"
        )
    if header.pop("sha256") != checksum(header, tensors):
        raise BadInversion(
            "its checksum does not fit its content: it was damaged; copy it again, or invert the picture again"
        )
    for name, x in tensors.items():
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise BadInversion(f"the tensor {name} holds NaN or infinity: invert the picture again")
    return header, tensors


def checksum(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """The hash of a header and tensors, in hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tensor(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """One of a file's tensors. Raises :class:`BadInversion` for another shape or dtype."""
    x = tensors[name]
    if tuple(x.shape) != shape or x.dtype != dtype:
        raise BadInversion(f"the tensor {name} is {tuple(x.shape)} of {x.dtype}, not {shape} of {dtype}")
    return x

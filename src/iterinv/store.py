"""Files of named tensors with a JSON header and a checksum: safetensors, nothing that runs when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os.path import exists, isfile  # which know no name that is too long
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iterinv.files import printable, whole

FORMAT = 6

LONGEST_HEADER = 16_000_000
"""The most bytes that the header of a file may have."""

Shape = tuple[tuple[int, ...], torch.dtype]
"""The shape and the dtype of a tensor."""

DTYPES = {"F64": torch.float64, "F32": torch.float32, "U8": torch.uint8}
"""The dtypes of tensors in an inversion file, as safetensors names them."""


class BadInversion(ValueError):
    """An error for a file that is no valid inversion; the message says why and what to do, in printable text."""

    def __init__(self, said: str) -> None:
        super().__init__(printable(said))


def write(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a header and tensors. The file appears whole or not at all, and the same content gives the same bytes.

    Raises :class:`iterinv.files.CannotWrite`.
    """
    from safetensors.torch import save

    header = {"format": FORMAT, **header}
    tensors = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    # One entry of metadata, since safetensors writes several in no fixed order.
    text = json.dumps({"sha256": checksum(header, tensors), **header})
    with whole(path) as file:
        file.write(save(tensors, metadata={"iterinv": text}))


def read_header(path: Path) -> dict[str, Any]:
    """The header of a file, without its tensors.

    Raises :class:`BadInversion` for a file that is missing, truncated, of another kind or format.
    """
    if not isfile(path):
        raise BadInversion(f"{path} is not a file" if exists(path) else f"there is no file {path}")
    with _opened(path) as file:
        text = (file.metadata() or {}).get("iterinv")
    if text is None:
        raise BadInversion("it is a safetensors file, but not an inversion: it has no iterinv header")
    header = json.loads(text)
    if header["format"] != FORMAT:
        raise BadInversion(
            f"it has format {header['format']}; this version reads format {FORMAT}: use the version of iterinv that "
            "wrote it, or invert the picture again"
        )
    return dict(header)


def read_tensors(path: Path, header: dict[str, Any], expected: Mapping[str, Shape]) -> dict[str, Tensor]:
    """The tensors of a file: those that are expected and no others, of whose shapes and dtypes it is sure before it
    reads any.

    Raises :class:`BadInversion` for others, and for tensors that are damaged or not finite.
    """
    with _opened(path) as file:
        names = set(file.keys())
        if lacking := sorted(set(expected) - names):
            raise BadInversion(f"it lacks the tensor {lacking[0]}: copy it again, or invert the picture again")
        if more := sorted(names - set(expected)):
            raise BadInversion(f"it holds the tensor {more[0]!r}, which no inversion of this kind has")
        for name, (shape, dtype) in expected.items():
            there = file.get_slice(name)
            actual = tuple(there.get_shape()), DTYPES.get(there.get_dtype(), there.get_dtype())
            if actual != (shape, dtype):
                raise BadInversion(f"the tensor {name} is {actual[0]} of {actual[1]}, not {shape} of {dtype}")
        tensors = {name: file.get_tensor(name) for name in expected}
    if header["sha256"] != checksum({key: value for key, value in header.items() if key != "sha256"}, tensors):
        raise BadInversion(
            "its checksum does not fit its content: it was damaged; copy it again, or invert the picture again"
        )
    for name, x in tensors.items():
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise BadInversion(f"the tensor {name} holds NaN or infinity: invert the picture again")
    return tensors


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise BadInversion(f"it is truncated or not an inversion file (a header of {length / 1e6:.0f} MB)")
        with safe_open(path, framework="pt") as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise BadInversion(f"it is truncated or not an inversion file ({error})") from None


def checksum(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """The hash of a header and tensors, in hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

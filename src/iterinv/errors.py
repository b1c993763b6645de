"""Errors that a user can answer, as sentences."""

from __future__ import annotations

from iterinv.files import printable


def sentence_of(error: BaseException) -> str | None:
    """The sentence on an error that a user can answer, without control characters; ``None`` for a bug."""
    from safetensors import SafetensorError

    said = str(error)
    if isinstance(error, OSError) and error.strerror:
        said = f"{error.filename or 'the output'}: {error.strerror}"
    elif isinstance(error, MemoryError):
        said = said or "there is not enough memory for this; take a smaller picture or fewer at once"
    elif isinstance(error, SafetensorError):  # of weights that a library writes, as where the disk is full
        said = f"a file of weights cannot be written or read ({said})"
    elif not isinstance(error, (ValueError, OSError, ArithmeticError, ModuleNotFoundError)):
        return None
    return printable(said)

"""The one error of reading pictures; all others become it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class BadPicture(ValueError):
    """A file that cannot be taken as a picture; the message says why and what to do."""


class Refused(Exception):
    """The reason for refusing a picture, as the rest of a sentence that begins with the picture's name."""


@contextmanager
def named(name: object) -> Iterator[None]:
    """Turn every error of the block into a :class:`BadPicture` that begins with the picture's name.

    Pillow and the libraries under it raise nearly every class of Python's on a damaged file.
    """
    try:
        yield
    except BadPicture:
        raise
    except Refused as error:
        raise BadPicture(f"{name} {error}") from None
    except MemoryError:
        raise BadPicture(f"{name} needs more memory than there is; reduce it first") from None
    except Exception as error:
        reason = "".join(c if c.isprintable() else " " for c in str(error))[:200] or type(error).__name__
        raise BadPicture(f"{name} is truncated or damaged, or of a kind that is not read here ({reason})") from error

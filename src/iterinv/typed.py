"""Checks of values against annotations: settings from a caller, and headers from a file."""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints


class Range(NamedTuple):
    """The smallest and the largest value of a number, both allowed; for a text or a list, of its length."""

    least: float
    most: float


Count = Annotated[int, Range(1, 10_000)]
"""A number of iterations, tries or repetitions."""

Natural = Annotated[int, Range(0, 2**63 - 1)]
"""A whole number from 0 on, such as a seed."""

Positive = Annotated[float, Range(0, math.inf)]
"""A finite number from 0 on."""

Share = Annotated[float, Range(0, 1)]
"""A number from 0 to 1."""

_WORDS = {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False"}


def check_fields(values: Any) -> None:
    """Check the fields of a dataclass against their annotations, and turn numpy's numbers into Python's.

    Raises ``TypeError`` for a value of another kind and ``ValueError`` for one outside its range; both name the field.
    """
    made: Any = type(values)
    for name, kind in _hints(made).items():
        value = getattr(values, name)
        if (plain := checked(value, kind, name)) is not value:
            object.__setattr__(values, name, plain)


class Checked:
    """A dataclass whose fields are checked when it is made, as :func:`check_fields` does."""

    def __post_init__(self) -> None:
        check_fields(self)


def checked(value: Any, kind: Any, name: str) -> Any:
    """Return the value, with a number as Python's own. ``kind`` is a type, with a :class:`Range` where it is
    ``Annotated``.

    Raises ``TypeError`` or ``ValueError`` with a sentence that calls it ``name``.
    """
    origin = get_origin(kind)
    if origin is Annotated:
        base, *limits = get_args(kind)
        value = checked(value, base, name)
        for limit in (each for each in limits if isinstance(each, Range)):
            size, what = (value, "it is") if isinstance(value, (int, float)) else (len(value), "its length is")
            if not limit.least <= size <= limit.most:
                shown = size if what != "it is" else value
                raise ValueError(f"{name} is {shown}; {what} {_between(limit)}")
        return value
    if origin in (Union, types.UnionType):
        ways = get_args(kind)
        if value is None and type(None) in ways:
            return value
        kinds = [way for way in ways if way is not type(None)]
        for way in kinds[:-1]:
            try:
                return checked(value, way, name)
            except (TypeError, ValueError):
                continue
        return checked(value, kinds[-1], name)
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; it is {_WORDS[float]}")
        return value if isinstance(value, (int, float)) and type(value).__module__ == "builtins" else float(value)
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    if kind in _WORDS:
        raise TypeError(f"{name} is {_shown(value)}; it is {_WORDS[kind]}")
    if origin is tuple and isinstance(value, tuple):
        return tuple(checked(each, get_args(kind)[0], f"{name}[{k}]") for k, each in enumerate(value))
    wanted = origin or kind
    if (wanted is Callable and not callable(value)) or (isinstance(wanted, type) and not isinstance(value, wanted)):
        raise TypeError(f"{name} is {_shown(value)}; it is {_called(kind)}")
    if isinstance(value, type):
        raise TypeError(f"{name} is the class {value.__name__}; it is an object: {value.__name__}()")
    return value


def from_json(value: Any, kind: Any, name: str, known: Mapping[str, type] = {}) -> Any:
    """Make a value of a kind from JSON: lists become tuples, mappings dataclasses or named tuples.

    A mapping with a ``name`` becomes the class of ``known`` that has it. Raises ``TypeError`` or ``ValueError`` for
    what does not fit the kind, down to the last number, and ``KeyError`` for a name that is not known.
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType) and value is not None:
        kinds = [way for way in get_args(kind) if way is not type(None)]
        listed = [way for way in kinds if isinstance(way, type) and issubclass(way, tuple)]
        if len(kinds) == 1 or (len(listed) == 1 and isinstance(value, list)):
            return from_json(value, (listed or kinds)[0], name, known)
    if origin is Annotated:
        return checked(from_json(value, get_args(kind)[0], name, known), kind, name)
    if isinstance(value, dict):
        made = known[value["name"]] if "name" in value and value["name"] in known else kind
        if "name" in value and not (isinstance(made, type) and made in known.values()):
            raise KeyError(value["name"])
        if not isinstance(made, type) or made is dict:
            return checked(value, kind, name)
        given = {key: each for key, each in value.items() if made is kind or key != "name"}
        hints = _hints(made)
        if set(given) != set(hints):
            raise ValueError(f"{name} has {sorted(given)}, not {sorted(hints)}")
        parts = {key: from_json(each, hints[key], f"{name}.{key}", known) for key, each in given.items()}
        return checked(made(**parts), kind, name)
    if isinstance(value, list):
        (inner, *others) = get_args(kind) if origin is tuple else (None,)
        if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
            kinds = list(_hints(kind).values())
            if len(value) != len(kinds):
                raise ValueError(f"{name} has {len(value)} entries, not {len(kinds)}")
            pairs = enumerate(zip(value, kinds, strict=True))
            return kind(*(from_json(each, hint, f"{name}[{k}]", known) for k, (each, hint) in pairs))
        if inner is None or others != [...]:
            raise TypeError(f"{name} is a list; it is {_called(kind)}")
        return tuple(from_json(each, inner, f"{name}[{k}]", known) for k, each in enumerate(value))
    return checked(value, kind, name)


@cache
def _hints(made: Any) -> dict[str, Any]:
    try:
        hints = get_type_hints(made, include_extras=True)
    except NameError:  # a class of a user's whose annotations are for type checkers alone
        hints = defaultdict(lambda: object)
    names = made._fields if hasattr(made, "_fields") else [f.name for f in dataclasses.fields(made) if f.init]
    return {name: hints[name] for name in names}


def _between(limit: Range) -> str:
    return f"at least {limit.least:g}" if limit.most in (math.inf, 2**63 - 1) else f"{limit.least:g} to {limit.most:g}"


def _shown(value: object) -> str:
    if value is None:
        return "None"
    said = repr(value)
    return f"{said if len(said) <= 40 else said[:40] + '…'}, {_article(type(value).__name__)}"


def _called(kind: Any) -> str:
    if get_origin(kind) is Callable or kind is Callable:
        return "a function or an object that can be called"
    if get_origin(kind) in (tuple, list, Sequence):
        return "a tuple"
    return _article(str(getattr(kind, "__name__", kind)))


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"

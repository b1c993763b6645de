"""Files of settings for commands, in TOML: keys are the names of options, at the top or in a table for each command."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import typer

from iterinv.files import printable

LARGEST = 1_000_000
"""The most bytes that such a file may have."""


def defaults_of(path: Path, context: Any) -> dict[str, Any]:
    """The settings that a file gives to the command of a context, by the names of its parameters.

    Keys at the top are for any command; those of the table of a command, as ``[edit]`` or ``[evaluate.scenes]``, are
    for it alone and win; tables of other commands are left out. Raises ``typer.BadParameter`` for a file that cannot be
    read, for a key that is no option of the command, naming those that are close, and for a value of another kind.
    """
    words = context.command_path.split()[1:]
    values = _read(path)
    tables, known = [values], _commands(context)
    for word in words:
        inner = tables[-1].get(word, {})
        if not isinstance(inner, dict):
            raise _Bad(path, f"{word} is a command: write [{word}], and its settings below")
        tables.append(inner)
    settings: dict[str, Any] = {}
    options = {option: each for each in context.command.params for option in _names(each)}
    for depth, table in enumerate(tables):
        for key, value in table.items():
            if isinstance(value, dict):
                if " ".join([*words[:depth], key]) not in known:
                    raise _Bad(path, f"[{key}] is no command{_close(key, [each.split()[-1] for each in known])}")
                continue
            name = key.replace("_", "-")
            if name not in options:
                raise _Bad(path, f"{key!r} is no option of {context.command_path}{_close(name, options)}")
            settings[options[name].name] = _value(path, key, value, options[name])
    return settings


class _Bad(typer.BadParameter):
    def __init__(self, path: Path, said: str) -> None:
        super().__init__(printable(f"{path}: {said}"))


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise _Bad(path, f"it has more than {LARGEST} bytes, so it is no file of settings")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise _Bad(path, f"{error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise _Bad(path, f"it is no TOML ({error})") from None


def _commands(context: Any) -> set[str]:
    """The names of all commands, with that of their group before them."""
    root = context.find_root().command
    names = set()
    for name, command in root.commands.items():
        names |= {name, *(f"{name} {inner}" for inner in getattr(command, "commands", {}))}
    return names


def _names(parameter: Any) -> list[str]:
    """The names of a parameter in a file: those of its long options, or that of an argument."""
    if parameter.name in ("config", "help"):
        return []
    if parameter.param_type_name == "argument":
        return [str(parameter.name).replace("_", "-")]
    return [option.removeprefix("--") for option in parameter.opts if option.startswith("--")]


def _close(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, sorted(names), 3, 0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f": its options are {', '.join(sorted(names))}"


def _value(path: Path, key: str, value: Any, parameter: Any) -> Any:
    """A value of TOML as an option takes it: a list is one value each, or has commas between them."""
    flag = bool(getattr(parameter, "is_flag", False))
    if isinstance(value, bool) != flag or not isinstance(value, (bool, int, float, str, list)):
        kind = "true or false" if flag else "a text, a number or a list"
        raise _Bad(path, f"{key} is {value!r}; it is {kind}")
    if isinstance(value, list):
        if any(isinstance(each, (bool, dict, list)) for each in value):
            raise _Bad(path, f"{key} is {value!r}; it is a list of texts or of numbers")
        return [str(each) for each in value] if parameter.multiple else ",".join(map(str, value))
    if parameter.multiple:
        return [str(value)]
    return value if flag else str(value)

"""The names that options take, for the completion of a shell.

They are read from the sources of the tables that hold them, since importing these takes torch, which takes seconds.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

TABLES = {
    "METHODS": ("methods.py",),
    "EDITORS": ("edits/__init__.py",),
    "RULES": ("steps/__init__.py",),
    "METRICS": ("metrics/registry.py", "embedded/metrics.py"),
    "PRESETS": ("presets.py", "embedded/__init__.py"),
}
"""The tables by their variable, and the files of the package that fill them."""


def names(table: str) -> list[str]:
    """The names in a table of :data:`TABLES`, in its order."""
    every = []
    for file in TABLES[table]:
        tree = ast.parse((Path(__file__).parents[1] / file).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and _is(node.target, table) and isinstance(node.value, ast.Dict):
                every += [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            for target in node.targets if isinstance(node, ast.Assign) else []:
                if isinstance(target, ast.Subscript) and _is(target.value, table):
                    every += [target.slice.value] if isinstance(target.slice, ast.Constant) else []
    return [str(name) for name in every]


def completing(table: str, between: str = "") -> Callable[[str], list[str]]:
    """A completion of a value by the names in a table; ``between`` holds the characters that part several names."""

    def complete(incomplete: str) -> list[str]:
        last = 1 + max((incomplete.rfind(character) for character in between), default=-1)
        before, begun = incomplete[:last], incomplete[last:]
        return [before + name for name in names(table) if name.startswith(begun)]

    return complete


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name

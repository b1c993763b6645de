"""A module imports only from those above it in the order that CONTRIBUTING.md states."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "iterinv"
NAMES = {"iterinv", "iterinv.__main__"}  # the public names and the command import from everywhere


def order():
    """Return the places of modules and packages in the table of CONTRIBUTING.md."""
    table = re.findall(r"^\| (`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    names = [re.findall(r"`([\w/]+?)(?:\.py|/)`", row) for row in table]
    return {name: (line, place) for line, row in enumerate(names) for place, name in enumerate(row)}


def modules():
    return {
        ".".join(("iterinv", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): file
        for file in sorted(SOURCE.rglob("*.py"))
    }


def imports(file, module):
    """Yield the modules of the package that a file imports anywhere, except those that only a type checker reads."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    (*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [base]))
                )
            yield from (f"{base}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    for name in walk(ast.parse(file.read_text(encoding="utf-8"))):
        while name.startswith("iterinv") and name not in MODULES:
            name = name.rpartition(".")[0]
        if name.startswith("iterinv") and name != module:
            yield name


MODULES = modules()
GRAPH = {module: set(imports(file, module)) for module, file in MODULES.items()}


def room(module):
    return module.split(".")[1]


@pytest.mark.parametrize("module", sorted(set(MODULES) - NAMES))
def test_a_module_imports_from_those_above_it_only(module):
    places = order()
    assert room(module) in places, "CONTRIBUTING.md does not list this module"
    upward = {name for name in GRAPH[module] - {"iterinv"} if places[room(name)] > places[room(module)]}
    assert not upward


def test_no_imports_go_round():
    """Follow every chain of imports between modules, lazy ones too; a package's ``__init__`` may gather its files."""
    gathers = {module for module, file in MODULES.items() if file.name == "__init__.py"}
    visited, chain = set(), []

    def follow(module):
        assert module not in chain, " -> ".join([*chain[chain.index(module) :], module])
        if module in visited:
            return
        visited.add(module)
        chain.append(module)
        for name in sorted(GRAPH[module]):
            if name not in NAMES and not (name in gathers and module.startswith(name + ".")):
                follow(name)
        chain.pop()

    for module in MODULES:
        follow(module)


def test_numerics_import_torch_and_nothing_else():
    code = (
        "import sys, iterinv.levels, iterinv.schedules, iterinv.steps, iterinv.roots, iterinv.inverters, "
        "iterinv.guidance\n"
        "print(sorted(name for name in ('diffusers', 'transformers', 'PIL', 'skimage', 'rich') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

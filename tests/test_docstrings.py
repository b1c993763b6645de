"""Public functions, classes and methods have docstrings, or inherit them, and docstrings open with a full clause."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import iterinv

ROOT = Path(__file__).parents[1]
HEADLESS = re.compile(r"(what|whether|where|whatever|who|how|of|by|and|nor|so)\b", re.IGNORECASE)
PRIVATE = {"told", "found", "held", "seen", "asked", "judged"}


def modules():
    yield iterinv
    for info in pkgutil.walk_packages(iterinv.__path__, "iterinv."):
        yield importlib.import_module(info.name)


def public(module):
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield f"{module.__name__}.{name}", thing
        if inspect.isclass(thing):
            for part, method in vars(thing).items():
                function = getattr(method, "__func__", method)
                if (
                    not part.startswith("_")
                    and getattr(function, "__name__", "") != "<lambda>"
                    and (inspect.isfunction(function) or isinstance(method, property))
                ):
                    yield f"{module.__name__}.{name}.{part}", getattr(thing, part)


def test_everything_public_has_a_docstring():
    assert not sorted(name for module in modules() for name, thing in public(module) if not inspect.getdoc(thing))


def parsed(file):
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", ["src", "tests", "examples", "integrations"])
def test_no_docstring_opens_with_a_headless_clause(folder):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    opening = {
        f"{file.relative_to(ROOT)}: {text[:60]}"
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(parsed(file))
        if isinstance(node, kinds) and HEADLESS.match(text := ast.get_docstring(node) or "")
    }
    assert not sorted(opening)


@pytest.mark.parametrize("folder", ["src", "examples", "integrations"])
def test_no_variable_is_named_by_a_bare_participle(folder):
    """A name says what the value is, such as ``report`` or ``inversion``."""
    names = {
        f"{file.relative_to(ROOT)}:{node.lineno} {name}"
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(parsed(file))
        if (name := getattr(node, "id", None) or getattr(node, "arg", None)) in PRIVATE
    }
    assert not sorted(names)

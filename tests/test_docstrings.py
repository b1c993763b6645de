"""Every public function, class and method of the package says what it does; a method may inherit the words."""

import importlib
import inspect
import pkgutil

import iterinv


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

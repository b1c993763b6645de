"""The roles of the docstrings, such as ``:class:`iterinv.Plan```, as links of the site. Griffe loads this extension."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(?:([^`<]+) <)?([\w.]+)>?`")


class Roles(Extension):
    """Turns roles into links where the site has the name, and ``::`` before a block of code into a colon."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = linked(obj.docstring.value)


def linked(docstring: str) -> str:
    """Return a docstring in Markdown."""

    def link(role: re.Match[str]) -> str:
        words, target = role.groups()
        shown = words or target.rsplit(".", 1)[-1]
        return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'

    return re.sub(r"::(?=\n)", ":", ROLE.sub(link, docstring))

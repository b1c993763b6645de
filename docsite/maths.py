"""Formulas of the pages as MathML, which browsers show without a script. MkDocs runs this file as a hook."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>', re.DOTALL)
"""The output of the Markdown extension `arithmatex`: a span for a formula in a line, a div for one of its own."""


def on_page_content(content: str, **_: Any) -> str:
    """Replace each formula in the HTML of a page by MathML."""

    def mathml(formula: re.Match[str]) -> str:
        kind, latex = formula.groups()
        made = convert(html.unescape(latex).strip(), display="block" if kind == "div" else "inline")
        if unknown := re.findall(r"\\\w+", made):
            raise PluginError(f"the formula {latex.strip()} has {', '.join(unknown)}, which latex2mathml does not know")
        return f'<div class="formula">{made}</div>' if kind == "div" else made

    return FORMULA.sub(mathml, content)

"""Parts of the documentation site that no plugin has: formulas as MathML, and the roles of the docstrings."""

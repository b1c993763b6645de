"""Comparisons that anyone can rerun."""

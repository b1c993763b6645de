"""Comparisons that anyone can run again."""

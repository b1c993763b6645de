"""Evaluation where the right answer is known, since every picture is rendered."""

"""Evaluation with known answers, since every picture is rendered."""

"""Diagnosis of losses, costs before loading, and checks of this machine and a model."""

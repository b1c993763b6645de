"""Observers receive the events of the work and can stop it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from iterinv.levels import State


class Observer:
    """Receive every step, every network call and every note. An exception that a method raises stops the work.

    The base class ignores steps and calls, and turns notes into Python warnings. One observer belongs to one piece of
    work, so that several threads may use one cascade.
    """

    def on_step(
        self, stage: str, phase: str, done: int, total: int | None, timestep: float | None, state: State
    ) -> None:
        """Called after step ``done`` of at most ``total`` of a phase: inverting, reconstructing, editing or sampling.

        ``total`` is ``None`` while it is not known; at the end of a phase it is ``done``. ``timestep`` is that of the
        level which ``state`` has reached, ``None`` where a phase goes over the levels several times.
        """

    def on_call(self, stage: str) -> None:
        """Called before every network call."""

    def on_note(self, text: str) -> None:
        """Called with a sentence that a user should read."""
        warnings.warn(text, stacklevel=2)


class Silent(Observer):
    """An observer that ignores notes too: those of thousands of pictures would repeat each other."""

    def on_note(self, text: str) -> None:
        """Ignore a note."""


StepCallback = Callable[[Any, int, "float | None", dict[str, Any]], Any]
"""``callback(cascade, step, timestep, {"latents": ..., "stage": ..., "phase": ...})``, after every step, as in
diffusers."""


class CallbackObserver(Observer):
    """Calls a ``callback_on_step_end`` after every step; ``latents`` is the sample (batch, channels, h, w)."""

    def __init__(self, cascade: Any, callback: StepCallback) -> None:
        self.cascade, self.callback = cascade, callback

    def on_step(
        self, stage: str, phase: str, done: int, total: int | None, timestep: float | None, state: State
    ) -> None:
        self.callback(self.cascade, done - 1, timestep, {"latents": state[0], "stage": stage, "phase": phase})

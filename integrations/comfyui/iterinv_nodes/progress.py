"""Events of the workbench on ComfyUI's progress bar, and ComfyUI's interruption of the work."""

from collections.abc import Callable
from typing import Any

from iterinv.workbench import Event, Progress

WHOLE = 1000
"""The length of the bar."""


class Meter:
    """A function of events that draws the share of ``phases`` phases which is done, and stops the work where the user
    interrupts it. Outside ComfyUI it does nothing."""

    def __init__(self, phases: int) -> None:
        self.phases, self.shares = phases, dict[Any, float]()
        self.picture = 0
        self.stop: Callable[[], Any] = lambda: None
        self.draw: Callable[[int], Any] = lambda value: None
        try:
            from comfy.model_management import throw_exception_if_processing_interrupted
            from comfy.utils import ProgressBar
        except ImportError:
            return
        bar = ProgressBar(WHOLE)
        self.stop = throw_exception_if_processing_interrupted
        self.draw = lambda value: bar.update_absolute(value, WHOLE)

    def __call__(self, event: Event) -> None:
        """Take in an event. Raises ComfyUI's exception where the user interrupts the work."""
        self.stop()
        if not isinstance(event, Progress) or not event.total or event.phase == "network call":
            return
        phase = self.picture, event.stage, event.phase
        self.shares[phase] = max(self.shares.get(phase, 0.0), event.done / event.total)
        self.draw(min(WHOLE, round(WHOLE * sum(self.shares.values()) / self.phases)))

    def next_picture(self) -> None:
        """Begin the next picture of a batch."""
        self.picture += 1

    def end(self) -> None:
        """Draw a full bar."""
        self.draw(WHOLE)

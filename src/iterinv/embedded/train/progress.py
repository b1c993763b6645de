"""A time budget that a training loop iterates over: steps, learning rate, and occasional lines of progress."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from iterinv.cli.session import console


class Clock:
    """Counts steps until the minutes of all phases are spent, over all the runs that a checkpoint carried the count
    through.

    A phase is a mapping with its ``minutes``, its peak learning ``rate``, and whatever else the loop reads from it.
    """

    def __init__(self, name: str, phases: Sequence[Mapping[str, Any]], every: float = 30.0) -> None:
        self.name, self.phases, self.every = name, phases, every
        self.budget = 60 * sum(phase["minutes"] for phase in phases)
        self.step, self.spent, self._said = 0, 0.0, -math.inf
        self._began: float | None = None  # runs from the first step: what is prepared before it is not training
        self._console = console(stderr=True)

    def state_dict(self) -> dict[str, float]:
        """The time spent, for a checkpoint."""
        return {"step": self.step, "spent": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint's time."""
        self.step, self.spent = int(state["step"]), state["spent"]

    @property
    def seconds(self) -> float:
        """The seconds of training so far, in all runs."""
        return self.spent + (0.0 if self._began is None else time.monotonic() - self._began)

    def __iter__(self) -> Iterator[int]:
        self._began = time.monotonic()
        while self.seconds < self.budget:
            yield self.step
            self.step += 1

    def phase(self) -> tuple[Mapping[str, Any], float]:
        """The phase that the present moment is in, and the share of it that is spent, in [0, 1]."""
        left = self.seconds
        for phase in self.phases:
            if left < phase["minutes"] * 60:
                return phase, left / (phase["minutes"] * 60)
            left -= phase["minutes"] * 60
        return self.phases[-1], 1.0

    def rate(self, warmup: int) -> float:
        """The learning rate now: a warm-up over ``warmup`` steps, then in each phase a cosine from its peak to zero."""
        phase, spent = self.phase()
        return phase["rate"] * min(1.0, (self.step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * spent))

    def say(self, step: int, **values: float) -> None:
        """Print the step, values by name and the time left, not more often than ``every`` seconds."""
        if time.monotonic() - self._said >= self.every:
            self._said = time.monotonic()
            shown = "  ".join(f"{k} {v:.4f}" for k, v in values.items())
            self._console.print(
                f"{self.name}  step {step}  {self.seconds / 60:.1f}/{self.budget / 60:.0f} min  {shown}"
            )

"""A time budget that a training loop iterates over: steps, learning-rate factor, and a line of progress now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from rich.console import Console


class Clock:
    """Counts steps until ``minutes`` of work are spent, over all the runs that a checkpoint carried the count through."""

    def __init__(self, name: str, minutes: float, every: float = 30.0) -> None:
        self.name, self.budget, self.every = name, minutes * 60, every
        self.step, self.spent, self._began, self._said = 0, 0.0, time.monotonic(), -math.inf
        self._console = Console(stderr=True)

    def state_dict(self) -> dict[str, float]:
        return {"step": self.step, "spent": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.step, self.spent, self._began = int(state["step"]), state["spent"], time.monotonic()

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self._began

    def __iter__(self) -> Iterator[int]:
        while self.seconds < self.budget:
            yield self.step
            self.step += 1

    def rate(self, warmup: int) -> float:
        """Linear warm-up over ``warmup`` steps, then a cosine that reaches zero when the budget is spent."""
        return min(1.0, (self.step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, self.seconds / self.budget)))

    def say(self, step: int, **values: float) -> None:
        if time.monotonic() - self._said >= self.every:
            self._said = time.monotonic()
            shown = "  ".join(f"{k} {v:.4f}" for k, v in values.items())
            self._console.print(f"{self.name}  step {step}  {self.seconds / 60:.1f}/{self.budget / 60:.0f} min  {shown}")

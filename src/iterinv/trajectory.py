"""The trajectory of one stage: its inverted states, its reconstruction and their cost, computed on demand.

An exact rule is undone from the clean end, so an editor that runs the last third of the levels needs a third of the
walk, and one that works from picture to picture needs none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import torch
from torch import Tensor

from iterinv.inverters.inverter import Inverted, Walk
from iterinv.levels import State
from iterinv.locks import Lock
from iterinv.typed import Natural, Positive


@dataclass(frozen=True)
class StageReport:
    """The cost of inverting and reconstructing at one stage, and how well the two met. ``seconds`` are of the last run.

    ``residual_max`` is the largest rms, over the levels, between the states found by inverting and those of the rerun;
    ``None`` where nothing was run again. ``root_error_max`` is the largest error that the root finder measured,
    ``None`` where none is measured. ``unguided_rms`` is the rms in [-1, 1] that a rerun without guidance loses of the
    picture, measured where only the rerun is guided; its calls are not counted.
    """

    forward: Natural = 0
    backward: Natural = 0
    seconds: Positive = 0.0
    residual_max: Positive | None = None
    root_error_max: Positive | None = None
    unguided_rms: Positive | None = None


class Trajectory(Protocol):
    """The states, the reconstruction and the cost of inverting one stage."""

    @property
    def states(self) -> Sequence[Tensor]:
        """A sample (batch, channels, h, w) for each level of the grid, noisy to clean."""
        ...

    @property
    def state(self) -> State:
        """The state that a rerun starts from."""
        ...

    @property
    def picture(self) -> Tensor:
        """The reconstruction (batch, 3, h, w), unclamped."""
        ...

    @property
    def report(self) -> StageReport:
        """The cost, and how well inversion and rerun met."""
        ...

    @property
    def depth(self) -> int:
        """The number of levels above the clean one that are known."""
        ...


@dataclass(frozen=True, eq=False)
class Known:
    """A trajectory that was computed: the states of the rerun for an exact inverter, those of the solver for others."""

    states: Sequence[Tensor]
    state: State
    picture: Tensor
    report: StageReport = StageReport()

    @property
    def depth(self) -> int:
        """The number of levels above the clean one."""
        return len(self.states) - 1


class Deferred(Trajectory):
    """The trajectory of a reopened inversion: its state, its report and a solved path are in the file, the rest is
    computed once."""

    def __init__(
        self, state: State, report: StageReport, path: Sequence[Tensor] | None, compute: Callable[[], Trajectory]
    ) -> None:
        self._state, self._report, self._path, self._compute = state, report, path, compute
        self._known: Trajectory | None = None
        self._lock = Lock()

    def _all(self) -> Trajectory:
        with self._lock:
            if self._known is None:
                self._known = self._compute()
            return self._known

    @property
    def states(self) -> Sequence[Tensor]:
        return self._all().states if self._path is None else self._path

    @property
    def state(self) -> State:
        return self._state

    @property
    def picture(self) -> Tensor:
        return self._all().picture

    @property
    def report(self) -> StageReport:
        return self._report

    @property
    def depth(self) -> int:
        return len(self.states) - 1


class Walked(Sequence[Tensor], Trajectory):
    """The trajectory of an exact rule, undone from the clean end as deep as its states are asked for.

    It is the sequence of its own states, the last of which, ``clean``, takes no walk. ``picture`` is the picture
    that was inverted: the walk back is the path, so it is not run forward again. ``on_state`` is called with the
    number of levels reached, of those asked for, and the state; ``calls`` counts the network calls. ``begin`` makes
    the walk, again after one that was stopped. ``samples`` are states of an earlier walk, clean to noisy: where more
    are asked for, the walk begins anew.
    """

    def __init__(
        self,
        begin: Callable[[], Walk],
        clean: Tensor,
        levels: int,
        picture: Tensor,
        calls: Callable[[], int],
        on_state: Callable[[int, int, State], None],
        samples: Sequence[Tensor] = (),
    ) -> None:
        self._begin, self._walk = begin, begin()
        self._clean, self._levels, self._picture = clean, levels, picture
        self._calls, self._on_state, self._lock = calls, on_state, Lock()
        self._samples, self._earlier = list(samples), bool(samples)  # clean to noisy
        self._inverted: Inverted | None = None
        self._seconds = 0.0

    @torch.no_grad()
    def _reach(self, count: int) -> None:
        """Walk back until ``count`` samples are known; the inverter's whole path takes their place at the end."""
        began = time.perf_counter()
        with self._lock:
            if self._earlier and len(self._samples) < count:
                self._samples, self._earlier = [], False
            while len(self._samples) < count and self._inverted is None:
                try:
                    state = next(self._walk)
                except StopIteration as end:
                    self._inverted = end.value
                    self._samples = end.value.path[::-1]
                except BaseException:  # a generator that raised is at its end: the next one asks from the clean end
                    self._walk, self._samples = self._begin(), []
                    raise
                else:
                    self._samples.append(state[0])
                    if len(self._samples) > 1:
                        self._on_state(len(self._samples) - 1, count - 1, state)
        self._seconds += time.perf_counter() - began

    def __len__(self) -> int:
        return self._levels

    @overload
    def __getitem__(self, k: int) -> Tensor: ...
    @overload
    def __getitem__(self, k: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, k: int | slice) -> Tensor | Sequence[Tensor]:
        chosen = range(self._levels)[k]
        if isinstance(chosen, int):
            if chosen == self._levels - 1 and not self._samples:
                return self._clean
            self._reach(self._levels - chosen)
            return self._samples[self._levels - 1 - chosen]
        self._reach(self._levels - min(chosen, default=self._levels))
        return [self._samples[self._levels - 1 - i] for i in chosen]

    @property
    def states(self) -> Sequence[Tensor]:
        return self

    @property
    def state(self) -> State:
        while self._inverted is None:  # the last sample may come before the walk's end
            self._reach(len(self._samples) + 1)
        return self._inverted.state

    @property
    def picture(self) -> Tensor:
        return self._picture

    @property
    def report(self) -> StageReport:
        return StageReport(self._calls(), seconds=self._seconds)

    @property
    def depth(self) -> int:
        return max(len(self._samples) - 1, 0)


def row_of(trajectory: Trajectory, k: int) -> Trajectory:
    """The trajectory of the ``k``-th picture of a batch."""
    if not isinstance(trajectory, Known):
        return _Row(trajectory, k)
    states, state = ([x[k : k + 1] for x in each] for each in (trajectory.states, trajectory.state))
    return Known(states, tuple(state), trajectory.picture[k : k + 1], trajectory.report)


class _Row(Sequence[Tensor], Trajectory):
    """One picture of a trajectory of several, as deep as it is asked for."""

    def __init__(self, whole: Trajectory, k: int) -> None:
        self._whole, self._rows = whole, slice(k, k + 1)

    def __len__(self) -> int:
        return len(self._whole.states)

    @overload
    def __getitem__(self, k: int) -> Tensor: ...
    @overload
    def __getitem__(self, k: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, k: int | slice) -> Tensor | Sequence[Tensor]:
        chosen = self._whole.states[k]
        return chosen[self._rows] if isinstance(chosen, Tensor) else [x[self._rows] for x in chosen]

    @property
    def states(self) -> Sequence[Tensor]:
        return self

    @property
    def state(self) -> State:
        return tuple(x[self._rows] for x in self._whole.state)

    @property
    def picture(self) -> Tensor:
        return self._whole.picture[self._rows]

    @property
    def report(self) -> StageReport:
        return self._whole.report

    @property
    def depth(self) -> int:
        return self._whole.depth

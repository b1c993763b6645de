"""Workers that are Ray actors, on one machine or on a cluster: one for each GPU, or for each CPU slot.

An actor that dies is replaced, and its job is done again. Rows and pictures are written here, as those of local workers
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from types import TracebackType
from typing import Any

from iterinv.evaluate.worker import Evaluation, Job, Result, Worker

DEATHS = 3
"""A job whose actors died so often is not tried again: it needs more memory than there is."""


class _Actor:
    """A worker in a process of Ray's. It loads its cascade when it is first called, since only the errors of calls
    arrive as they are."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation

    @cached_property
    def worker(self) -> Worker:
        return Worker(self.evaluation)

    def facts(self) -> dict[str, Any]:
        return self.worker.facts()

    def rows(self, job: Job) -> list[Result]:
        return list(self.worker.rows(job))


class RayWorkers(AbstractContextManager["RayWorkers"]):
    """``count`` actors, which end with the block. A cluster that is running is joined (``ray start``, or the variable
    ``RAY_ADDRESS``); else Ray is started on this machine, and stopped at the end.

    Raises ``ModuleNotFoundError`` where Ray is not installed.
    """

    def __init__(self, evaluation: Evaluation, count: int) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise ModuleNotFoundError("--engine ray needs Ray: pip install 'iterinv[ray]'") from None
        self.ray, self.evaluation, self.count, self.ours = ray, evaluation, count, not ray.is_initialized()
        self.actors: list[Any] = []

    def __enter__(self) -> RayWorkers:
        if self.ours:
            self.ray.init(log_to_driver=False, include_dashboard=False)
        self.actors = [self._actor() for _ in range(self.count)]
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for actor in self.actors:
            self.ray.kill(actor)
        if self.ours:
            self.ray.shutdown()

    def facts(self) -> dict[str, Any]:
        """Wait until all cascades are loaded, and return the facts about them. Raises as :class:`Worker` does."""
        return self._result([actor.facts.remote() for actor in self.actors])[0]

    def rows(self, jobs: Iterator[Job]) -> Iterator[Result]:
        """Yield the rows of jobs as they are done. Raises ``OSError`` for a job whose actors die again and again."""
        busy: dict[Any, tuple[int, Job]] = {}
        deaths: dict[Job, int] = {}
        for k in range(self.count):
            self._start(busy, k, next(jobs, None))
        while busy:
            (ready, *_), _ = self.ray.wait(list(busy), num_returns=1)
            k, job = busy.pop(ready)
            try:
                yield from self._result(ready)
            except self.ray.exceptions.RayActorError as error:
                deaths[job] = deaths.get(job, 0) + 1
                if deaths[job] >= DEATHS:
                    raise OSError(
                        f"{DEATHS} workers died on one task, the last so: {error}. Give each more memory; what is done "
                        "is not done again"
                    ) from None
                self.actors[k] = self._actor()
                self._start(busy, k, job)
            else:
                self._start(busy, k, next(jobs, None))

    def _start(self, busy: dict[Any, tuple[int, Job]], k: int, job: Job | None) -> None:
        if job is not None:
            busy[self.actors[k].rows.remote(job)] = k, job

    def _actor(self) -> Any:
        on_cpu = dict(self.evaluation.about).get("load_device", "cpu") == "cpu"
        slot = {"num_cpus": 1} if on_cpu else {"num_cpus": 1, "num_gpus": 1}
        return self.ray.remote(_Actor).options(**slot).remote(self.evaluation)

    def _result(self, reference: Any) -> Any:
        """The value of a call. Raises the error of the worker itself."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None

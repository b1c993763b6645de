"""Ray's actors give the rows of local workers, and an actor that dies loses nothing."""

import pytest

from iterinv.evaluate.ray_workers import DEATHS, RayWorkers
from iterinv.evaluate.run import evaluate
from iterinv.evaluate.worker import Evaluation
from iterinv.workbench import Model

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow


@pytest.fixture
def evaluation(tiny_folder):
    settings = {"methods": ("bdia", "ddim"), "metrics": ("psnr", "mse"), "steps": 3, "count": 3, "threads": 1}
    return Evaluation("scenes", Model(str(tiny_folder)).load, **settings)


def rows(folder):
    return (folder / "results.jsonl").read_bytes()


def test_both_engines_write_the_same_bytes_though_a_worker_is_killed(evaluation, tmp_path, monkeypatch):
    for _ in evaluate(evaluation, tmp_path / "local", pictures=0):
        pass
    started, killed = RayWorkers._start, []

    def kill_the_second(self, busy, k, job):
        started(self, busy, k, job)
        if job is not None and len(busy) == 2 and not killed:
            killed.append(job)
            self.ray.kill(self.actors[k])

    monkeypatch.setattr(RayWorkers, "_start", kill_the_second)
    for _ in evaluate(evaluation, tmp_path / "ray", processes=2, pictures=0, engine="ray"):
        pass
    assert killed
    assert rows(tmp_path / "ray") == rows(tmp_path / "local")


def test_a_job_whose_actors_die_again_and_again_is_a_sentence(evaluation, tmp_path, monkeypatch):
    started = RayWorkers._start

    def kill_all(self, busy, k, job):
        started(self, busy, k, job)
        if job is not None:
            self.ray.kill(self.actors[k])

    monkeypatch.setattr(RayWorkers, "_start", kill_all)
    with pytest.raises(OSError, match=f"{DEATHS} workers died on one task"):
        list(evaluate(evaluation, tmp_path / "ray", pictures=0, engine="ray"))


def test_errors_of_actors_are_those_of_local_workers(evaluation, tmp_path):
    from dataclasses import replace

    with pytest.raises(ValueError, match="no stage is of 5 px"):
        list(evaluate(replace(evaluation, size=5), tmp_path / "ray", engine="ray"))

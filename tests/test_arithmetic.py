"""An inversion file reconstructs in other arithmetic: other threads, batches and machines."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import iterinv
import published
from iterinv import store
from iterinv.arithmetic import Arithmetic
from iterinv.cascade import Cascade
from iterinv.images import Canvas, to_uint8
from iterinv.levels import Prediction
from iterinv.methods import METHODS, plan
from iterinv.reports import inversion_report

from conftest import Hearing

PROMPT, TO = "a red sphere", "a blue cube"


class Elsewhere:
    """A network on another machine: its last digits differ, in the same way each time."""

    def __init__(self, denoiser, size):
        self.denoiser, self.size = denoiser, size

    def __call__(self, x, level, condition):
        prediction = self.denoiser(x, level, condition)
        return Prediction.from_eps(x, level, prediction.eps + self.size * torch.sin(1e3 * prediction.eps))

    def __getattr__(self, name):
        return getattr(self.denoiser, name)


def elsewhere(cascade, size=1e-2):
    stages = tuple(replace(stage, denoiser=Elsewhere(stage.denoiser, size)) for stage in cascade.stages)
    return Cascade(stages, cascade.defaults)


def pixels(inversion):
    return [
        to_uint8(stage_inversion.picture[k : k + 1])
        for stage_inversion in inversion.stages
        for k in range(len(inversion))
    ]


def equal(a, b):
    return all((x == y).all() for x, y in zip(pixels(a), pixels(b), strict=True))


@pytest.fixture(scope="module")
def small(tiny):
    return tiny.up_to(32)


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


EXACT = [name for name, method in METHODS.items() if method.inverter.exact or (method.refine and method.refine.exact)]


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("method", "guidance", "trajectory"),
    [(name, 1.0, False) for name in EXACT]
    + [("bdia", 15.0, False), ("bdia-fixed", 15.0, False), ("bdia", 1.0, True), ("edit-friendly", 7.5, True)],
)
def test_an_exact_method_reconstructs_elsewhere_too(small, photo, tmp_path, method, guidance, trajectory):
    made = small.invert(photo, PROMPT, method, 3, guidance)
    made.save(tmp_path / "a", trajectory=trajectory)
    there, hearing = elsewhere(small), Hearing()
    again = there.rerun(iterinv.open(tmp_path / "a", there), observer=hearing)
    assert equal(made, again)
    plain = [stage_inversion.rerun.pixels for stage_inversion in again.stages]
    assert not all(plain), "the test's other machine must be another"
    (said,) = (note for note in hearing.notes if note.startswith("made in other arithmetic"))
    assert "so that every pixel comes back" in said
    for a, b in zip(made.stages, again.stages, strict=True):
        assert b.rerun.remedy != "" or b.rerun.pixels
        if trajectory:
            assert torch.equal(a.noise, b.noise)
            assert b.rerun.pixels or all(torch.equal(x.float(), y) for x, y in zip(a.path, b.path, strict=True))
    nowhere = iterinv.Given(torch.zeros(1, 1, 8, 8))
    (edited,) = there.edit(again, TO, iterinv.PromptSwap(region=nowhere), output_type="np").images
    assert (edited == Canvas.fit(photo, small.extent)[0].image).all()


@pytest.mark.filterwarnings("ignore:.*")
def test_what_is_read_from_a_reopened_inversion_is_exact_without_a_rerun(small, photo, tmp_path):
    made = small.invert(photo, PROMPT, "bdia", 3)
    made.save(tmp_path / "a")
    there = elsewhere(small)
    opened = iterinv.open(tmp_path / "a", there)
    assert (np.array(opened.images[0]) == np.array(made.images[0])).all()
    edit = there.edit(iterinv.open(tmp_path / "a", there), TO, "prompt-swap", output_type="np")
    both = there.edit(there.rerun(opened), TO, "prompt-swap", output_type="np")
    assert (edit.images[0] == both.images[0]).all()


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("method", ["ddim", "iterinv-anderson", "null-text"])
def test_a_method_that_promises_nothing_says_that_the_reconstruction_is_another(small, photo, tmp_path, method):
    small.invert(photo, PROMPT, method, 3).save(tmp_path / "a")
    there, hearing = elsewhere(small), Hearing()
    again = there.rerun(iterinv.open(tmp_path / "a", there), observer=hearing)
    assert any("the reconstruction differs from the first one; an exact method" in note for note in hearing.notes)
    assert [stage_inversion.rerun.remedy for stage_inversion in again.stages] == ["", ""]


def test_here_nothing_is_said_and_the_bits_are_the_same(small, photo, tmp_path):
    made, hearing = small.invert(photo, PROMPT, "bdia", 3, observer=Hearing()), Hearing()
    made.save(tmp_path / "a")
    again = small.rerun(iterinv.open(tmp_path / "a", small), observer=hearing)
    assert hearing.notes == []
    assert all(torch.equal(a.picture, b.picture) for a, b in zip(made.stages, again.stages, strict=True))
    assert all(stage_inversion.rerun.pixels for stage_inversion in again.stages)


def test_what_differs_is_named_and_reported(small, photo, tmp_path, threads):
    threads(1)
    made = small.invert(photo, PROMPT, "bdia", 3, observer=Hearing())
    made.save(tmp_path / "a")
    threads(2)
    there, hearing = elsewhere(small), Hearing()
    again = there.rerun(iterinv.open(tmp_path / "a", there), observer=hearing)
    (said,) = hearing.notes
    assert said.startswith("made in other arithmetic (threads 1, here 2), which changes stage 1, 2 of 2: the picture")
    report = inversion_report(there, again, 1.0, hearing.notes)
    arithmetic = report["arithmetic"]
    assert (arithmetic["made"]["threads"], arithmetic["here"]["threads"]) == (1, 2)
    assert (arithmetic["same_pixels"], arithmetic["remedy"]) == (False, "inverted again")
    assert "threads 1, here 2" in report["why"]
    assert report["reconstruction"]["exact_pixels"] == 1.0
    same = Hearing()
    small.rerun(iterinv.open(tmp_path / "a", small), observer=same)
    if equal(made, small.rerun(made, observer=Hearing())):
        assert any("threads 1, here 2): every pixel is as it was" in note or "again" in note for note in same.notes)


def test_the_facts_that_arithmetic_depends_on(threads):
    threads(1)
    here = Arithmetic.here("cpu", 3)
    assert here.differences(here) == ""
    threads(2)
    assert here.differences(Arithmetic.here("cpu", 1)) == "threads 1, here 2; batch 3, here 1"
    assert asdict(here)["torch"] == torch.__version__
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert "kernels" in here.differences(Arithmetic.here("cpu", 3))
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.filterwarnings("ignore:.*")
def test_a_picture_of_a_batch_reconstructs_alone(small, photo, tmp_path):
    made = small.invert([photo, 255 - photo], [PROMPT, TO], "bdia", 3, seed=[1, 2])
    made.save(tmp_path / "a")
    for cascade in (small, elsewhere(small)):
        alone = cascade.rerun(iterinv.open(tmp_path / "a", cascade).row(1), observer=Hearing())
        assert (np.array(alone.images[0]) == np.array(made.images[1])).all()
        assert alone.stages[0].rerun.made.differences(alone.stages[0].rerun.here).startswith("batch 2, here 1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("dtype", "guidance", "method"),
    [
        (torch.bfloat16, 1.0, "bdia"),
        (torch.bfloat16, 7.5, "bdia-fixed"),
        (torch.float32, 15.0, "bdia"),
        (torch.float32, 15.0, "bdia-fixed"),
        (torch.bfloat16, 1.0, "edit-friendly"),
        (torch.bfloat16, 1.0, "direct"),
    ],
)
def test_made_with_one_thread_it_reconstructs_with_two(tmp_path, threads, dtype, guidance, method):
    """The shipped cascade in bfloat16 gives no pixel back in a plain rerun where threads add in another order."""
    cascade = iterinv.load(dtype=dtype).up_to(64)
    threads(1)
    made = cascade.invert("examples/red-sphere.png", PROMPT, plan(method, 10, guidance))
    made.save(tmp_path / "a")
    threads(2)
    again = cascade.rerun(iterinv.open(tmp_path / "a", cascade), observer=Hearing())
    assert equal(made, again)
    if dtype == torch.bfloat16:
        assert not any(stage_inversion.rerun.pixels for stage_inversion in again.stages)
    threads(1)
    again.save(tmp_path / "b")
    assert equal(made, cascade.rerun(iterinv.open(tmp_path / "b", cascade), observer=Hearing()))


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("method", ["bdia", "edit-friendly"])
def test_a_latent_stage_reconstructs_elsewhere(tmp_path, method):
    """The autoencoder's error is measured again where its last digits differ."""
    latent = iterinv.load(published.sd())
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    latent.invert(photo, PROMPT, method, 3).save(tmp_path / "a", trajectory=method == "bdia")
    there = elsewhere(latent)

    class Shifted:
        def __getattr__(self, name):
            return getattr(latent.stages[0].codec, name)

        def decode(self, state):
            return latent.stages[0].codec.decode(state) + 0.02

    there = Cascade((replace(there.stages[0], codec=Shifted()),), there.defaults)
    again = there.rerun(iterinv.open(tmp_path / "a", there), observer=Hearing())
    assert not again.stages[0].rerun.pixels
    assert (np.array(again.images[0]) == photo).all()


def test_the_trajectory_in_a_file_is_checked_as_the_rest(small, photo, tmp_path):
    made = small.invert(photo, PROMPT, "bdia", 3, observer=Hearing())
    sizes = []
    for trajectory in (False, True):
        made.save(tmp_path / "a", trajectory=trajectory)
        sizes.append((tmp_path / "a").stat().st_size)
    states = sum(4 * stage.shape[0] * stage.shape[1] * stage.shape[2] * 4 for stage in small.stages)
    assert sizes[1] - sizes[0] == pytest.approx(states, abs=1000)
    header = store.read_header(tmp_path / "a")
    assert [stage["path"] for stage in header["stages"]] == [True, True]

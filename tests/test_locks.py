"""Several threads give what one thread gives, and so does a forked child, whatever held a lock when it was forked."""

import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

import iterinv
from iterinv.images import from_uint8
from iterinv.locks import Lock
from iterinv.methods import plan

PROMPT, TARGET = "a red sphere", "a blue cube"


def worked(what, pixels, path):
    """Load, invert, save, open, rerun, edit and sample: all bytes that come of it."""
    cascade = iterinv.load(what)
    cascade.invert(from_uint8(pixels), PROMPT, plan("bdia-fixed", 2)).save(path)
    inversion = cascade.open(path)
    edit = cascade.edit(inversion, TARGET, "diffedit")
    pictures = inversion.picture, *edit.pictures, *cascade.sample(TARGET, 2)
    return path.read_bytes(), *(picture.numpy().tobytes() for picture in pictures)


@pytest.fixture
def pictures():
    from iterinv.embedded.scenes import Scene, render
    from iterinv.images import to_uint8

    return [to_uint8(render(Scene.random(seed), 64)[None]) for seed in range(4)]


def test_threads_give_what_one_thread_gives(tiny_folder, tmp_path, pictures):
    """Each loads for itself, two cascades in turn, so that one is loaded while another is run."""
    folders = [tiny_folder, [tiny_folder / f"stage{k}" for k in (1, 2, 3)]] * 2
    jobs = list(zip(folders, pictures, strict=True))
    alone = [worked(*job, tmp_path / f"{k}") for k, job in enumerate(jobs)]
    assert len({each[1] for each in alone}) == len(alone)
    with ThreadPoolExecutor(len(jobs)) as pool:
        together = [pool.submit(worked, *job, tmp_path / f"{k}-thread") for k, job in enumerate(jobs)]
    assert [each.result() for each in together] == alone


def test_threads_share_one_cascade(tiny, tmp_path, pictures):
    alone = [tiny.invert(from_uint8(each), PROMPT, plan("bdia", 3)).picture for each in pictures]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda each: tiny.invert(from_uint8(each), PROMPT, plan("bdia", 3)).picture, pictures)
    assert all((a == b).all() for a, b in zip(alone, found, strict=True))


def in_a_child(work, seconds=60):
    """The exit status of a forked child that does some work; one that waits for ever is ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while threads run
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    for _ in range(seconds * 10):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "it waits for ever"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_gives_what_its_parent_gives(tiny_folder, tmp_path, pictures):
    want = worked(tiny_folder, pictures[0], tmp_path / "parent")

    def work():
        assert worked(tiny_folder, pictures[0], tmp_path / "child") == want

    assert in_a_child(work) == 0
    from iterinv import loading

    held, leave = threading.Event(), threading.Event()

    def hold():
        with loading._LOADING:
            held.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_a_child(work) == 0
    finally:
        leave.set()
        thread.join()


def test_a_lock_is_its_threads_again_and_no_others():
    lock, order = Lock(), []

    def other():
        with lock:
            order.append("other")

    with lock, lock:
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]

"""The page under use: how soon it answers, how long an edit takes in a browser, and a load of many clients.

The page is served by ``iterinv serve`` in a process of its own. Wall clock depends on what else the machine does, so
the processor time of the server stands beside it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from common import ROOT, publish, shipped, table
from iterinv.cascade import load
from iterinv.embedded import FOLDER
from iterinv.web.connect import OUTPUTS

CLIENTS, ROUNDS = 20, 5
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
START, WHOLE, FIRST_CALL, AGAIN = 5.0, 30.0, 0.5, 10.0
"""Seconds that the page promises: until it is usable, from the upload to the edit, from the second press of Edit to its
first network call, and to its end."""

GROWTH = 0.05
"""The most that memory may grow, as a share, over the second half of the load."""

SIDE, BOX = 48, (8, 8, 16, 16)


@contextmanager
def serving(*options: str) -> Iterator[tuple[str, psutil.Process, float]]:
    """Serve the page in another process while the block runs: its address, the process, and when it was started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.perf_counter()
    words = [sys.executable, "-m", "iterinv", "serve", "--port", str(port), *options]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}/", psutil.Process(process.pid), began
        finally:
            process.terminate()


def cpu(process: psutil.Process) -> float:
    """The processor time of a process so far, in seconds."""
    times = process.cpu_times()
    return float(times.user + times.system)


def answers(address: str) -> None:
    """Wait until the server listens."""
    host, port = address.strip("/").rpartition("/")[2].split(":")
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.02)


def reached(page: Any, address: str) -> None:
    """Open the page as soon as the server answers, and wait until Invert can be pressed."""
    answers(address)
    page.goto(address)
    page.get_by_role("button", name="Invert", exact=True).wait_for()


CLOCK = """() => {
  const clock = window.clock = {};
  document.addEventListener('click', () => { clock.began = performance.now(); }, { capture: true, once: true });
  const watch = new MutationObserver(() => {
    const said = document.querySelector('.status').innerText, now = (performance.now() - clock.began) / 1000;
    if (said.includes('Editing') && /[1-9]\\d* network calls/.test(said)) clock.call ??= now;
    if (said.includes('Done in') && clock.call !== undefined) { clock.whole = now; watch.disconnect(); }
  });
  watch.observe(document.body, { childList: true, subtree: true, characterData: true });
}"""
"""Measure from the next click the seconds to the first network call of an edit that the page shows, and to its end."""


def pressed(page: Any) -> dict[str, float]:
    """Press Edit; return the seconds to the first network call and to the end."""
    page.evaluate(CLOCK)
    page.get_by_role("button", name="Edit", exact=True).click()
    clock: dict[str, float] = page.wait_for_function("() => window.clock.whole && window.clock").json_value()
    return clock


def journey(page: Any, process: psutil.Process) -> dict[str, tuple[float, float]]:
    """Upload, invert and edit twice as a visitor does, at the default settings: wall and processor seconds of each."""
    example = ROOT / "examples" / "red-sphere.png"
    prompt = shipped()["red-sphere"][1]
    result, began, used = {}, time.perf_counter(), cpu(process)
    page.locator("#picture input[type=file]").set_input_files(example)
    page.wait_for_selector("#picture img")
    page.get_by_label("Source prompt").fill(prompt)
    page.get_by_label("Target prompt").fill(prompt.replace("red", "blue"))
    page.get_by_role("button", name="Invert", exact=True).click()
    page.wait_for_selector("#report .lead")
    result["inverted"] = time.perf_counter() - began, cpu(process) - used
    page.get_by_role("tab", name="Edit", exact=True).click()
    page.wait_for_timeout(1000)  # the tab is drawn; a visitor takes longer to find the button
    pressed(page)
    page.wait_for_selector("#edited img")
    result["edited"] = time.perf_counter() - began, cpu(process) - used
    page.get_by_label("Target prompt").fill(prompt.replace("red", "yellow"))
    used = cpu(process)
    seconds = pressed(page)
    result["first call"] = seconds["call"], 0.0
    result["again"] = seconds["whole"], cpu(process) - used
    return result


class Client(threading.Thread):
    """A visitor who asks for one thing after the other, and counts the answers that are lost or another's."""

    def __init__(self, address: str, number: int, folder: Path, model: str) -> None:
        super().__init__(daemon=True)
        self.address, self.number, self.model = address, number, model
        self.done = 0
        self.lost: list[str] = []
        self.mixed: list[str] = []
        rng = np.random.default_rng(number)
        self.pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        self.file = folder / f"visitor-{number}.png"
        Image.fromarray(self.pixels).save(self.file)

    def run(self) -> None:
        """Ask for everything; an answer that does not come is lost."""
        import gradio_client
        import httpx

        client = gradio_client.Client(self.address, verbose=False, download_files=False)
        with httpx.Client(timeout=120) as web:
            for _ in range(ROUNDS):
                self.ask(lambda: web.get(self.address).raise_for_status())
                self.ask(lambda: web.get(f"{self.address}config").raise_for_status())
                self.ask(lambda: self.invert(client, gradio_client.handle_file(str(self.file))))
                for turn in range(1, 4):
                    edited = self.ask(lambda turn=turn: self.edit(client, turn))
                    self.ask(lambda edited=edited: self.compare(web, edited))
                self.ask(lambda: self.undo(client))

    def ask(self, request: Any) -> Any:
        """Make a request; note it as lost where it raises."""
        try:
            return request()
        except Exception as error:
            self.lost.append(f"{type(error).__name__}: {error}")
            return None
        finally:
            self.done += 1

    def result(self, job: Any) -> dict[str, Any]:
        """The values of the page's parts that a job ends with. Raises ``ValueError`` where it did not work."""
        values = dict(zip(OUTPUTS, job.result(timeout=120), strict=True))
        said = [each[0] for each in job.outputs() if isinstance(each[0], str)]
        if "Done in" not in said[-1]:
            raise ValueError(said[-1])
        return values

    def invert(self, client: Any, file: Any) -> None:
        """Invert this visitor's picture."""
        how = self.model, "bdia", 2, 1, 0, "pad"
        values = self.result(client.submit(file, f"visitor {self.number}", *how, api_name="/invert"))
        self.check(not values["gallery"], "the history of a new inversion is not empty")

    def edit(self, client: Any, turn: int) -> dict[str, Any]:
        """Edit within a box, and check that the command is this visitor's."""
        canvas: dict[str, Any] = {"background": None, "layers": [], "composite": None}
        target = f"target {turn} of {self.number}"
        own = target, "sdedit", "0.5", "", "", "a box", *BOX, canvas, True
        values = self.result(client.submit(*own, api_name="/edit"))
        command = values["command"]
        self.check(self.file.name in command and f"'{target}'" in command, f"the command is {command}")
        self.check(len(values["gallery"]) == turn, f"the history has {len(values['gallery'])} edits, not {turn}")
        return values

    def compare(self, web: Any, values: dict[str, Any]) -> None:
        """Download the edited picture, and check that it is this visitor's outside the box."""
        answer = web.get(values["edited_file"]["url"]).raise_for_status()
        edited = np.array(Image.open(io.BytesIO(answer.content)).convert("RGB"))
        left, top, width, height = BOX
        outside = np.ones((SIDE, SIDE), bool)
        outside[top : top + height, left : left + width] = False
        self.check(bool((edited == self.pixels)[outside].all()), "the edited picture is another's")

    def undo(self, client: Any) -> None:
        """Take the latest edit back."""
        values = dict(zip(OUTPUTS, client.predict(api_name="/undo"), strict=True))
        self.check(len(values["gallery"]) == 2, "the history does not have two edits after one of three is taken back")

    def check(self, own: bool, otherwise: str) -> None:
        """Note an answer that is another visitor's."""
        if not own:
            self.mixed.append(otherwise)


def loaded(folder: Path) -> dict[str, Any]:
    """Let all clients ask a server of the first stage alone; return what was lost and mixed, and the memory."""
    model = folder / "first"
    model.mkdir()
    (model / "stage1").symlink_to(FOLDER / "stage1")
    (model / "cascade.json").write_text(json.dumps({"stages": ["stage1"], "noise_level": 0}), encoding="utf-8")
    with serving("--model", str(model)) as (address, process, _):
        answers(address)
        clients = [Client(address, number, folder, model.name) for number in range(CLIENTS)]
        began, used = time.perf_counter(), cpu(process)
        for each in clients:
            each.start()
        memory: list[tuple[int, float]] = []
        while any(each.is_alive() for each in clients):
            time.sleep(0.5)
            memory.append((sum(each.done for each in clients), process.memory_info().rss / 2**20))
            print(*(f"{each:.0f}" for each in memory[-1]), end="\r", flush=True)
        return {
            "done": sum(each.done for each in clients),
            "lost": [each for client in clients for each in client.lost],
            "mixed": [each for client in clients for each in client.mixed],
            "memory": memory,
            "seconds": time.perf_counter() - began,
            "cpu": cpu(process) - used,
        }


def growth(memory: list[tuple[int, float]]) -> tuple[float, float, float]:
    """The largest memory in MB in the third quarter of the requests and in the last, and its growth as a share."""
    most = memory[-1][0]
    parts = [
        [each for done, each in memory if low * most < done <= high * most] for low, high in ((0.5, 0.75), (0.75, 1))
    ]
    third, last = (max(each, default=memory[-1][1]) for each in parts)
    return third, last, last / third - 1


def held() -> float:
    """The memory in MB of the states that one inversion of the embedded cascade holds at the default settings."""
    inversion = load().invert(*shipped()["red-sphere"])
    tensors = [x for stage in inversion.stages for x in (*stage.path, *stage.state)]
    storage = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(storage.values()) / 2**20


def main(load_only: bool) -> None:
    if CHROMIUM is None and not load_only:
        sys.exit("the page is measured in Chromium, which is not here: apt-get install chromium")
    began, rows = time.time(), []
    with tempfile.TemporaryDirectory() as name:
        load_values = loaded(Path(name))
    print(*(f"{key}: {value}"[:300] for key, value in load_values.items()), sep="\n", flush=True)
    third, last, grown = growth(load_values["memory"])
    print(f"memory {third:.0f} MB, then {last:.0f} MB", flush=True)
    if load_only:
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play, serving() as (address, process, started):
        page = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        page.set_default_timeout(600_000)
        reached(page, address)
        rows.append(("the page is usable after the start", time.perf_counter() - started, cpu(process), START))
        first = journey(page, process)
        page.reload()
        second = journey(page, process)
    for name, values in (("first", first), ("second", second)):
        rows.append((f"upload to finished edit, {name} visitor", *values["edited"], WHOLE))
        rows.append((f"a second edit's first network call, {name} visitor", *values["first call"], FIRST_CALL))
        rows.append((f"a second edit is done, {name} visitor", *values["again"], AGAIN))
    lines = [[what, f"{wall:.2f}", f"{used:.1f}" if used else "", f"{bound:g}"] for what, wall, used, bound in rows]
    verdict = f"{len(load_values['lost'])} of them are lost and {len(load_values['mixed'])} are another visitor's"
    body = f"""
Seconds in Chromium, at the default settings of the embedded cascade, with the picture `examples/red-sphere.png`. The
first visitor waits for the cascade to load; processor seconds are the server's. The machine has {os.cpu_count()}
processors, and its load average is {os.getloadavg()[0]:.1f} in the end; where that is larger than their number, others
work beside the page and the wall clock is longer than on a machine of one's own.

{table(["", "wall, s", "processor, s", "at most, s"], lines)}

## A load of {CLIENTS} clients

{CLIENTS} visitors make {load_values["done"]} requests to a server of the first stage (32 px): the page and its
settings, inversions, edits within a box, undoing, and their pictures. {verdict}. It takes
{load_values["seconds"]:.0f} s, {load_values["cpu"]:.0f} of the processor. The server's memory is at most
{third:.0f} MB in the third quarter of the requests and {last:.0f} MB in the last ({grown:+.1%}).

An inversion of the whole cascade at the default settings holds {held():.0f} MB of states.
"""
    publish("page", "The page under use", body, began)
    assert not load_values["lost"], load_values["lost"][:3]
    assert not load_values["mixed"], load_values["mixed"][:3]
    assert grown <= GROWTH, (third, last)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--load-only", action="store_true", help="run the load alone, and write nothing")
    main(options.parse_args().load_only)

"""The server: tokens, hosts, paths, visitors beside each other, and cancelling over the network."""

import json
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iterinv.web.connect import OUTPUTS
from iterinv.web.kinds import KINDS
from iterinv.web.server import BYTES, PIXELS, check, examples, is_loopback, running
from iterinv.web.session import SharedModel

from conftest import refused

pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[web]'")
import gradio_client
import httpx

PROMPT, TO = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"
TOKEN = "a secret wörd"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module", autouse=True)
def pixels():
    """Put back the limit of Pillow, which the server lowers."""
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit


@pytest.fixture(scope="module")
def model(tiny_folder):
    return SharedModel(str(tiny_folder))


@pytest.fixture(scope="module")
def server(model):
    with running([model], "127.0.0.1", free_port(), None) as address:
        yield address.rstrip("/")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def visitor(server, model):
    """Return a function that makes a visitor: a client of the page, and its calls by name."""

    class Visitor:
        def __init__(self, **settings):
            self.client = gradio_client.Client(server, verbose=False, **settings)

        def invert(self, picture, steps=3):
            file = gradio_client.handle_file(str(picture))
            how = Path(str(model.name)).name, "bdia", steps, 1, 0, "pad"
            return self.client.submit(file, PROMPT, *how, api_name="/invert")

        def edit(self, target=TO, editor="sdedit"):
            canvas = {"background": None, "layers": [], "composite": None}
            own = "", "", "", "from the words", 0, 0, 64, 64, canvas, True
            return self.client.submit(target, editor, *own, api_name="/edit")

    return Visitor


def status(job):
    """The last status of a job, and all of its values by the parts that they are of."""
    values = dict(zip(OUTPUTS, job.result(timeout=120), strict=True))
    said = [each[0] for each in job.outputs() if isinstance(each[0], str)]
    return said[-1], values


def test_two_visitors_see_nothing_of_each_other(visitor, photo):
    one, other = visitor(), visitor()
    said, _ = status(one.invert(photo))
    assert "Done in" in said
    said, _ = status(other.edit())
    assert "there is no inversion" in said
    said, values = status(one.edit())
    assert "Done in" in said
    assert "iterinv edit photo.png" in values["command"]
    assert len(values["gallery"]) == 1
    other.client.predict(api_name="/undo")
    assert len(one.client.predict(api_name="/undo")[OUTPUTS.index("gallery")]) == 0


def test_work_is_cancelled_over_the_network(visitor, photo):
    one = visitor()
    job = one.invert(photo, steps=150)
    while not any("stage I" in str(each[0]) for each in job.outputs()):
        assert not job.done()
    one.client.predict(api_name="/cancel")
    said, _ = status(job)
    assert "Cancelled" in said
    assert status(one.edit())[0].count("there is no inversion") == 1
    assert "Done in" in status(one.invert(photo))[0]


def test_work_ends_where_a_visitor_leaves(visitor, photo):
    before = set(threading.enumerate())
    one = visitor()
    job = one.invert(photo, steps=150)
    while not any("stage I" in str(each[0]) for each in job.outputs()):
        assert not job.done()
    assert job.cancel()
    for thread in [each for each in threading.enumerate() if each not in before and "Job" in each.name]:
        thread.join(60)
        assert not thread.is_alive()
    assert "Done in" in status(one.invert(photo))[0]


def test_hostile_uploads_are_sentences(visitor, tmp_path):
    file = tmp_path / "page.png"
    file.write_bytes(b"<script>alert(1)</script>")
    said, _ = status(visitor().invert(file))
    assert 'role="alert"' in said
    assert "page.png" in said


def test_pictures_and_files_that_are_too_large_are_refused(visitor, server, tmp_path):
    file = tmp_path / "large.png"
    Image.new("1", (8000, PIXELS // 8000 + 1)).save(file)
    said, _ = status(visitor().invert(file))
    assert 'role="alert"' in said
    assert f"{PIXELS / 1e6:.0f}" in said
    answer = httpx.post(f"{server}/gradio_api/upload", files={"files": bytes(BYTES + 1)})
    assert answer.status_code == 413


def called(server, name, data):
    """Call an endpoint without the client, and return the events."""
    event = httpx.post(f"{server}/gradio_api/call/{name}", json={"data": data}).json()["event_id"]
    return httpx.get(f"{server}/gradio_api/call/{name}/{event}", timeout=60).text


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "../../etc/passwd", "http://127.0.0.1:1/a.png"])
def test_no_path_of_the_server_is_read(server, model, path):
    for way in (f"file={path}", f"file/{path}", f"file=/{path}"):
        assert httpx.get(f"{server}/gradio_api/{way}").status_code in (403, 404)
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    name = Path(str(model.name)).name
    for events in (
        called(server, "invert", [file, PROMPT, name, "bdia", 3, 1, 0, "pad"]),
        called(server, "reopen", [file, name]),
    ):
        assert "event: error" in events
        assert "stage" not in events


def test_choices_are_checked_where_no_browser_does(server, model):
    name = Path(str(model.name)).name
    for endpoint, data in (
        ("reopen", [None, "/etc"]),
        ("invert", [None, PROMPT, name, "bdia", 10**9, 1, 0, "pad"]),
        ("invert", [None, PROMPT, name, "bdia", 3, 1, -1, "pad"]),
        ("invert", [None, PROMPT, name, "no method", 3, 1, 0, "pad"]),
    ):
        events = called(server, endpoint, data)
        assert "event: error" in events, (endpoint, data)
        assert "role=" not in events


def test_only_this_machines_own_names_are_answered(server):
    assert httpx.get(server).status_code == 200
    assert httpx.get(server, headers={"Host": "evil.example"}).status_code == 400


def test_the_page_has_no_address_of_another_host(server):
    config = httpx.get(f"{server}/config").json()
    assert not config["analytics_enabled"]
    text = json.dumps(config)
    assert "http://" not in text.replace(server, "")
    assert "fonts.googleapis" not in text + httpx.get(f"{server}/theme.css").text


def test_no_run_is_recorded(server):
    assert not httpx.get(f"{server}/config").json()["run_history"]
    for path in ("runs", "run-history/records"):
        assert httpx.get(f"{server}/gradio_api/{path}").status_code == 404


def test_a_token_is_needed_for_everything(model, photo):
    with running([model], "127.0.0.1", free_port(), TOKEN) as address:
        for path in ("config", "gradio_api/info", "gradio_api/file=x"):
            assert httpx.get(address + path).status_code == 401, path
        assert httpx.post(address + "gradio_api/upload", files={"files": b"x"}).status_code == 401
        body = {"data": [], "fn_index": 0, "session_hash": "x"}
        assert httpx.post(address + "gradio_api/queue/join", json=body).status_code == 401
        with pytest.raises(Exception, match=r"401|[Aa]uth|[Ll]ogin|credentials"):
            gradio_client.Client(address, verbose=False, auth=("me", "a wrong word"))
        one = gradio_client.Client(address, verbose=False, auth=("me", TOKEN))
        assert "Cancelled" in one.predict(api_name="/cancel")


def test_nothing_is_left_of_a_server(model, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    port = free_port()
    with running([model], "127.0.0.1", port, None) as address:
        (folder,) = tmp_path.iterdir()
        assert folder.name.startswith("iterinv-serve-")
        assert folder.stat().st_mode & 0o077 == 0
        assert Image.MAX_IMAGE_PIXELS == PIXELS
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 is in use: choose another --port"):
            check("127.0.0.1", port, None)
        httpx.get(address)
        own = folder / "sessions" / "file.txt"
        own.parent.mkdir(exist_ok=True)
        own.write_text("a visitor's")
        assert httpx.get(f"{address}gradio_api/file={own}").status_code == 403
    assert list(tmp_path.iterdir()) == []
    check("127.0.0.1", port, None)


def test_other_machines_need_a_token():
    for host in ("0.0.0.0", "192.168.1.1", "::"):
        assert not is_loopback(host)
        with pytest.raises(ValueError, match="give a secret word with --token"):
            check(host, 7860, None)
        with pytest.raises(ValueError, match="give a secret word with --token"):
            check(host, 7860, "")
    for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1"):
        assert is_loopback(host)
    refused("give a secret word with --token", "serve", "--host", "0.0.0.0")
    refused("it is localhost or an address", "serve", "--host", "somewhere.example")
    refused("cannot be opened", "serve", "--host", "203.0.113.7", "--token", "a")


def test_examples_are_the_pictures_of_the_repository(tmp_path):
    rows = examples(tmp_path)
    folder = Path(__file__).parents[2] / "examples"
    for file, prompt, kind in rows:
        same = folder / Path(file).name
        assert (np.array(Image.open(file)) == np.array(Image.open(same))).all()
        assert prompt == same.with_suffix(".txt").read_text().strip()
        assert KINDS[kind].draft(prompt) != prompt

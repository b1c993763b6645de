"""Visitors of the page in a browser, on a tiny cascade: from the upload to the command, by keyboard, beside each other,
with wrong files, and where the page or the server goes in the middle."""

import io
import os
import re
import shlex
import shutil
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from iterinv.web.server import BYTES, running
from iterinv.web.session import SharedModel

from conftest import call

pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[web]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: pip install '.[dev]'")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT = 120_000
TABS = ("Reconstruction", "Edit", "Compare", "Sweep", "Measure")
PROMPT = "a red sphere on a wooden floor"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def model(tiny_folder):
    return SharedModel(str(tiny_folder))


@pytest.fixture(scope="module")
def server(model):
    limit = Image.MAX_IMAGE_PIXELS
    with running([model], "127.0.0.1", free_port(), None) as address:
        yield address
    Image.MAX_IMAGE_PIXELS = limit


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as play:
        playwright.expect.set_options(timeout=WAIT)
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, server):
    """Return a function that opens the page for a new visitor; their pages have no errors and ask no other host."""
    visitors, outside, errors = [], [], []

    def opened(width=1440, address=server, strict=True):
        visitor = chromium.new_context(viewport={"width": width, "height": 900}, accept_downloads=True)
        visitors.append(visitor)
        page = visitor.new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda each: outside.append(each.url))
        page.on("dialog", lambda each: errors.append(f"a dialog says {each.message}"))
        page.on("pageerror", lambda each: errors.append(str(each)))
        if strict:
            page.on("console", lambda each: errors.append(each.text) if each.type == "error" else None)
        page.goto(address)
        page.wait_for_selector("#picture input[type=file]", state="attached")
        return page

    yield opened
    for visitor in visitors:
        visitor.close()
    assert [each for each in outside if not each.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []
    assert errors == []


def picture(folder, name="photo.png", seed=0, colour=None):
    """Write a picture of 48 x 64 px, of noise or of a colour with a little noise."""
    values = np.random.default_rng(seed).integers(0, 256, (48, 64, 3))
    if colour is not None:
        values = np.clip(np.array(colour) + values // 16, 0, 255)
    Image.fromarray(values.astype(np.uint8)).save(folder / name)
    return folder / name


def press(page, name):
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def go(page, tab):
    """Open a tab, which lies behind the button with dots where the page is narrow."""
    if not page.get_by_role("tab", name=tab, exact=True).locator("visible=true").count():
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown button", has_text=tab).click()
    else:
        page.get_by_role("tab", name=tab, exact=True).click()
    page.wait_for_timeout(200)


def status(page, *words):
    """Wait until the bar says one of the words; return what it says."""
    said = """(words) => {
      const said = document.querySelector('.status').innerText;
      return words.some((each) => said.includes(each)) && said;
    }"""
    return page.wait_for_function(said, arg=list(words)).json_value()


def begin(page, file, steps=2, prompt=PROMPT):
    """Upload a picture, and press Invert."""
    page.locator("#picture input[type=file]").set_input_files(file)
    page.wait_for_selector("#picture img")
    page.get_by_label("Source prompt").fill(prompt)
    page.get_by_label("Target prompt").fill(prompt.replace("red", "blue"))
    if not page.get_by_label("number input for Steps at every stage").count():
        page.get_by_role("button", name="Advanced settings of the inversion").click()
    page.get_by_label("number input for Steps at every stage").fill(str(steps))
    page.get_by_label("number input for Steps at every stage").blur()
    press(page, "Invert")


def inverted(page, *given, **settings):
    begin(page, *given, **settings)
    assert "Done in" in status(page, "Done in", "did not work")
    page.wait_for_selector("#report .lead")


def download(page, name, to):
    with page.expect_download() as got:
        page.get_by_role("button", name=name, exact=True).locator("visible=true").click()
    got.value.save_as(to)
    return to


def serious(page):
    """The serious and critical faults that axe-core reports, each with the elements that have it."""
    faults = axe.Axe().run(page).response["violations"]
    return [
        (each["id"], [node["html"][:120] for node in each["nodes"]])
        for each in faults
        if each["impact"] in ("serious", "critical")
    ]


def test_from_the_upload_to_the_command_that_gives_the_same_bytes(visit, tmp_path, monkeypatch):
    photo, page = picture(tmp_path), visit()
    begin(page, photo, steps=40)
    page.wait_for_selector(".status.running progress")
    assert "Done in" in status(page, "Done in")
    page.wait_for_selector("#report .lead")
    assert "Every pixel comes back." in page.locator("#report").inner_text()
    assert page.locator("#path img").count() == 8
    assert page.locator("#noise svg").count() == 1

    handle = page.locator("#reconstruction [data-testid=slider]")
    handle.focus()
    loaded = "() => [...document.querySelectorAll('#reconstruction img')].every((each) => each.naturalWidth)"
    page.wait_for_function(loaded)
    playwright.expect(handle).to_have_attribute("aria-valuetext", re.compile("^Original: 50 %"))  # it has its place
    for key, share in {"ArrowRight": 52, "PageUp": 72, "Home": 0, "End": 100, "ArrowLeft": 98}.items():
        page.keyboard.press(key)
        playwright.expect(handle).to_have_attribute("aria-valuenow", re.compile(f"^({share - 1}|{share}|{share + 1})$"))
    cut = page.locator("#reconstruction img.fixed").evaluate("(each) => each.style.clipPath")
    assert cut != "inset(0px 0px 0px 50%)"

    go(page, "Edit")
    page.get_by_label("Editor").first.fill("sdedit")
    page.get_by_role("option", name="sdedit").click()
    page.get_by_role("radio", name="brushed").check()
    page.wait_for_timeout(1200)  # the picture is drawn
    box = page.locator("canvas").first.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    for k in range(8):
        page.mouse.move(middle[0] + 5 * k, middle[1] + 4 * k)
    page.mouse.up()
    page.wait_for_timeout(400)
    press(page, "Edit")
    thumbnails = page.locator("#history button[aria-label^=Thumbnail]")
    playwright.expect(thumbnails).to_have_count(1)
    edited = download(page, "Edited picture, PNG", tmp_path / "page.png")
    download(page, "Region as painted, PNG", tmp_path / "region.png")
    page.get_by_role("button", name="The same by the command line").click()
    command = page.locator(".cm-content").locator("visible=true").first
    playwright.expect(command).to_contain_text("region.png")
    command = command.inner_text()
    page.get_by_role("radio", name="from the words").check()
    press(page, "Edit")
    playwright.expect(thumbnails).to_have_count(2)
    thumbnails.first.click()
    page.wait_for_function("() => document.body.innerText.includes('--mask region.png')")
    page.locator(".downloads button", has_text="Undo").locator("visible=true").click()
    playwright.expect(thumbnails).to_have_count(1)

    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(command)
    assert program == "iterinv"
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "edited.png").read_bytes() == edited.read_bytes()
    changed = (np.array(Image.open(edited)) != np.array(Image.open(photo))).any(-1)
    assert 0 < changed.mean() < 0.5


def test_work_is_cancelled_in_the_middle(visit, tmp_path):
    page = visit()
    inverted(page, picture(tmp_path))
    begin(page, picture(tmp_path), steps=200)
    page.wait_for_selector(".status.running progress")
    press(page, "Cancel")
    assert "What was there before is still here" in status(page, "Cancelled")
    page.wait_for_timeout(800)  # the progress that was on its way has come
    assert "Cancelled" in page.locator(".status").inner_text()
    go(page, "Edit")
    press(page, "Edit")
    playwright.expect(page.locator("#history button[aria-label^=Thumbnail]")).to_have_count(1)


def test_two_visitors_at_once_see_their_own_pictures(visit, tmp_path):
    colours = {"red": (200, 20, 20), "blue": (20, 20, 200)}
    pages = {name: visit() for name in colours}
    for name, page in pages.items():
        begin(page, picture(tmp_path, f"{name}.png", colour=colours[name]), steps=12, prompt=f"a {name} wall")
    sources = {}
    for name, page in pages.items():
        status(page, "Done in")
        page.wait_for_selector("#reconstruction img")
        go(page, "Edit")
        page.get_by_label("Target prompt").fill(f"a {name} wall with a cone")
    for page in pages.values():  # at once
        press(page, "Edit")
    for name, page in pages.items():
        page.wait_for_selector("#edited img")
        playwright.expect(page.locator("#history button[aria-label^=Thumbnail]")).to_have_count(1)
        sources[name] = set(page.locator("img").evaluate_all("(all) => all.map((each) => each.src)"))
        page.get_by_role("button", name="The same by the command line").click()
        commands = page.locator(".cm-content").locator("visible=true")
        playwright.expect(commands.first).to_contain_text(f"{name}.png")
        commands = " ".join(commands.all_inner_texts())
        other = "blue" if name == "red" else "red"
        assert other not in commands
        file = download(page, "Edited picture, PNG", tmp_path / "downloaded.png")
        mean = np.array(Image.open(file).convert("RGB")).reshape(-1, 3).mean(0)
        assert (mean[0] > mean[2]) == (name == "red")
    shared = sources["red"] & sources["blue"]
    assert all(any(name in each for name in ("red-sphere", "yellow-cube", "cone-and-cylinder")) for each in shared)
    assert len(sources["red"] - shared) >= 4


def huge():
    """Return a PNG file whose header says 100,000 x 100,000 px."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_wrong_huge_and_hostile_files_are_sentences(visit, tmp_path):
    good = io.BytesIO()
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(good, "PNG")
    page = visit(strict=False)  # the browser reports that it cannot draw such a file
    for name, data in {
        "words.png": b"this is no picture",
        "huge.png": huge(),
        "cut.png": good.getvalue()[:60],
        "page.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "a<img src=x onerror=alert(1)>.png": b"\x00" * 100,
    }.items():
        page.locator("#picture input[type=file]").set_input_files(
            {"name": name, "mimeType": "image/png", "buffer": data}
        )
        page.wait_for_selector("#picture img", state="attached")
        press(page, "Invert")
        assert name.split("<")[0].split(".")[0] in status(page, "did not work"), name
        page.get_by_label("Remove Image").click()
        press(page, "Cancel")
        status(page, "Cancelled")
    (tmp_path / "large.png").write_bytes(bytes(BYTES + 1))
    page.locator("#picture input[type=file]").set_input_files(tmp_path / "large.png")
    page.get_by_text("exceed the maximum allowed size").wait_for()
    assert page.locator("#picture img").count() == 0


@pytest.mark.slow
def test_the_page_is_reloaded_in_the_middle(visit, tmp_path):
    page = visit(strict=False)  # the browser reports the answer that it did not wait for
    begin(page, picture(tmp_path), steps=200)
    page.wait_for_selector(".status.running progress")
    page.reload()
    page.wait_for_selector("#picture input[type=file]", state="attached")
    assert "Choose a picture" in status(page, "Choose a picture")
    inverted(page, picture(tmp_path))  # the work of the page before has ended, or this would wait for it
    assert "Every pixel comes back." in page.locator("#report").inner_text()


@pytest.mark.slow
def test_the_server_is_restarted_in_the_middle(visit, model, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ["GRADIO_TEMP_DIR"])  # of the module's server, put back in the end
    port = free_port()
    with running([model], "127.0.0.1", port, None) as address:
        page = visit(address=address, strict=False)
        inverted(page, picture(tmp_path))
        begin(page, picture(tmp_path), steps=200)
        page.wait_for_selector(".status.running progress")
    assert "reload the page" in status(page, "did not work")
    with running([model], "127.0.0.1", port, None) as address:
        press(page, "Invert")  # the new server has no such picture
        page.wait_for_timeout(2000)
        assert "choose the picture again" in status(page, "did not work")
        page.reload()
        page.wait_for_selector("#picture input[type=file]", state="attached")
        assert page.locator("#reconstruction img").count() == 0
        inverted(page, picture(tmp_path))


def test_axe_finds_no_serious_fault(visit, tmp_path):
    page = visit()
    page.wait_for_selector(".empty[role=img]")  # the script has run
    faults = {"empty": serious(page)}
    inverted(page, picture(tmp_path))
    go(page, "Edit")
    press(page, "Edit")
    page.wait_for_selector("#edited img")
    page.get_by_role("button", name="The same by the command line").click()
    go(page, "Measure")
    press(page, "Measure")
    page.wait_for_selector("#measured table")
    for scheme, width in (("light", 1440), ("dark", 1440), ("light", 390)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        page.mouse.move(1, 1)
        for tab in TABS:
            go(page, tab)
            faults[f"{tab}, {scheme}, {width} px"] = serious(page)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (tab, width)
    assert {where: each for where, each in faults.items() if each} == {}


REACHED = """() => {
  const each = document.activeElement, part = each.closest('label:has(input:focus-visible)') || each;
  const outline = getComputedStyle(part).outlineStyle, width = parseFloat(getComputedStyle(part).outlineWidth);
  const name = each.getAttribute('aria-label') || each.closest('label')?.innerText || each.innerText || '';
  return [each.tagName, name.trim().split('\\n')[0], outline !== 'none' && width >= 2];
}"""


def test_all_controls_are_reached_by_tab_and_show_it(visit):
    page = visit()
    reached = []
    page.mouse.click(2, 2)
    for _ in range(60):
        page.keyboard.press("Tab")
        tag, name, outlined = page.evaluate(REACHED)
        if tag == "BODY":
            break
        reached.append((name, outlined))
    names = [name for name, _ in reached]
    for name in (
        "Source prompt",
        "Model",
        "Invert",
        "Recolour",
        "Target prompt",
        "Advanced settings of the inversion",
        "Open an inversion file",
        "Cancel",
        *TABS,
        "Inversion file",
    ):
        assert name in names, names
    assert [name for name, outlined in reached if not outlined] == []

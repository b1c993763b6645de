"""The page in a browser: from the upload to the download, at two widths, in light and dark.

With the environment variable ITERINV_SCREENSHOTS the test writes its pictures of the page to that folder.
"""

import io
import os
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iterinv.web.server import running
from iterinv.web.session import SharedModel

pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[web]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURE = Path(__file__).parents[2] / "examples" / "red-sphere.png"
PROMPT = PICTURE.with_suffix(".txt").read_text().strip()
WAIT = 120_000

UNNAMED = """() => [
  ...[...document.querySelectorAll('.gradio-container img')].filter((each) => !each.alt),
  ...[...document.querySelectorAll('input, textarea, select')].filter((each) =>
    each.offsetParent && each.type !== 'file' && !each.getAttribute('aria-label')
    && !each.getAttribute('aria-labelledby') && !(each.labels && each.labels.length)),
  ...[...document.querySelectorAll('button')].filter((each) =>
    each.offsetParent && !each.textContent.trim() && !each.getAttribute('aria-label') && !each.title
    && !each.querySelector('img[alt]')),
].map((each) => each.outerHTML.slice(0, 200))"""
"""The pictures without a text, and the fields and buttons without a name."""


@pytest.fixture(scope="module")
def server():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    limit = Image.MAX_IMAGE_PIXELS
    with running([SharedModel()], "127.0.0.1", port, None) as address:
        yield address
    Image.MAX_IMAGE_PIXELS = limit


@pytest.fixture
def page(server):
    """Return a page that has no errors and asks no other host for anything, which is checked in the end."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    outside, errors = [], []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
        page.set_default_timeout(WAIT)
        page.on("request", lambda each: outside.append(each.url))
        page.on("console", lambda each: errors.append(each.text) if each.type == "error" else None)
        page.on("pageerror", lambda each: errors.append(str(each)))
        page.goto(server)
        yield page
        browser.close()
    assert [each for each in outside if not each.startswith((server, "data:", "blob:"))] == []
    assert errors == []


def press(page, name):
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def rectangles(page, place):
    """The rectangles of the two pictures under a slider."""
    page.wait_for_function(
        f"() => [...document.querySelectorAll('#{place} img')].filter((each) => each.naturalWidth).length === 2"
    )
    page.wait_for_timeout(300)
    return [each.bounding_box() for each in page.locator(f"#{place} img").all()]


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def shoot(page, path, whole):
    """Write a picture of the page, from its top."""
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(200)
    Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB").save(path, quality=90, method=6)


@pytest.mark.slow
def test_a_picture_is_uploaded_inverted_edited_and_downloaded(page, tmp_path):
    images = Path(os.environ.get("ITERINV_SCREENSHOTS") or tmp_path)
    images.mkdir(exist_ok=True)
    page.locator("#picture input[type=file]").set_input_files(PICTURE)
    page.wait_for_selector("#picture img")
    page.get_by_label("Source prompt").fill(PROMPT)
    page.get_by_label("Source prompt").blur()
    assert "a large blue shiny sphere" in _value_once(page, "Target prompt", "blue")
    page.get_by_role("radio", name="Background").check()
    assert "teal wall" in _value_once(page, "Target prompt", "teal")
    page.get_by_role("radio", name="Recolour").check()
    assert "a large blue shiny sphere" in _value_once(page, "Target prompt", "blue")

    press(page, "Invert")
    page.wait_for_selector(".status.running progress")
    page.wait_for_function("() => document.querySelector('.status').innerText.includes('s left')")
    page.wait_for_selector("#report .lead")
    assert "Every pixel comes back." in page.locator("#report").inner_text()
    one, other = rectangles(page, "reconstruction")
    assert one == other
    assert one["width"] > 200
    sources = page.locator("#reconstruction img").evaluate_all("(all) => all.map((each) => each.src)")
    assert len(set(sources)) == 1  # equal pixels are one file
    page.get_by_role("radio", name="stage I, 32 px").check()
    page.wait_for_function(f"() => document.querySelector('#reconstruction img').src !== '{sources[0]}'")
    assert len(set(map(str, rectangles(page, "reconstruction")))) == 1
    assert page.locator("#path img").count() == 8
    shoot(page, images / "page-reconstruction.webp", True)

    page.get_by_role("tab", name="Edit").click()
    press(page, "Edit")
    one, other = rectangles(page, "edited")
    assert one == other
    assert len(set(page.locator("#edited img").evaluate_all("(all) => all.map((each) => each.src)"))) == 2
    thumbnails = page.locator("#history button[aria-label^=Thumbnail]")
    assert thumbnails.count() == 1
    page.get_by_role("radio", name="a box").check()
    for name, value in {"Left": 60, "Top": 60, "Width": 60, "Height": 120}.items():
        page.get_by_label(f"{name}, px").fill(str(value))
    press(page, "Edit")
    page.wait_for_function("() => document.querySelectorAll('#history button[aria-label^=Thumbnail]').length === 2")
    page.get_by_role("button", name="The same by the command line").click()
    page.wait_for_function("() => document.body.innerText.includes('--box 60,60,60,120')")
    thumbnails.first.click()
    page.wait_for_function("() => !document.body.innerText.includes('--box')")
    page.get_by_role("button", name="The same by the command line").click()

    with page.expect_download() as download:
        page.get_by_text("Edited picture, PNG").click()
    edited, before = (np.array(Image.open(each).convert("RGB")) for each in (download.value.path(), PICTURE))
    assert edited.shape == before.shape
    changed = (edited != before).any(-1)
    assert 0.05 < changed.mean() < 0.5
    assert not changed[:20].any()
    with page.expect_download() as download:
        page.get_by_text("Region, PNG").click()
    assert (np.array(Image.open(download.value.path()))[changed] > 0).all()

    page.wait_for_timeout(500)
    assert page.evaluate(UNNAMED) == []
    assert fits(page)
    shoot(page, images / "page.webp", True)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    shoot(page, images / "page-dark.webp", True)
    page.emulate_media(color_scheme="light")
    page.get_by_role("tab", name="Measure").click()
    page.get_by_label("Mask, white inside").click()
    page.get_by_role("option", name="region of edit 2").click()
    press(page, "Measure")
    page.wait_for_selector("#measured table")
    assert re.search(r"psnr\s.*\sequal$", page.locator("#measured").inner_text(), re.MULTILINE)  # outside the region
    page.wait_for_timeout(500)
    shoot(page, images / "page-measure.webp", True)
    page.get_by_role("tab", name="Edit").click()
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert fits(page)
    assert len(set(map(str, rectangles(page, "edited")))) == 1
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": 390, "height": height})  # so that the bar lies at the end
    page.wait_for_timeout(300)
    shoot(page, images / "page-390.webp", False)


def _value_once(page, label, word):
    """The text of a field once it holds a word."""
    field = page.get_by_label(label)
    playwright.expect(field).to_have_value(re.compile(word))
    return field.input_value()


@pytest.mark.slow
def test_a_region_is_painted_and_work_is_cancelled(page):
    page.locator("#picture input[type=file]").set_input_files(PICTURE)
    page.wait_for_selector("#picture img")
    page.get_by_label("Source prompt").fill(PROMPT)
    page.get_by_label("Target prompt").fill(PROMPT.replace("red", "blue"))
    page.get_by_role("button", name="Advanced settings of the inversion").click()
    page.get_by_label("number input for Steps at every stage").fill("4")
    press(page, "Invert")
    page.wait_for_selector("#report .lead")
    page.get_by_role("tab", name="Edit").click()
    page.get_by_role("radio", name="brushed").check()
    canvas = page.locator("canvas").first
    page.wait_for_timeout(1500)  # the picture is drawn
    box = canvas.bounding_box()
    middle, height = box["x"] + box["width"] / 2, box["height"]
    page.mouse.move(middle, box["y"] + height * 0.4)
    page.mouse.down()
    for k in range(10):
        page.mouse.move(middle + 4 * k, box["y"] + height * (0.4 + 0.02 * k))
    page.mouse.up()
    page.wait_for_timeout(500)
    press(page, "Edit")
    rectangles(page, "edited")
    with page.expect_download() as download:
        page.get_by_text("Region as painted, PNG").click()
    painted = np.array(Image.open(download.value.path()).convert("RGBA"))[..., 3] > 0
    with page.expect_download() as download:
        page.get_by_text("Edited picture, PNG").click()
    edited, before = (np.array(Image.open(each).convert("RGB")) for each in (download.value.path(), PICTURE))
    assert painted.shape == before.shape[:2]
    assert 0.02 < painted.mean() < 0.5
    changed = (edited != before).any(-1)
    assert changed.any()
    assert painted[changed].all()

    page.get_by_label("number input for Steps at every stage").fill("200")
    press(page, "Invert")
    page.wait_for_selector(".status.running progress")
    press(page, "Cancel")
    page.wait_for_function("() => document.querySelector('.status').innerText.includes('Cancelled')")
    page.wait_for_timeout(1500)
    assert "Cancelled" in page.locator(".status").inner_text()
    assert "Every pixel comes back." in page.locator("#report").text_content()

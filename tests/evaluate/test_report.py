"""The report asks for nothing outside itself and can be read without eyes or mouse; differences of two runs agree with
closed forms."""

import base64
import io
import json
import math
import random
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binom

from iterinv.evaluate import paired
from iterinv.evaluate.page import plot
from iterinv.evaluate.report import write
from iterinv.evaluate.summary import Column, groups, tables

from conftest import call, refused

VOID = {"meta", "img", "input", "rect", "line", "br"}


def row(task, method="bdia", editor=None, kind="", picture="p", calls=7, error=None, **metrics):
    counted = None if error else {"forward": calls, "backward": 0}
    head = {"task": task, "kind": kind, "method": method, "editor": editor, "picture": picture}
    return {**head, "metrics": None if error else metrics, "calls": counted, "error": error}


def run(folder, rows, **settings):
    """Write the files of an evaluation."""
    folder.mkdir(exist_ok=True)
    manifest = {"dataset": "prompts", "methods": "bdia,ddim", "editors": "redraw", "steps": 20, **settings}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder


class Page(HTMLParser):
    """A page's elements, whose tags must match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two methods, an editor, a failure, kept pictures and names that are markup."""
    every = []
    for k, name in enumerate(("a/x.png", "b/<script>alert(1)</script> & é.png")):
        every += [
            row(name, "bdia", kind=f"k{k}", psnr=None, ssim=1.0),
            row(name, "ddim", kind=f"k{k}", psnr=30.0 + k, ssim=0.5),
        ]
        every += [row(name, "bdia", "redraw", f"k{k}", psnr_source=20.0, psnr_truth=10.0 + k)]
        for file in ("source", "truth", "bdia", "ddim", "bdia+redraw"):
            place = tmp_path / "run" / "pictures" / name / f"{file}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (500, 400), "red" if file == "source" else "blue").save(place)
    every.append(row("c.png", "ddim", kind="k0", error='c.png is "damaged" <b>'))
    return run(tmp_path / "run", every)


def test_the_page_is_one_file_that_asks_for_nothing(folder):
    write(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.all("link")
    assert [attributes for attributes in page.all("script") if attributes] == []
    for _, attributes in page.elements:
        assert not {"href", "srcset", "onclick", "onerror"} & set(attributes)
        assert attributes.get("src", "data:").startswith("data:")
    style_and_script = text[text.index("<style>") : text.index("</style>")] + text[text.rindex("<script>") :]
    assert not any(word in style_and_script for word in ("url(", "@import", "http", "fetch", "XMLHttpRequest"))
    assert len(page.all("script")) == 1  # none of a task's name


def test_the_pictures_have_words_and_sliders_that_keys_reach(folder):
    write(folder)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    images, sliders = page.all("img"), page.all("input")
    assert len(images) == 2 * 2 * 4  # of two tasks: two methods, an editor and the true answer, before and after
    assert len(sliders) == 2 * 4
    assert all(each["alt"].strip() for each in images)
    assert all(each["type"] == "range" and each["aria-label"].strip() for each in sliders)
    assert not any("tabindex" in each or "disabled" in each for each in sliders)
    for each in images:
        picture = Image.open(io.BytesIO(base64.b64decode(each["src"].partition(",")[2])))
        assert max(picture.size) == 384
    assert [each["alt"] for each in images if "bdia + redraw" in each["alt"]] == [
        "a/x.png, bdia + redraw",
        "b/<script>alert(1)</script> & é.png, bdia + redraw",
    ]
    assert all("aria-label" in each for each in page.all("svg"))


def test_the_tables_hold_the_means_and_can_be_sorted(folder):
    every = write(folder)
    page, markdown = (
        Page((folder / "report.html").read_text(encoding="utf-8")),
        (folder / "report.md").read_text(encoding="utf-8"),
    )
    assert len(page.all("th")) == page.elements.count(("button", {"type": "button"}))
    assert all(each["scope"] == "col" for each in page.all("th"))
    assert "| ddim | 3 | 1 | 30.5 ± 0.5 | 0.5 ± 0 | 7 | 0 |" in markdown
    assert "| bdia | 2 | 0 | exact | 1 ± 0 | 7 | 0 |" in markdown
    assert "| bdia + redraw | 2 | 0 | 20 ± 0 | 10.5 ± 0.5 | 7 | 0 |" in markdown
    assert '* ddim: 1, first: c.png is "damaged" <b>' in markdown
    titles = [title for title, _, _ in tables(every)]
    assert titles == ["Reconstructions", "Edits", "Reconstructions by kind", "Edits by kind"]
    assert "30.5 ± 0.5" in page.texts
    assert any('c.png is "damaged" <b>' in text for text in page.texts)


def test_the_plot_is_as_long_as_the_means(folder):
    run(folder, [row("a", "bdia", psnr=20.0), row("a", "ddim", psnr=40.0)])
    bars = [float(each["width"]) for each in Page(plot(groups(folder))).all("rect")]
    assert bars == [210.0, 420.0]
    assert plot([]) == ""


def test_a_page_holds_no_more_pictures_than_it_should(folder, monkeypatch):
    for most, figures in ((6, 2 * 4), (5, 4), (1, 4)):  # a task's three results and its true answer
        monkeypatch.setattr("iterinv.evaluate.page.MOST", most)
        write(folder)
        assert (folder / "report.html").read_text(encoding="utf-8").count("<input") == figures


def test_a_page_of_damaged_pictures_and_of_no_rows_is_written(folder):
    next((folder / "pictures").rglob("bdia.png")).write_bytes(b"none")
    write(folder)
    Page((folder / "report.html").read_text(encoding="utf-8"))
    run(folder, [])
    assert write(folder) == []


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_means_and_errors_are_those_of_numpy(values):
    column = Column()
    for each in [*values, None]:
        column.add(each)
    assert column.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert column.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=1e-9)
    assert (column.n, column.missing) == (len(values), 1)


@pytest.mark.parametrize(("n", "ones"), [(2, 1), (10, 3), (40, 20), (200, 12)])
def test_a_bootstrap_of_zeros_and_ones_is_binomial(n, ones):
    """The sum of a sample of n is binomial, so the interval's ends are its quantiles, up to the chance of the draws."""
    interval = paired.bootstrap(np.array([1.0] * ones + [0.0] * (n - ones)), draws=20_000)
    exact = binom.ppf([0.025, 0.975], n, ones / n) / n
    assert interval == pytest.approx(tuple(exact), abs=1 / n + 1e-9)


def test_a_bootstrap_of_many_values_is_normal():
    values = np.random.default_rng(0).normal(0.3, 2, 1000)
    low, high = paired.bootstrap(values, draws=20_000)
    spread = 1.959964 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - spread, values.mean() + spread), abs=0.05 * spread)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.floats(-5, 5))
def test_a_bootstrap_moves_with_its_values(values, shift):
    values = np.array(values)
    low, high = paired.bootstrap(values, draws=200)
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    assert paired.bootstrap(values + shift, draws=200) == pytest.approx((low + shift, high + shift), abs=1e-6)
    assert paired.bootstrap(-values, draws=200) == pytest.approx((-high, -low), abs=1e-6)
    assert paired.bootstrap(values, draws=200) == (low, high)
    assert paired.bootstrap(values[:1]) is None


def test_two_runs_are_compared_task_by_task(tmp_path):
    """The tasks differ far more than the runs: only pairs see the constant difference."""
    draw = random.Random(0)
    levels = [draw.uniform(10, 50) for _ in range(30)]
    first = [row(f"{k}", psnr=level, mse=1.0) for k, level in enumerate(levels)]
    second = [row(f"{k}", psnr=level + 0.5 + 0.1 * (k % 2), mse=2.0, calls=9) for k, level in enumerate(levels)]
    draw.shuffle(second)
    first += [row("only here", psnr=90.0, mse=0.0), row("failed", error="no")]
    second += [row("failed", psnr=1.0, mse=1.0)]
    results = paired.paired(run(tmp_path / "a", first), run(tmp_path / "b", second, steps=30))
    psnr, mse, forward, backward = results
    assert (psnr.metric, psnr.pairs) == ("psnr", 30)
    assert psnr.difference == pytest.approx(0.55)
    assert 0.5 < psnr.low < 0.55 < psnr.high < 0.6
    assert psnr.verdict == "better"
    assert (mse.difference, mse.low, mse.high, mse.verdict) == (1, 1, 1, "worse")
    assert (forward.metric, forward.difference, forward.verdict) == ("forward_calls", 2, "")
    assert backward.difference == 0
    back = paired.paired(tmp_path / "b", tmp_path / "a")[0]
    assert (back.difference, back.low, back.high) == pytest.approx((-psnr.difference, -psnr.high, -psnr.low))


def test_pictures_that_are_equal_are_counted_and_not_averaged(tmp_path):
    first = [row("a", psnr=None), row("b", psnr=30.0), row("c", psnr=None)]
    second = [row("a", psnr=40.0), row("b", psnr=33.0), row("c", psnr=None)]
    psnr, *_ = paired.paired(run(tmp_path / "a", first), run(tmp_path / "b", second))
    assert (psnr.pairs, psnr.difference, psnr.low) == (1, 3.0, None)
    assert (psnr.first_without, psnr.second_without) == (2, 1)


def test_unlike_methods_are_compared_by_choosing_them(tmp_path):
    every = [row("a", "bdia", psnr=40.0), row("a", "ddim", psnr=30.0), row("a", "bdia", "redraw", psnr_source=5.0)]
    folder = run(tmp_path / "a", every)
    psnr, *_ = paired.paired(folder, folder, "ddim", "bdia")
    assert (psnr.method, psnr.difference) == ("ddim → bdia", 10.0)
    (name, metric, *_), *_ = paired.cells(paired.paired(folder, folder, "bdia/redraw", "bdia/redraw"))
    assert (name, metric) == ("bdia/redraw → bdia/redraw", "psnr_source")
    for words, first, second in (("has no rows of magic", "magic", "bdia"), ("choose both, or none", "bdia", "")):
        with pytest.raises(ValueError, match=words):
            paired.paired(folder, folder, first, second)


def test_the_command_prints_and_writes_the_differences(tmp_path):
    first = run(tmp_path / "a", [row(f"{k}", psnr=30.0 + k) for k in range(5)])
    second = run(tmp_path / "b", [row(f"{k}", psnr=31.0 + k) for k in range(5)], steps=30)
    result = call("report", first, second, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "1 to 1" in result.output
    assert "better" in result.output
    values = json.loads((tmp_path / "out" / "paired.json").read_bytes())["differences"]
    assert values[0]["difference"] == 1
    assert "| steps | 20 | 30 |" in (tmp_path / "out" / "paired.md").read_text()
    other = run(tmp_path / "c", [row("0", psnr=1.0, picture="q")])
    refused("the task 0 has another picture", "report", first, other)
    refused("have no task, method and editor in common", "report", first, run(tmp_path / "d", [row("9", psnr=1.0)]))
    refused("holds no evaluation", "report", first, tmp_path / "none")
    (tmp_path / "d" / "manifest.json").write_text("[")
    refused("is damaged", "report", first, tmp_path / "d")
    refused("cannot be written", "report", first, second, "--out", tmp_path / "a" / "manifest.json" / "x")

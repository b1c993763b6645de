"""The benchmarks' tables count no failed rows and do not compare different pictures; pages quote measured values."""

import json
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))


@pytest.fixture(scope="module")
def methods():
    import methods

    return methods


def row(psnr, forward, backward=0, seconds=1.0):
    """Make a row with equal stages, or without stages where ``psnr`` is the word for a failure."""
    stage = {
        "reconstruction": {"psnr": psnr, "exact_pixels": float(psnr is None)},
        "seconds": seconds,
        "residual_max": 0.0,
        "network_calls": {"forward": forward, "backward": backward},
        "terminal_noise": {"std": 1.0},
    }
    if psnr == "failed":
        return {"method": "m", "psnr": None, "network_calls": None, "terminal_noise": None, "stages": []}
    calls = {"forward": 3 * forward, "backward": 3 * backward}
    return {
        "method": "m",
        "psnr": psnr,
        "network_calls": calls,
        "seconds": 3 * seconds,
        "peak_memory_mb": 1.0,
        "terminal_noise": {"std": 1.0},
        "stages": [stage] * 3,
    }


def test_every_job_is_one_and_what_has_a_figure_comes_before_the_rest(methods):
    jobs = methods.jobs()
    assert len(jobs) == len(set(jobs))
    exact = {
        (n, w, name, m)
        for n in methods.STEPS
        for w in methods.GUIDANCE
        for name in methods.pictures()
        for m in ("bdia", "bdia-fixed")
    }
    assert exact <= set(jobs)
    assert len(methods.pictures()) == methods.SCENES + methods.PHOTOGRAPHS
    assert all(words for _, words in methods.pictures().values())


def test_ratios_are_of_the_pictures_that_both_ran_on(methods):
    rows = {
        (20, 1.0, "a", "bdia"): row(None, 39),
        (20, 1.0, "b", "bdia"): row(None, 390),
        (20, 1.0, "a", "iterinv"): row(46.0, 440, 420, seconds=41.0),
        (20, 1.0, "c", "iterinv"): row(46.0, 1),
        (50, 1.0, "a", "iterinv"): row("failed", 0),
    }
    ratios = methods.ratios(rows)
    assert "| `bdia`, 20 steps | `iterinv`, 20 steps | 1 | 32.8 | 41.0 | exact / exact | 46 / 46 |" in ratios
    assert "50 steps" not in ratios


def test_what_failed_is_not_exact(methods):
    rows = {(20, 5.0, "a", "bdia-fixed"): row("failed", 0), (20, 5.0, "b", "bdia-fixed"): row(40.0, 39)}
    assert "| bdia-fixed | 20 | 5 | 0 of 1 | 1 of 1 |" in methods.guided(rows)
    mean = methods.mean([row(40.0, 10), row(None, 10), row(50.0, 10)])
    assert (mean["pictures"], mean["exact"], mean["psnr"], mean["mean"]) == (3, 1, 40.0, 45.0)


@pytest.mark.slow
def test_full_sizes_are_timed_on_the_networks_that_are_named(monkeypatch):
    """The test runs narrower networks: the page has a line per precision and one per way of inverting."""
    import full_size
    from iterinv.families import PUBLISHED, deepfloyd, upscaler

    lines = []
    monkeypatch.setattr(full_size, "publish", lambda *page: lines.append(page))
    for name, value in (("STEPS", 4), ("CALLS", 1)):
        monkeypatch.setattr(full_size, name, value)
    name, x4 = "DeepFloyd/IF-I-M-v1.0", full_size.X4
    thin = partial(upscaler.X4, block_out_channels=[32, 32, 32, 32], cross_attention_dim=32)
    for each, network in ((name, partial(deepfloyd.first, 32, attention_head_dim=32)), (x4, thin)):
        monkeypatch.setitem(full_size.PUBLISHED, each, replace(PUBLISHED[each], network=network))
    monkeypatch.setattr(full_size, "NAMES", (name,))
    full_size.main("cpu", (name,))
    ((page, _, body, *_),) = lines
    assert page == "full-size"
    assert [line.count("IF-I-M-v1.0") for line in body.splitlines()].count(1) == 3 + 1
    where = full_size.stage(x4, full_size.torch.float32, "cpu")
    assert where.shape == (4, 256, 256)
    assert where.encode(full_size.torch.zeros(1, 3, 1024, 1024)).shape == (1, 4, 256, 256)


PAGES = Path(__file__).parents[1] / "docs"


def test_figures_in_the_prose_are_those_that_the_script_measured():
    """Bold figures on the page stand in the benchmark's tables."""
    page = (PAGES / "why-figures-differ.md").read_text(encoding="utf-8")
    cells = re.split(r"[|\n]", (PAGES / "benchmarks" / "figures.md").read_text(encoding="utf-8"))
    figures = re.findall(r"\*\*([^*]+)\*\*", page)
    assert len(figures) > 25
    assert not sorted(set(figures) - {cell.strip() for cell in cells})


def test_the_page_of_metrics_has_each_with_its_direction_and_range():
    from iterinv.metrics import metrics

    rows = re.findall(
        r"^\| (`.*?) \| (.*?) \| (.*?) \|", (PAGES / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    listed = {name: (better, ends) for names, better, ends in rows for name in re.findall("`(.*?)`", names)}
    assert set(listed) == set(metrics())
    for name, metric in metrics().items():
        least, most = (f"{end:g}" for end in metric.range)
        assert listed[name] in ((metric.direction, f"{least} to {most}"), ("as without", "as without")), name


def test_flip_on_the_committed_pictures_is_that_of_its_package():
    import metrics as bench
    from iterinv.metrics import flip

    theirs = json.loads(bench.FLIP.read_text(encoding="utf-8"))
    ours = {name: [flip(*pair) for pair in pairs] for name, pairs in bench.pairs().items()}
    assert set(theirs) == set(ours)
    for name, values in ours.items():
        assert values == pytest.approx(theirs[name], abs=1e-5)


def test_the_page_on_exactness_quotes_its_table():
    """Decibels in the page, but for differences, are means of the table's settings of 20 steps."""
    docs = Path(__file__).parents[1] / "docs"
    lines = (docs / "benchmarks" / "exact_and_editable.md").read_text(encoding="utf-8").splitlines()
    cells = [line.split(" | ") for line in lines if line.startswith("| 20 |")]
    means = {cell.split(" ± ")[0] for line in cells for cell in (line[8], line[9])}
    quoted = re.findall(r"\d+\.\d(?= dB(?! more))|(?<=\()\d+\.\d(?= dB)", (docs / "exact-and-editable.md").read_text())
    assert len(cells) == 54
    assert len(quoted) >= 7
    for figure in set(quoted) - {"7.5", "4.6"}:  # differences
        assert figure in means, figure


def test_settings_are_shown_where_both_kinds_have_two_rows():
    import exact_and_editable as study

    row = {"way": "DDIM", "guidance": 1.0, "steps": 50, "error": 0.1}
    row |= {"changed 1": True, "truth 1": 20.0, "outside 1": 40.0}
    rows = [{**row, "kind": kind} for kind in ("recolour", "reshape") for _ in range(2)]
    assert study.by_setting(rows[:3]) == {}
    ((setting, group),) = study.by_setting([*rows, {**rows[0], "changed 1": False, "outside 1": 34.0}]).items()
    assert setting == (50, 1.0, 1.0, "DDIM")
    (line,) = study.lines({setting: group})
    assert line[4:7] == ["5", "1e-01", "67 ± 33"]
    assert line[7] == "100 ± 0"
    assert line[9] == "38.8 ± 1.2"


def test_every_page_is_of_the_weights_that_ship_or_says_that_it_is_not():
    import stale

    for file, page in stale.pages().items():
        marked = stale.MARK in file.read_text(encoding="utf-8")
        assert marked == bool(page.outdated), (
            f"{file.name}: run its benchmark again, or python benchmarks/stale.py --mark"
        )


def test_a_page_of_other_weights_is_outdated_until_it_is_written_again(tmp_path):
    import stale

    file, ours = tmp_path / "one.md", stale.weights("stage II")
    foot = "Made by `python benchmarks/one.py` at 0123abc-dirty in 7 s: x86_64; stage II {}; iterinv 0.1.0."
    file.write_text(f"# One\n\nText.\n\n{foot.format('00000000')}\n")
    page = stale.page(file)
    assert (page.name, page.commit, page.seconds, page.outdated) == ("one", "0123abc", 7, ["stage II"])
    for _ in range(2):
        stale.mark(file)
    assert file.read_text().split("\n\n")[:3] == ["# One", stale.MARK, "Text."]
    file.write_text(f"# One\n\nText.\n\n{foot.format(ours)}\n")
    assert not stale.page(file).outdated
    file.write_text("# One\n\nText.\n")
    with pytest.raises(ValueError, match="does not say in its last line how it was made"):
        stale.page(file)

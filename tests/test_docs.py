"""Every block of code in README.md and in the pages runs, or says why it does not; the site builds by itself.

A block is run in the order of its page, in a folder with the pictures of ``examples/`` and a few that stand for the
reader's own. A command or a program with a comment of :data:`REASONS` is not run: its options, or its syntax and the
names it takes from this package, are checked all the same.
"""

import ast
import doctest
import importlib
import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import typer.main
from PIL import Image

import iterinv
from iterinv.__main__ import command_line
from iterinv.edits import EDITORS
from iterinv.methods import METHODS
from iterinv.metrics import metrics

from conftest import call

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
REASONS = ("needs a download", "needs a GPU", "needs the extra", "takes minutes", "serves until it is stopped")
SKIPPED = re.compile(rf"#.*\b({'|'.join(REASONS)})\b")
KINDS = {"console", "python", "pycon", "text", "json", "yaml", "toml"}
SLOW = {
    "README.md",
    "docs/evaluate.md",
    "docs/editors.md",
    "docs/integrations.md",
    "docs/metrics.md",
    "docs/not-back.md",
    "docs/own-size.md",
    "docs/python.md",
    "docs/real-models.md",
    "docs/table1.md",
    "docs/terminal.md",
    "docs/tutorial.md",
}
"""Pages whose blocks take more than a few seconds."""


class Block(NamedTuple):
    """A block of a page. One with a ``title`` is a file of that name."""

    kind: str
    title: str
    text: str


class Command(NamedTuple):
    """A command of a console block: its words, the reason not to run it, and the output that the page shows."""

    words: list[str]
    skipped: bool
    output: str


def blocks(page):
    fenced = re.findall(
        r'^```(?:\{ \.)?(\w*)(?: title="([\w.]+)")?[^\n]*\n(.*?)^```$',
        page.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return [Block(*each) for each in fenced]


def commands(block):
    joined = block.text.replace("\\\n", " ")
    parts = re.split(r"^\$ ", joined, flags=re.MULTILINE)
    assert not parts[0].strip(), f"a console block begins with a command: {block.text[:60]}"
    made = []
    for part in parts[1:]:
        line, _, output = part.partition("\n")
        words = shlex.split(line, comments=True)
        made.append(Command(words[: words.index(">")] if ">" in words else words, bool(SKIPPED.search(line)), output))
    return made


def included(block):
    """The files that a block shows in place of its own text."""
    return re.findall(r'^--8<-- "(.*)"$', block.text, re.MULTILINE)


def every(kind):
    return [(name(page), block) for page in PAGES for block in blocks(page) if block.kind == kind]


def name(page):
    return str(page.relative_to(ROOT))


def with_blocks():
    for page in PAGES:
        if {"console", "python", "pycon"} & {block.kind for block in blocks(page)}:
            yield pytest.param(page, id=name(page), marks=[pytest.mark.slow] if name(page) in SLOW else [])


def test_every_block_says_what_it_is():
    assert not [(name(page), block) for page in PAGES for block in blocks(page) if block.kind not in KINDS]


def targets():
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def extras():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def silenced(command):
    """Replace what a command does by nothing, so that its options alone are read."""
    for each in getattr(command, "commands", {}).values():
        silenced(each)
    command.callback = lambda **_: None
    return command


def test_every_command_is_one_with_such_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in (block for page in PAGES for block in blocks(page) if block.title):
        Path(block.title).write_text(block.text)
    group, count = silenced(typer.main.get_command(command_line())), 0
    for page, block in every("console"):
        for words, skipped, _ in commands(block):
            count, where = count + 1, f"{page}: {shlex.join(words)}"
            program, *rest = words
            if program == "iterinv":
                try:
                    group.main(rest, "iterinv", standalone_mode=False)
                except Exception as error:
                    pytest.fail(f"{where}: {error}")
            elif program == "make":
                assert rest[0] in targets(), where
            elif program == "pip":
                named = re.search(r"\[([\w,]+)\]", rest[-1])
                assert set(named[1].split(",") if named else ()) <= set(extras()), where
            else:
                assert skipped, f"{where}: say why it is not run, by one of {REASONS}"
    assert count > 35


def names_of_the_package(program):
    """The names that a program takes from the package: modules that it imports, and parts of them."""
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("iterinv"):
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "iterinv":
            yield f"iterinv.{node.attr}"


def test_programs_that_are_not_run_take_names_that_exist():
    count = 0
    for page, block in every("python"):
        if SKIPPED.search(block.text):
            for each in names_of_the_package(block.text):
                count += 1
                module, _, part = each.rpartition(".")
                assert hasattr(importlib.import_module(module), part), f"{page}: there is no {each}"
    assert count > 1


def test_an_included_file_is_an_example_that_is_tested():
    tested = (ROOT / "tests" / "test_extending.py").read_text()
    files = [file for _, block in every("python") for file in included(block)]
    assert len(files) > 4
    for file in files:
        assert f'example("{Path(file).stem}")' in tested, file


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """A folder with the examples, and pictures that stand for those of a reader."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", "examples")
    picture = Image.open("examples/red-sphere.png")
    for file in ("photo.png", "scene.png"):
        picture.save(file)
    picture.resize((480, 480)).save("photo.jpg", quality=95)
    for folder in ("pictures", "originals", "reconstructions"):
        Path(folder).mkdir()
        picture.save(Path(folder, "a.png"))
    Path("pictures", "a.txt").write_text("a red sphere on a wooden floor\n")
    for file in ("original.png", "edited.png"):
        picture.save(file)
    Path("out").mkdir()
    Image.new("L", picture.size, 255).save("out/mask.png")
    return tmp_path


@pytest.mark.parametrize("page", with_blocks())
def test_the_blocks_of_a_page_run(page, readers_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.text)
        elif block.kind == "console":
            for command in commands(block):
                if command.words[0] == "iterinv" and not command.skipped:
                    runs(command)
        elif block.kind == "python" and not SKIPPED.search(block.text) and not included(block):
            exec(compile(block.text, name(page), "exec"), names)
        elif block.kind == "pycon":
            talks(block, names, page)


OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def runs(command):
    """Run a command. Its output is that of the page, if the page shows one."""
    result = call(*command.words[1:])
    assert result.exit_code == 0, f"{shlex.join(command.words)}\n{result.output}"
    if command.output.strip():
        shown = doctest.OutputChecker().check_output(command.output, result.output, OPTIONS)
        assert shown, f"{shlex.join(command.words)} printed\n{result.output}and the page shows\n{command.output}"


def talks(block, names, page):
    """Run the lines after `>>>`. Their output is that of the page."""
    examples = doctest.DocTestParser().get_doctest(block.text, {}, name(page), name(page), 0)
    examples.globs = names
    printed = io.StringIO()
    failed = doctest.DocTestRunner(optionflags=OPTIONS).run(examples, out=printed.write, clear_globs=False).failed
    assert not failed, printed.getvalue()


def test_links_of_files_outside_the_site_lead_somewhere():
    for page in (*PAGES[:2], ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert re.match(r"https?://", target) or (ROOT / target).exists(), f"{page.name}: {target}"


def test_formulas_become_mathml_and_roles_become_links(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from docsite import maths, roles
    from mkdocs.exceptions import PluginError

    made = maths.on_page_content('<p>So <span class="arithmatex">\\(x_a &lt; 1\\)</span>.</p>')
    assert made.startswith("<p>So <math")
    assert "<msub><mi>x</mi><mi>a</mi></msub>" in made
    with pytest.raises(PluginError, match="nothing, which latex2mathml does not know"):
        maths.on_page_content('<div class="arithmatex">\\[\\nothing x\\]</div>')
    link = '<autoref optional identifier="iterinv.Plan"><code>{}</code></autoref>'
    assert roles.linked("a :class:`iterinv.Plan`") == "a " + link.format("Plan")
    assert roles.linked("a :class:`plan <iterinv.Plan>`::\n\n    x") == "a " + link.format("plan") + ":\n\n    x"


EXTERNAL = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b(?![^>]*rel=["']?(?:canonical|next|prev))[^>]*\bhref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|(?:url\(|@import )["']?(?:https?:)?//[^"')]+"""
)


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_no_other_host(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    for file in [*pages, *tmp_path.rglob("*.css")]:
        text = file.read_text(encoding="utf-8")
        assert not EXTERNAL.findall(text), file
        assert 'class="arithmatex"' not in text, f"{file}: a formula is not MathML"
    assert "<math" in (tmp_path / "how-it-works.html").read_text(encoding="utf-8")
    assert "AdamsBashforth2" in (tmp_path / "extending" / "rule.html").read_text(encoding="utf-8")


def rows(page, heading):
    """The rows of the first table after a heading, cell by cell."""
    text = (ROOT / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_readme_is_short_and_its_tables_name_what_there_is():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 115
    methods = {name for row in rows("README.md", "Methods") for name in re.findall(r"`([\w-]+)`", row[0])}
    assert {name for name in methods if not name.startswith("-")} - {"--method"} == set(METHODS)
    named = {name for row in rows("README.md", "Commands") for name in re.findall(r"[a-z][a-z0-9]+", row[0])}
    assert named - {"iterinv"} <= set(typer.main.get_command(command_line()).commands)


@pytest.mark.slow
def test_the_tables_of_large_models_are_what_iterinv_cost_computes():
    from iterinv.costs import MODES, costs, peak
    from iterinv.methods import plan

    calls = {row[0].strip("`"): row for row in rows("docs/real-models.md", "Calls and time")}
    for name, sizes, *gigabytes in rows("docs/real-models.md", "Memory"):
        stages = costs(name.strip("`"), plan(), torch.float16)
        once = {stage.source: stage for stage in reversed(stages)}.values()
        weights = sum(stage.weights + stage.text_weights + stage.codec_weights for stage in once)
        assert sizes == ", ".join(str(stage.size) for stage in stages)
        assert gigabytes == [f"{each / 1e9:.1f}" for each in (weights, *(peak(stages, mode) for mode in MODES))]
        tflop = [stage.seconds(1e12) for stage in stages]
        shown = [str(stages[0].forward), ", ".join(f"{each:.0f}" for each in tflop), f"{sum(tflop):.0f}"]
        assert calls[name.strip("`")][1:] == shown
        assert len({stage.forward for stage in stages}) == 1


def test_the_pictures_of_the_first_page_are_small():
    files = list((ROOT / "docs" / "images").glob("one-*.webp"))
    assert len(files) == 8
    assert sum(file.stat().st_size for file in files) < 300_000


def test_the_names_of_diffusers_are_those_of_the_installed_version():
    library, left = importlib.import_module("diffusers"), [row[0] for row in rows("docs/coming-from.md", "diffusers")]
    named = {name for cell in left for name in re.findall(r"`(\w+(?:Pipeline\w*|Scheduler))\b", cell)}
    assert len(named) > 6
    assert not [name for name in named if not hasattr(library, name)]


def test_the_names_on_the_right_are_those_of_the_package():
    from iterinv import edits, steps

    page = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
    for heading in ("diffusers", "PnPInversion", "EDICT"):
        for row in rows("docs/coming-from.md", heading):
            for kind, listed in (("method", METHODS), ("editor", EDITORS), ("metric", metrics())):
                for names in re.findall(rf"{kind}s? ((?:`[\w-]+`(?:, | or )?)+)", row[1]):
                    assert set(re.findall(r"`([\w-]+)`", names)) <= set(listed), row
    for name, settings in re.findall(r"`iterinv\.(?:edits\.)?([A-Z]\w+)\(([^`(]*)\)`", page):
        made = getattr(edits, name, None) or getattr(iterinv, name)
        fields = getattr(made, "__dataclass_fields__", {})
        for setting in re.findall(r"(\w+)=", settings):
            assert setting in fields or name == "BDIAScheduler", f"{name} has no {setting}"
    assert "p" in steps.EDICT.__dataclass_fields__

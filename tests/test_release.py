"""The release is complete: what it says of itself is true, and the wheel works outside of this checkout."""

import ast
import importlib.metadata
import io
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import replace
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image
from trove_classifiers import classifiers

import iterinv
from iterinv.inspect import doctor
from iterinv.presets import presets
from iterinv.reading.errors import BadPicture, Refused

from conftest import call

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "iterinv"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: each for name, each in PROJECT["optional-dependencies"].items() if name not in {"dev", "docs"}}
"""The extras of users."""

FROM_INDEX = "ITERINV_FROM_INDEX" in os.environ
"""The wheel is installed with packages from the index: see the Makefile."""

LARGEST = 100_000_000
"""The most bytes of a file that the Python package index takes."""

EXPECTED = 30_000_000
"""The most bytes that the wheel and the source archive should have, most of them weights."""


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_one():
    newest = re.search(r"^## (\S+) - (\S+)$", text("CHANGELOG.md"), re.MULTILINE)
    citation = yaml.safe_load(text("CITATION.cff"))
    assert iterinv.__version__ == newest[1] == citation["version"]
    assert date.fromisoformat(newest[2]) == date.fromisoformat(citation["date-released"])


def test_the_citation_has_what_its_format_asks_for():
    """The fields and types of version 1.2.0 of the Citation File Format."""
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]
    for entry in (citation, *citation["references"]):
        assert isinstance(entry["title"], str)
        assert entry["authors"]
        for author in entry["authors"]:
            assert set(author) in ({"name"}, {"family-names", "given-names"})
    for reference in citation["references"]:
        assert reference["url"] in text("README.md")


def test_the_metadata_are_known_words():
    assert set(PROJECT["classifiers"]) <= classifiers
    assert {f"Programming Language :: Python :: {version}" for version in ("3.11", "3.12", "3.13")} <= set(
        PROJECT["classifiers"]
    )
    assert PROJECT["requires-python"] == ">=3.11"


def test_every_package_that_the_code_imports_is_declared():
    """Optional ones have an extra, or a sentence of their own: `onnxruntime`, since its builds differ by device, and
    `datasets`, which opens one format."""
    tables = [PROJECT["dependencies"], *EXTRAS.values()]
    declared = {normal(Requirement(each).name) for table in tables for each in table} | {"onnxruntime", "datasets"}
    homes = importlib.metadata.packages_distributions()
    imported = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    missing = {
        name
        for name in imported - set(sys.stdlib_module_names) - {"iterinv"}
        if not declared & {normal(home) for home in homes.get(name, [name])}
    }
    assert not missing


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_extra_is_pinned_and_known_to_the_readme_and_the_doctor():
    pinned = {normal(line.partition("==")[0]) for line in text("constraints.txt").splitlines() if "==" in line}
    tables = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert {normal(Requirement(each).name) for table in tables for each in table} - {"iterinv"} <= pinned
    for extra in EXTRAS:
        assert f"| `{extra}` |" in text("README.md")
    assert set(doctor.EXTRAS) == set(EXTRAS)


def test_the_limits_in_the_security_policy_are_those_of_the_code():
    from iterinv.store import LONGEST_HEADER
    from iterinv.web import requests, server, session

    policy = " ".join(text("SECURITY.md").split())
    assert f"a JSON header of at most {LONGEST_HEADER // 10**6} MB" in policy
    assert f"Uploads have at most {server.BYTES >> 20} MiB, pictures {server.PIXELS // 10**6} megapixels" in policy
    assert f"prompts {requests.LONGEST} characters" in policy
    assert f"{server.WAITING} more wait, and the inversions of {session.SESSIONS} visitors" in policy


def captions():
    from iterinv.families import deepfloyd

    deepfloyd._cleaner(None)


def photographs():
    from iterinv.embedded.train import data

    data.photographs(64)


def heic():
    from iterinv.reading import formats

    formats._heif(io.BytesIO())


def st_lpips():
    from iterinv.metrics.st_lpips import load, st_lpips

    load.cache_clear()  # an earlier test may have read the weights
    st_lpips(*[np.zeros((64, 64, 3), np.uint8)] * 2)


def serve():
    raise ModuleNotFoundError(call("serve").output)


def workers():
    from iterinv.evaluate.ray_workers import RayWorkers

    RayWorkers(None, 1)


def terrain():
    absent = replace(presets()["terrain"], sources=(Path("absent.onnx"),))  # its file is looked for on import
    with mock.patch.dict(presets(), terrain=absent):
        iterinv.load("terrain")


FEATURES = {
    "if": (
        "ftfy",
        captions,
        "import sentencepiece; from diffusers.utils import is_bs4_available, is_ftfy_available; "
        "assert is_bs4_available() and is_ftfy_available()",
    ),
    "train": (
        "sklearn",
        photographs,
        "from iterinv.embedded.train import read_recipe; from iterinv.embedded.train.data import photographs; "
        "assert read_recipe() and photographs(64)",
    ),
    "heif": (
        "pillow_heif",
        heic,
        "import pillow_heif; from pathlib import Path; from PIL import Image; from iterinv import images; "
        "pillow_heif.from_pillow(Image.new('RGB', (16, 16))).save('a.heic'); "
        "assert images.read(Path('a.heic'))[0].shape == (16, 16, 3)",
    ),
    "metrics": (
        "stlpips_pytorch",
        st_lpips,
        "import torchmetrics; from iterinv.metrics.st_lpips import missing; assert missing() is None",
    ),
    "web": ("gradio", serve, "import iterinv.web.server"),
    "ray": ("ray", workers, "import ray, iterinv.evaluate.ray_workers"),
    "foreign": ("terrain_diffusion", terrain, "import iterinv; iterinv.load('terrain')"),
}
"""A package of each extra, a function that needs it, and a program that uses all that the extra installs."""


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_a_missing_extra_is_named(extra, monkeypatch):
    package, use, _ = FEATURES[extra]
    for name in [package, *(each for each in sys.modules if each.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("diffusers.utils.is_ftfy_available", lambda: sys.modules.get("ftfy") is not None)
    with pytest.raises((ModuleNotFoundError, FileNotFoundError, BadPicture, Refused)) as caught:
        use()
    assert f"pip install 'iterinv[{extra}]'" in " ".join(str(caught.value).split())


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Build the source archive and, from it, the wheel; return their paths."""
    folder = tmp_path_factory.mktemp("release")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(release):
    _, wheel = release
    assert wheel.stat().st_size < EXPECTED < LARGEST
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"iterinv-{iterinv.__version__}.dist-info/METADATA").decode()
        licence = archive.read(f"iterinv-{iterinv.__version__}.dist-info/licenses/LICENSE").decode()
    assert {name.partition("/")[0] for name in names} == {"iterinv", f"iterinv-{iterinv.__version__}.dist-info"}
    files = {f"iterinv/{file.relative_to(SOURCE).as_posix()}" for file in SOURCE.rglob("*") if file.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert {name for name in names if name.startswith("iterinv/")} == files
    assert {
        "iterinv/py.typed",
        "iterinv/embedded/weights/cascade/stage3/unet/diffusion_pytorch_model.safetensors",
    } <= names
    assert not [name for name in names if re.search("test|benchmark|conftest", name.lower())]
    assert licence == text("LICENSE")
    for line in (
        "License-Expression: Apache-2.0",
        "Requires-Python: >=3.11",
        "Description-Content-Type: text/markdown",
    ):
        assert line in metadata
    assert set(re.findall("^Provides-Extra: (.+)$", metadata, re.MULTILINE)) == set(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_the_source_archive_holds_what_the_tests_need(release):
    source, _ = release
    assert source.stat().st_size < EXPECTED < LARGEST
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    if not (ROOT / ".git").exists():
        pytest.skip("only a checkout knows which files belong to it")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    assert set(filter(None, tracked)) - names <= {".gitignore"}


@pytest.fixture(scope="module")
def elsewhere(release, tmp_path_factory):
    """Install the wheel into an environment of its own; return a function that runs a program of it in an empty folder.

    It sees this environment's other packages, but not this checkout. With ``FROM_INDEX`` it sees none, and takes all
    from the package index, at the versions of the constraints.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "empty").mkdir()
    venv.create(folder / "venv", with_pip=FROM_INDEX)
    python = folder / "venv" / "bin" / "python"
    if FROM_INDEX:
        install(python, str(release[1]))
    else:
        words = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*words, release[1]], check=True, capture_output=True)
        packages = next(folder.glob("venv/lib/python*/site-packages"))
        (packages / "others.pth").write_text(f"{Path(np.__file__).parents[1]}\n")

    def run(*words):
        environment = {"PATH": str(python.parent), "HOME": str(folder), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(words, cwd=folder / "empty", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder, run.python = folder / "empty", python
    return run


def install(python, what):
    """Install a package and what it needs into the environment of a Python, from the package index."""
    words = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", what]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_installed_wheel_runs(elsewhere):
    assert elsewhere("python", "-c", "import iterinv; print(iterinv.__version__)").strip() == iterinv.__version__
    where = Path(elsewhere("python", "-c", "import iterinv; print(iterinv.__file__)").strip())
    assert ROOT not in where.parents
    assert (where.parent / "py.typed").is_file()
    assert "invert" in elsewhere("iterinv", "--help")
    picture, (prompt, target) = (
        ROOT / "examples" / "red-sphere.png",
        (f"a large {colour} shiny sphere on a wooden floor in front of a beige wall" for colour in ("red", "blue")),
    )
    words = "edit", picture, "--prompt", prompt, "--to", target, "--steps", "5", "--keep-inversion", "--out", "out"
    elsewhere("iterinv", *words)
    original, back, edited = (
        np.array(Image.open(elsewhere.folder / "out" / f"{name}.png")).astype(int)
        for name in ("original", "reconstruction", "edited")
    )
    assert (original == back).all()
    assert edited[128, 128].argmax() == 2


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_what_an_extra_is_for_works_with_it(extra, release, elsewhere):
    package, _, program = FEATURES[extra]
    if FROM_INDEX:
        install(elsewhere.python, f"{release[1]}[{extra}]")
    elif find_spec(package) is None:
        pytest.skip(f"iterinv[{extra}] is not installed here")
    elsewhere("python", "-c", program)

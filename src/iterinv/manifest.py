"""Facts about a run: versions and peak memory."""

from __future__ import annotations

import ctypes
import gc
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

import iterinv


def versions() -> dict[str, str]:
    """The versions that numbers depend on: this package, Python and the libraries that compute."""
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("torch", "diffusers", "transformers", "numpy")}
    if runtime := sys.modules.get("onnxruntime"):  # of several distributions, and loaded only where it computes
        libraries["onnxruntime"] = runtime.__version__
    return {"iterinv": iterinv.__version__, "python": platform.python_version(), **libraries}


def commit() -> str | None:
    """The commit of this package's code, with ``-dirty`` if its files were changed since; ``None`` where it is not in a
    repository of its own."""
    folder = Path(__file__).parent

    def git(*words: str) -> str | None:
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=20)
            return done.stdout.strip() if done.returncode == 0 else None
        return None

    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    head, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", "--", ".")
    return f"{head}-dirty" if head and changed else head


def peak_memory_mb() -> float:
    """The most memory this process held at any time, in MB: the GPU's where one is used, else resident memory."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e6
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Measure the most memory that the process holds within the block, in MB: call the value after the block.

    On Linux the heap's free pages are given back first and the kernel's mark is reset, so that earlier work does not
    count; elsewhere it is the process's own peak so far.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    peaks: list[float] = []
    yield lambda: peaks[0]
    peaks.append(round(peak_memory_mb(), 1))

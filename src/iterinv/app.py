"""What every face of the package calls: load a cascade, invert, reconstruct, edit, sample; with files, reports, progress.

Work is done first and written last: an output folder gets all of its files or none.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import iterinv
from iterinv import images, metrics, sources, store
from iterinv.cascade import Cascade, resize
from iterinv.diagnosis import diagnose
from iterinv.edits.site import Edit, Editor
from iterinv.inversion import Inversion
from iterinv.models.presets import Defaults, presets
from iterinv.store import Saved

FILES = (
    "original.png", "reconstruction.png", "edited.png", "mask.png", "comparison.png", "report.json", "inversion.safetensors",
    "compare.json", "compare.png",
)  # fmt: skip
"""All that a run may write."""


def load(
    what: Any = "embedded", dtype: torch.dtype | None = None, device: str = "cpu", torch_dtype: torch.dtype | None = None,
    memory: str | None = None, **how: Any,
) -> Cascade:  # fmt: skip
    """The cascade that ships with the package; one of :data:`iterinv.models.presets.PRESETS`; that of a folder with a
    ``cascade.json``; or stages by themselves, one or a list from small to large, each a diffusers folder, a name on the hub, a
    TorchScript file, a live pipeline or a module of EDM's kind.

    ``dtype`` is the networks', float32 if not given (``torch_dtype`` is its older name); states keep their own. Of a live
    pipeline it is the pipeline's. ``memory`` is how much the device has, as ``16gb``, or ``auto``: what does not fit there at
    once takes turns, network by network or layer by layer, and a T5 encoder is loaded only to read new words. ``how``:
    ``noise_level`` on the pictures from below, ``clean`` captions as DeepFloyd does, ``tiled`` autoencoders in less memory,
    ``allow_pickle``, and diffusers' ``variant``, ``revision``, ``local_files_only``. Raises ``FileNotFoundError`` for what is
    not there, ``ValueError`` for what is no stage, ``MemoryError`` for what fits in no way.
    """
    dtype = dtype or torch_dtype or torch.float32
    if memory is not None:
        from iterinv import costs
        from iterinv.models.memory import budget

        how["mode"] = costs.fitting(what, dtype, budget(memory, device))
    if isinstance(what, (str, Path)):
        where = Path(what).resolve() if Path(what).exists() else what
        return _kept(where, dtype, device, **how)
    return _load(what, dtype, device, **how)


def precision(name: str) -> torch.dtype:
    """The dtype of a name. Raises ``ValueError`` for another than float32, float16 and bfloat16."""
    names = ("float32", "float16", "bfloat16")
    if name not in names:
        raise ValueError(f"there is no precision {name!r} for networks: take {', '.join(names)}")
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def _load(what: Any, dtype: torch.dtype, device: str, **how: Any) -> Cascade:
    with _quiet():
        preset = presets().get(what) if isinstance(what, str) else None
        return Cascade(sources.stages(what, dtype, device, **how), preset.defaults if preset else Defaults())


_kept = lru_cache(maxsize=1)(_load)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps diffusers and transformers from printing bars and advice while folders are opened."""
    import diffusers.utils.logging as d
    import transformers.utils.logging as t

    before = d.get_verbosity(), t.get_verbosity()
    for library in (d, t):
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        d.set_verbosity(before[0])
        t.set_verbosity(before[1])
        d.enable_progress_bar()
        t.enable_progress_bar()


def check_prompt(prompt: str, name: str) -> str:
    """The prompt, stripped. Raises ``ValueError`` if it is empty or no text; ``name`` is what the message calls it."""
    if not re.search(r"\w", prompt):
        raise ValueError(f"{name} is empty: say in words what the picture shows, or should show")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not text in UTF-8: type it again") from None
    return prompt.strip()


@contextmanager
def outputs(folder: Path) -> Iterator[Path]:
    """A staging folder whose files move to ``folder`` when the block ends well, and vanish when it does not.

    Files of the same names are replaced; they come back if not all can be. Raises ``OSError`` at once if ``folder`` cannot be
    written.
    """
    made: list[Path] = []
    staging = folder / f".iterinv-{secrets.token_hex(8)}"  # named before it is made: a stop may come right after
    try:
        try:
            made = [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            staging.mkdir(mode=0o700)
        except OSError as error:
            raise OSError(f"the output folder {folder} cannot be written ({error.strerror or error})") from None
        yield staging
        _move(staging, folder)
        shutil.rmtree(staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        _remove(made)
        raise


def _move(staging: Path, folder: Path) -> None:
    """Move all files of a folder to another, or none."""
    files = sorted(staging.iterdir())
    for target in (folder / file.name for file in files):
        if target.is_dir():
            raise OSError(f"{target} is a folder, and a file of that name is to be written: choose another --out")
    before = staging / "before"
    before.mkdir()
    try:
        for file in files:
            target = folder / file.name
            if target.exists():
                target.replace(before / file.name)
            file.replace(target)
    except BaseException:
        for file in files:
            if not file.exists():
                (folder / file.name).replace(file)
            if (before / file.name).exists():
                (before / file.name).replace(folder / file.name)
        raise


def _remove(made: list[Path]) -> None:
    """Remove the folders that were made, innermost first, as far as they are empty."""
    for each in made:
        if not each.is_dir() or any(each.iterdir()):
            break
        each.rmdir()


def versions() -> dict[str, str]:
    """What numbers depend on: this package, Python and the libraries that compute."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("torch", "diffusers", "transformers", "numpy")}
    return {"iterinv": iterinv.__version__, "python": platform.python_version(), **found}


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
    """The most memory held within the block, in MB, told by what it gives after the block.

    On Linux the kernel's mark is set back at the beginning; elsewhere it is the process's own peak so far.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    held: list[float] = []
    yield lambda: held[0]
    held.append(round(peak_memory_mb(), 1))


def report(cascade: Cascade, saved: Saved, seconds: float, notes: list[str] | None = None) -> dict[str, Any]:
    """The report of an inversion that was rerun, as ``report.json`` holds it."""
    inversion, frame = saved
    plan = inversion.stages[-1].plan
    square = frame.square()
    lost, why = diagnose(cascade, inversion, square)
    stages = []
    for stage, found, loss in zip(cascade.stages, inversion.stages, lost, strict=True):
        assert found.picture is not None
        seen = images.to_uint8(resize(square, stage.size))
        stages.append(
            {
                "stage": stage.name,
                "size": stage.size,
                "network_calls": {"forward": found.report.forward, "backward": found.report.backward},
                "seconds": round(found.report.seconds, 3),
                "residual_max": found.report.residual_max,
                "root_error_max": found.report.root_error_max,
                "terminal_noise": metrics.terminal_noise(found.noise),
                "reconstruction": metrics.fidelity(seen, images.to_uint8(found.picture)),
                "loss": loss,
            }
        )
    return {
        "method": plan.method,
        "steps": plan.steps,
        "guidance": plan.guidance,
        "prompt": inversion.prompt,
        "seed": inversion.seed,
        "stages": stages,
        "reconstruction": metrics.fidelity(frame.under(frame.whole), frame.under(frame.place(inversion.picture))),
        "why": why,
        "seconds": round(seconds, 3),
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "model": cascade.fingerprint,
        "picture": {"height": frame.whole.shape[0], "width": frame.whole.shape[1], "notes": notes or []},
        "versions": versions(),
    }


def edit_report(prompt: str, editor: Editor, edit: Edit, frame: images.Frame) -> dict[str, Any]:
    """What ``report.json`` says of an edit: settings, the share of the picture that might change, what did not."""
    edited = frame.place(edit.pictures[-1])
    told: dict[str, Any] = {"to": prompt, "editor": type(editor).__name__, **edit.reports[0]}
    if edit.masks is not None:
        inside = frame.under(frame.place_mask(edit.masks[-1])) > 0
        told["mask"] = float(inside.mean())
        outside = ~inside
        same = frame.under((edited == frame.whole).all(-1))
        told["background_exact_pixels"] = float(same[outside].mean()) if outside.any() else None
    return told


@dataclass(frozen=True)
class Session:
    """One picture's way through the program: what was found and made of it, and how that is written.

    ``saved`` holds an inversion that was rerun; ``began`` is when the work did, by ``time.perf_counter``.
    """

    cascade: Cascade
    saved: Saved
    notes: list[str]
    began: float

    @property
    def inversion(self) -> Inversion:
        return self.saved.inversion

    @property
    def reconstruction(self) -> np.ndarray:
        return self.saved.frame.place(self.inversion.picture)

    def report(self) -> dict[str, Any]:
        return report(self.cascade, self.saved, time.perf_counter() - self.began, self.notes)

    def write_original(self, folder: Path) -> None:
        Image.fromarray(self.saved.frame.whole).save(folder / "original.png")

    def write_reconstruction(self, folder: Path) -> None:
        Image.fromarray(self.reconstruction).save(folder / "reconstruction.png")

    def write_inversion(self, folder: Path) -> None:
        store.save(folder / "inversion.safetensors", self.saved)

    def write_edit(self, folder: Path, edit: Edit) -> None:
        """``edited.png``, ``mask.png`` (white where the picture might change) and ``comparison.png``."""
        frame = self.saved.frame
        edited = frame.place(edit.pictures[-1])
        mask = frame.place_mask(edit.masks[-1] if edit.masks else torch.ones(1, 1, frame.size, frame.size))
        Image.fromarray(edited).save(folder / "edited.png")
        Image.fromarray(mask).save(folder / "mask.png")
        shown = [
            ("original", frame.whole),
            ("reconstruction", self.reconstruction),
            ("mask", np.repeat(mask[..., None], 3, -1)),
            ("edited", edited),
        ]
        images.strip(shown).save(folder / "comparison.png")


def write_report(folder: Path, told: dict[str, Any]) -> None:
    (folder / "report.json").write_text(json.dumps(told, indent=2) + os.linesep, encoding="utf-8")


def contact_sheet(pictures: Tensor, columns: int) -> Image.Image:
    """Pictures (batch, 3, h, w) in [-1, 1] in rows of ``columns``."""
    n, _, h, w = pictures.shape
    sheet = Image.new("RGB", (columns * w, -(-n // columns) * h), "white")
    for k in range(n):
        sheet.paste(Image.fromarray(images.to_uint8(pictures[k : k + 1])), (k % columns * w, k // columns * h))
    return sheet

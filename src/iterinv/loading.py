"""Load a cascade by name, from a folder, from the hub, or from live pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from iterinv.cascade import Cascade
from iterinv.models import sources
from iterinv.models.presets import Defaults, presets


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
        from iterinv.inspect import costs
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

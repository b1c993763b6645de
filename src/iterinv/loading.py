"""The stages and the defaults of a cascade, by name, from a folder, from the hub, or from live pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from iterinv import sources
from iterinv.families import edm
from iterinv.models import Stage
from iterinv.presets import Defaults, presets


def load_stages(
    what: Any, dtype: torch.dtype | None, device: str, memory: str | None, **how: Any
) -> tuple[tuple[Stage, ...], Defaults]:
    """The stages of :meth:`iterinv.Cascade.from_pretrained`, and the defaults of a preset. The last of a name is
    kept."""
    dtype = dtype or torch.float32
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


def _load(what: Any, dtype: torch.dtype, device: str, **how: Any) -> tuple[tuple[Stage, ...], Defaults]:
    with _quiet(), torch.device("cpu"):  # libraries make buffers on torch's default device
        preset = presets().get(what) if isinstance(what, str) else None
        found = sources.stages(what, dtype, device, **how)
        own = edm.DEFAULTS if isinstance(found[0].denoiser, edm.EDMDenoiser) else Defaults()
        return found, preset.defaults if preset else own


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

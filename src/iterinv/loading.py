"""The stages and the defaults of a cascade, by name, from a folder, from the hub, or from live pipelines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from iterinv import sources
from iterinv.families import edm
from iterinv.locks import Lock
from iterinv.models import Stage
from iterinv.models.memory import budget, checked_device, signature
from iterinv.presets import Defaults, presets

_LOADING = Lock()  # building networks sets defaults of the whole process for a while
_last: tuple[Any, str, tuple[tuple[Stage, ...], Defaults]] | None = None


def load_stages(
    what: Any, dtype: torch.dtype | None, device: str, memory: str | None, **how: Any
) -> tuple[tuple[Stage, ...], Defaults]:
    """The stages of :meth:`iterinv.Cascade.from_pretrained`, and the defaults of a preset.

    The last that was loaded by name is kept as long as its files stay as they are.
    """
    global _last
    device, named = checked_device(device), isinstance(what, (str, Path))
    if memory is not None:
        from iterinv import costs

        how["mode"] = costs.fitting(what, dtype or torch.float32, budget(memory, device))
    with _LOADING, _quiet(), torch.random.fork_rng(devices=[]):
        if not named:
            return _load(what, dtype, device, **how)
        local = os.path.exists(what)
        key = Path(what).resolve() if local else what, dtype or torch.float32, device, sorted(how.items())
        state = _state(what, how.get("config"))
        if _last is None or _last[:2] != (key, state):
            _last = None  # there may be no room for two
            stages = _load(what, dtype, device, **how)
            _last = key, state if local else _state(what, how.get("config")), stages  # fetching changes the hub's cache
        return _last[2]


def _state(what: str | Path, config: str | Path | None) -> str:
    """A name for all files that a cascade is loaded from, which changes when they do."""
    preset = presets().get(what) if isinstance(what, str) else None
    every: list[Any] = list(preset.sources) if preset else [what]
    if folder := sources.cascade_folder(every[0]):
        every += folder[0]
    names = [name for each in [*every, config or ""] for name in getattr(each, "names", (str(each),))]
    there = {name: Path(name) for name in names if name and os.path.exists(name)}
    on_hub = (name for name in names if name not in there and sources.HUB_NAME.fullmatch(name.partition("@")[0]))
    return signature([*there.values(), *map(sources.hub_folder, on_hub)])


def precision(name: str) -> torch.dtype:
    """The dtype of a name. Raises ``ValueError`` for another than float32, float16 and bfloat16."""
    names = ("float32", "float16", "bfloat16")
    if name not in names:
        raise ValueError(f"there is no precision {name!r} for networks: take {', '.join(names)}")
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _load(what: Any, dtype: torch.dtype | None, device: str, **how: Any) -> tuple[tuple[Stage, ...], Defaults]:
    with torch.device("cpu"):  # libraries make buffers on torch's default device
        preset = presets().get(what) if isinstance(what, str) else None
        loaded = sources.stages(what, dtype, device, **how)
        own = edm.DEFAULTS if isinstance(loaded[0].denoiser, edm.EDMDenoiser) else Defaults()
        return loaded, preset.defaults if preset else own


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps diffusers and transformers from printing bars and advice while folders are opened."""
    import diffusers.utils.logging as d
    import transformers.utils.logging as t
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars

    before = [(library, library.get_verbosity(), library.is_progress_bar_enabled()) for library in (d, t)]
    hub_silent = are_progress_bars_disabled()
    for library, _, _ in before:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity, bars in before:
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
        if hub_silent:
            disable_progress_bars()

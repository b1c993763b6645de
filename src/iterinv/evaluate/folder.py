"""Folders that an evaluation goes on with, and processes that share its work."""

from __future__ import annotations

import json
import os
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any


def settle(folder: Path, settings: dict[str, Any]) -> None:
    """Make a folder for results of these settings; several processes may do so at once.

    Raises ``ValueError`` where it holds those of others, or where its settings cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings.json"
    if not file.exists():
        whole = folder / f"settings.json.{os.getpid()}"
        whole.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        whole.replace(file)
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{file} is not JSON: delete {folder}, or choose another --out") from None
    if unlike := sorted(key for key in {*settings, *before} if before.get(key) != settings.get(key)):
        raise ValueError(f"{folder} holds what was done with another {', '.join(unlike)}: choose another --out")


def processes() -> Pool:
    """Open a pool with one process for each core, each of one thread."""
    import torch

    return get_context("spawn").Pool(os.cpu_count(), torch.set_num_threads, (1,))

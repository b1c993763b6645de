"""Folders that an evaluation goes on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def settle(folder: Path, settings: dict[str, Any]) -> None:
    """Make a folder for results of these settings. Raises ``ValueError`` where it holds those of others."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings.json"
    if file.exists() and (before := json.loads(file.read_text(encoding="utf-8"))) != settings:
        unlike = ", ".join(key for key in settings if before.get(key) != settings[key])
        raise ValueError(f"{folder} holds what was done with another {unlike}: choose another --out")
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

"""The embedded cascade: three small networks (32, 64, 256 px) and the tabletop scenes that they were trained on.

This wing registers the preset ``embedded`` and the datasets ``scenes`` and ``scene-edit``. Its weights are three
ordinary diffusers folders beside a ``cascade.json``; ``iterinv train all`` makes them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iterinv.embedded.evaluate import datasets
from iterinv.evaluate.datasets import RENDERED
from iterinv.presets import PRESETS, Defaults, Preset

FOLDER = Path(__file__).parent / "weights" / "cascade"


def prompt_advice(prompt: str, name: str) -> list[str]:
    """Return advice on the parts of a prompt that the embedded cascade cannot draw
    (:func:`iterinv.embedded.advice.prompt_advice`)."""
    from iterinv.embedded import advice

    return advice.prompt_advice(prompt, name)


def picture_advice(stages: Any, picture: Any) -> str:
    """Say that a picture is none that the embedded cascade can edit
    (:func:`iterinv.embedded.advice.picture_advice`)."""
    from iterinv.embedded import advice

    return advice.picture_advice(stages, picture)


DEFAULTS = Defaults(sampling_steps=10, prompt_advice=prompt_advice, picture_advice=picture_advice)
"""Ten sampling steps draw as well as more (``docs/benchmarks/sampling.md``)."""

PRESETS["embedded"] = Preset(
    "the cascade that ships with the package",
    (FOLDER,),
    defaults=DEFAULTS,
    licence="Apache-2.0",
    pixels=(32, 64, 256),
    weights=14_738_292,
    memory=(75_046_620, 60_898_408),
)

RENDERED["scenes"] = "held-out scenes of the embedded world, no edits", datasets.scenes
RENDERED["scene-edit"] = "SceneEdit: edits with a true answer and region", datasets.scene_edit

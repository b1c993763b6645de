"""Requests of the workbench: the settings of a piece of work, and the cascade that does it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iterinv.cascade import Cascade, load
from iterinv.edits import EDITORS
from iterinv.edits.site import Editor
from iterinv.images import Picture
from iterinv.loading import precision
from iterinv.masks import GivenMask


@dataclass(frozen=True)
class Model:
    """A cascade, and how it is loaded; see :func:`iterinv.load`."""

    name: Any = "embedded"
    device: str = "cpu"
    dtype: str | None = None
    memory: str | None = None
    allow_pickle: bool = False
    variant: str | None = None
    config: str | None = None
    noise_level: int | None = None
    distilled_guidance: float | None = None
    tiled: bool = False

    def load(self) -> Cascade:
        """The cascade. Raises as :func:`iterinv.load` does."""
        return load(
            self.name,
            dtype=None if self.dtype is None else precision(self.dtype),
            device=self.device,
            memory=self.memory,
            allow_pickle=self.allow_pickle,
            variant=self.variant,
            config=self.config,
            noise_level=self.noise_level,
            distilled_guidance=self.distilled_guidance,
            tiled=self.tiled,
        )


@dataclass(frozen=True)
class InvertRequest:
    """Invert one picture; the settings are those of :meth:`iterinv.Cascade.invert`. A tuple of methods or of guidance
    scales has one for each stage."""

    picture: Picture
    prompt: str
    method: str | tuple[str, ...] = "bdia"
    num_inference_steps: int = 20
    guidance_scale: float | tuple[float, ...] = 1.0
    seed: int = 0
    fit: str = "pad"
    model: Model = Model()


@dataclass(frozen=True)
class ReopenRequest:
    """Reopen an inversion file and run it again."""

    inversion: Path
    model: Model = Model()


@dataclass(frozen=True)
class EditRequest:
    """Edit a picture or an inversion by one or more other prompts; ``editor`` is a name, ``None`` the cascade's
    default.

    Each stage is inverted as deep as the editor needs. With ``keep_inversion`` all of it is inverted and run again, so
    that the inversion can be written and the report says how well the picture comes back. ``mask`` takes the place of
    the editor's own region, in pixels of the upright picture, or of ``original.png`` for an inversion. ``force`` goes
    on where the model says that it cannot edit such a picture. ``keep_path`` keeps the states that the editor asks for
    in a file beside the inversion file, and reads those that an earlier edit kept.

    ``edit_seed`` is the seed of the noise that the editor itself draws.

    ``size`` is ``own`` for edited pictures at the picture's own size (:mod:`iterinv.edits.own_size`), ``model`` for the
    model's; by default ``own`` where the picture is at hand. That of an inversion file is ``original``; ``mask`` is
    then in its pixels.
    """

    source: InvertRequest | ReopenRequest
    prompts: tuple[str, ...]
    editor: str | None = None
    strength: float | None = None
    guidance_scale: float | None = None
    keep_inversion: bool = False
    mask: GivenMask | None = None
    force: bool = False
    keep_path: bool = False
    size: str | None = None
    original: Picture | None = None
    edit_seed: int | None = None

    def made_editor(self, default: str) -> Editor:
        """The editor that the request names, or that of the name ``default``, with the request's settings. Raises as
        :func:`editor_of` does."""
        return editor_of(self.editor or default, self.strength, self.guidance_scale, self.edit_seed)


@dataclass(frozen=True)
class CompareRequest:
    """Invert one picture by several methods at equal steps; an empty ``methods`` stands for all that can run."""

    source: InvertRequest
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasureRequest:
    """Measure pictures against references: two files, or two folders whose files are paired by their path.

    ``metrics`` are names of :func:`iterinv.metrics.metrics`, none for the usual ones that can run here. ``mask`` is a
    file for all pairs or a folder of masks, white inside. ``prompts`` are of the references and of the pictures, for
    metrics that compare with words; in place of ``None`` the text file beside a picture is read. ``weights`` is a
    folder with trained weights that are not in a cache. ``resize`` brings pictures to the size of their references.
    """

    reference: Path
    picture: Path
    metrics: tuple[str, ...] = ()
    mask: Path | None = None
    prompts: tuple[str | None, str | None] = (None, None)
    weights: Path | None = None
    resize: bool = False


@dataclass(frozen=True)
class SampleRequest:
    """Draw pictures from a prompt; steps, guidance, sampler, height and width are the cascade's own unless given."""

    prompt: str
    num_images_per_prompt: int = 1
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    sampler: str | None = None
    gamma: float | None = None
    seed: int = 0
    height: int | None = None
    width: int | None = None
    model: Model = Model()


def editor_of(
    name: str, strength: float | None = None, guidance_scale: float | None = None, seed: int | None = None
) -> Editor:
    """The editor of a name, with the given settings in place of its own. Raises ``ValueError`` where there is none, and
    for a setting that it does not have."""
    if name not in EDITORS:
        raise ValueError(f"there is no editor {name!r}: the editors are {', '.join(EDITORS)}")
    settings = {"strength": strength, "guidance": guidance_scale, "seed": seed}
    given = {setting: value for setting, value in settings.items() if value is not None}
    known = inspect.signature(EDITORS[name]).parameters
    for setting in given:
        if setting not in known:
            raise ValueError(f"the editor {name} has no {setting}: leave it out, or take another editor")
    return EDITORS[name](**given)

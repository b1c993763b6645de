"""Where cascades come from: by name, from folders, from the hub, from pipelines that are loaded already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import cpu_offload

from iterinv.models import Embed, Stage, digest_of, edm, folders, pipelines
from iterinv.models.memory import Turns, Words, signature
from iterinv.models.presets import Source, presets
from iterinv.models.text import t5

What = str | Path | Any
"""A preset's name, a cascade folder, a diffusers folder, a TorchScript file, a name on the hub (``owner/name``, or
``owner/name@revision``), a live pipeline or module."""


def stages(
    what: What | Sequence[What], dtype: torch.dtype = torch.float32, device: str = "cpu", noise_level: int | None = None,
    clean: bool | None = None, allow_pickle: bool = False, mode: str | None = None, tiled: bool = False, **how: Any,
) -> tuple[Stage, ...]:  # fmt: skip
    """The stages of a cascade, smallest first; a sequence is a stage each.

    ``mode`` is one of :data:`iterinv.inspect.costs.MODES`, for networks that do not fit on the device together; with any, a
    T5 encoder is loaded only to read new words. ``tiled`` lets autoencoders work tile by tile, in less memory. ``how`` goes
    to diffusers' ``from_pretrained``: ``variant``, ``revision``, ``local_files_only``. The words are read by the first
    stage's encoder wherever that of another stage is of the same kind. Raises ``FileNotFoundError`` for what is not there,
    saying how to get it, and ``ValueError`` for what is no stage and for one revision of several repositories.
    """
    preset = presets().get(what) if isinstance(what, str) else None
    parts: list[What] = list(preset.sources) if preset else [what]
    if preset is None and isinstance(what, Sequence) and not isinstance(what, str):
        parts = list(what)
    if len(parts) == 1 and (folder := cascade_folder(parts[0])):
        parts, own = folder
        noise_level = own if noise_level is None else noise_level
    if len(parts) > 1 and how.get("revision"):
        raise ValueError("a revision is of one repository, and this cascade is of several: name each as owner/name@revision")
    clean = preset is not None and preset.clean if clean is None else clean
    place = Place(device, mode)
    pipes: dict[Any, tuple[Any, Words | None]] = {}
    found: list[Stage] = []
    for part in parts:
        name = "I" * (len(found) + 1)
        if isinstance(part, torch.nn.Module):
            found.append(edm.from_module(part, name, device))
            continue
        if isinstance(part, (str, Path)) and Path(part).is_file():
            found.append(edm.open_script(Path(part), name, device))
            continue
        key = part if isinstance(part, (str, Path, Source)) else id(part)
        new = key not in pipes  # a cascade may have one network twice
        if new:
            pipes[key] = _pipe(part, len(found), dtype, place, clean, allow_pickle, how)
        pipe, words = pipes[key]
        where = place.device if isinstance(part, (str, Path, Source)) else None
        below = found[-1] if found else None
        found.append(pipelines.stage(pipe, len(found), below, noise_level, clean, where, words, tiled))
        if new and where:
            place.settle(pipe)
    return tuple(found)


def cascade_folder(what: What) -> tuple[list[What], int] | None:
    """The parts and the noise level of a folder with a ``cascade.json``, ``None`` for anything but a folder of stages."""
    if isinstance(what, (str, Path)) and Path(what).is_dir() and not (Path(what) / "model_index.json").exists():
        parts, noise_level = folders.parts(Path(what))
        return list(parts), noise_level
    return None


class Place:
    """A device, and how networks share it."""

    def __init__(self, device: str, mode: str | None) -> None:
        self.device, self.mode, self.turns = device, mode, Turns(device)

    def settle(self, pipe: Any) -> None:
        """Give a pipeline's networks their places."""
        for name in ("text_encoder", "text_encoder_2", "unet", "vae"):
            if (network := getattr(pipe, name, None)) is not None:
                self.put(network)

    def put(self, network: Any) -> None:
        if self.mode == "staged":
            self.turns.join(network)
        elif self.mode == "layered":
            cpu_offload(network, self.device)
        else:
            network.to(self.device)


def _pipe(
    part: What, number: int, dtype: torch.dtype, place: Place, clean: bool, allow_pickle: bool, how: dict[str, Any]
) -> tuple[Any, Words | None]:
    """A pipeline, its networks in main memory; and what reads its words, if its own encoder is not loaded."""
    if not isinstance(part, (str, Path, Source)):
        return part, None
    text, safe = place.mode is None, None if allow_pickle else True
    if not isinstance(part, Source) and Path(part).exists():
        pipe = pipelines.open_folder(Path(part), number, dtype, allow_pickle, text, **how)
        return pipe, _words(pipe, Path(part) / "text_encoder", dtype, place, clean)
    source = part
    if not isinstance(source, Source):
        name, _, revision = str(part).partition("@")
        source, how = Source(name), {**how, "revision": revision} if revision else how
    if source.name == "edm":
        raise FileNotFoundError(
            "edm is no cascade of published weights but a kind of network: give the network itself, loaded by the code that "
            "made it, or a TorchScript file of it (torch.jit.save); never a pickle, which runs code when it is read"
        )
    if "/" not in source.name:
        raise FileNotFoundError(
            f"there is no folder {source.name}, and no cascade of that name: take a folder, a name on the hub (owner/name) or "
            f"one of {', '.join(presets())}"
        )
    reasons = []
    for name in source.names:
        try:
            pipe = pipelines.from_pretrained(name, number, dtype, safe, text, **how)
            return pipe, _words(pipe, name, dtype, place, clean, **how)
        except OSError as error:
            reasons.append(str(error).split(". ")[0].splitlines()[0].rstrip("."))
    raise FileNotFoundError(
        f"{' and '.join(source.names)} is not on this machine and cannot be fetched ({reasons[0]}): {source.remedy}"
    )


def _words(pipe: Any, where: Path | str, dtype: torch.dtype, place: Place, clean: bool, **how: Any) -> Words | None:
    """What reads words for a pipeline that has a T5 tokenizer and was loaded without the encoder; that is in a folder, or under
    a name on the hub."""
    if type(pipe).__name__ not in (*pipelines.IF, *pipelines.IF_LARGER) or pipe.text_encoder or not pipe.tokenizer:
        return None
    if isinstance(where, str):
        from huggingface_hub import snapshot_download

        told = {key: how[key] for key in ("revision", "local_files_only") if key in how}
        where = Path(snapshot_download(where, allow_patterns=["text_encoder/*"], **told)) / "text_encoder"
    if not any(where.glob("*")):
        return None
    folder, cleaner = where, pipelines.cleaner(pipe) if clean else None

    def load() -> Any:
        from transformers import T5EncoderModel

        return T5EncoderModel.from_pretrained(folder, dtype=dtype, variant=how.get("variant")).eval().requires_grad_(False)

    def read(encoder: Any) -> Embed:
        place.put(encoder)
        return t5(pipe.tokenizer, encoder, cleaner, place.device)

    def digest(encoder: Any) -> str:
        return digest_of(encoder, pipelines.settings_of(encoder.config))

    words = Words(load, read, digest, signature(folder, dtype, clean), place.device)
    place.turns.before.append(words.free)
    return words

"""DeepFloyd-IF and its kind: pixel stages in the folders that diffusers' ``IFPipeline`` and
``IFSuperResolutionPipeline`` save and load. The embedded cascade is three such folders.

The networks predict noise, or the velocity ``v = alpha eps - sigma x0`` (Salimans & Ho 2022), as their scheduler says; and,
in three more channels, a variance that deterministic rules do not use. A super-resolution network sees the noised, enlarged
low-resolution picture as three more input channels and its noise level as class label.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iterinv import schedule
from iterinv.levels import Level
from iterinv.models import Low, Stage

PIPELINES = ("IFPipeline", "IFSuperResolutionPipeline")
PREDICTIONS = ("epsilon", "v_prediction")


class IFDenoiser:
    """A ``UNet2DConditionModel`` of IF's form as a :class:`iterinv.models.Denoiser`, whatever the network's dtype.

    ``prediction_type`` is one of :data:`PREDICTIONS`, in diffusers' words.
    """

    def __init__(self, unet: Any, prediction_type: str = "epsilon") -> None:
        self.unet, self.prediction_type = unet, prediction_type

    def __call__(self, x: Tensor, level: Level, text: Tensor, low: Low | None) -> Tensor:
        dtype = self.unet.dtype
        sample, labels = x.to(dtype), None
        if low is not None:
            sample = torch.cat([sample, low.noised().to(dtype)], 1)
            labels = torch.full((len(x),), int(low.level.t), device=x.device)
        t = torch.full((len(x),), level.t, device=x.device)
        out = self.unet(sample, t, encoder_hidden_states=text.to(dtype), class_labels=labels).sample
        # In the state's layout: arithmetic between two layouts is slow.
        out = out[:, : x.shape[1]].to(x.dtype, memory_format=torch.contiguous_format)
        return level.alpha * out + level.sigma * x if self.prediction_type == "v_prediction" else out


def embedder(tokenizer: Any, encoder: Any) -> Callable[[list[str]], Tensor]:
    """Prompts to (batch, tokens, width), as IF's pipelines make them: lower case, stripped, padded to the full length."""

    @torch.no_grad()
    def embed(prompts: list[str]) -> Tensor:
        words = [prompt.lower().strip() for prompt in prompts]
        longest = max(map(len, tokenizer(words, add_special_tokens=True, verbose=False).input_ids))
        if longest > 77:
            warnings.warn(f"a prompt has {longest} tokens; what comes after the 77th is not read", stacklevel=2)
        tokens = tokenizer(
            words, padding="max_length", max_length=77, truncation=True, add_special_tokens=True, return_tensors="pt"
        ).to(encoder.device)
        return encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]

    return embed


def load(
    folders: Sequence[str | Path], dtype: torch.dtype = torch.float32, device: str = "cpu", noise_level: int = 250
) -> tuple[Stage, ...]:
    """The stages of a cascade from diffusers folders, smallest first.

    Text is encoded by the first folder's encoder; the others may leave theirs out, as IF-II does. ``noise_level`` is the
    label of the noise that a low-resolution picture is given, 250 as in diffusers. Raises ``FileNotFoundError`` for a folder
    without ``model_index.json`` or without what the first stage reads words by, ``ValueError`` for another kind of pipeline or
    prediction, and for a noise level that the schedule lacks.
    """
    from diffusers import DiffusionPipeline

    found: list[Stage] = []
    embed: Callable[[list[str]], Tensor] | None = None
    for folder in map(Path, folders):
        _check(folder)
        absent = dict(safety_checker=None, feature_extractor=None, watermarker=None, requires_safety_checker=False)
        pipe = DiffusionPipeline.from_pretrained(folder, dtype=dtype, **absent).to(device)
        # Convolutions are a quarter faster so, on this side of the cache and on tensor cores.
        unet = pipe.unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        prediction_type = pipe.scheduler.config.prediction_type
        if prediction_type not in PREDICTIONS:
            raise ValueError(
                f"{folder} predicts {prediction_type!r}; what a pixel stage may predict is {' or '.join(PREDICTIONS)}"
            )
        if embed is None:
            if pipe.text_encoder is None or pipe.tokenizer is None or not any((folder / "tokenizer").glob("*")):
                raise FileNotFoundError(
                    f"{folder} holds no text encoder or no tokenizer; the first stage of a cascade must have both"
                )
            embed = embedder(pipe.tokenizer, pipe.text_encoder.eval().requires_grad_(False))
        noising = getattr(pipe, "image_noising_scheduler", None)
        low_schedule = None if noising is None else schedule.from_config(noising.config)
        if low_schedule is not None:
            low_schedule.level(noise_level)  # raises where there is none
        found.append(
            Stage(
                name="I" * (len(found) + 1),
                size=unet.config.sample_size,
                denoiser=IFDenoiser(unet, prediction_type),
                schedule=schedule.from_config(pipe.scheduler.config),
                embed=embed,
                fingerprint=fingerprint(folder, dtype, 0 if noising is None else noise_level),
                low_schedule=low_schedule,
                noise_level=0 if noising is None else noise_level,
                device=device,
            )
        )
    return tuple(found)


def _check(folder: Path) -> None:
    file = folder / "model_index.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no model_index.json: it is not a diffusers pipeline folder")
    kind = read_json(file).get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(f"{folder} is a {kind}; a pixel stage is one of {', '.join(PIPELINES)}")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ``ValueError``, naming the file, where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): get the folder again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged (it holds no object): get the folder again")
    return found


def fingerprint(folder: Path, dtype: torch.dtype, noise_level: int) -> str:
    """A short hash of all that a prediction depends on: networks, words, schedules, precision, noise on the condition."""
    digest = hashlib.sha256(f"{dtype} {noise_level}".encode())
    parts = ("unet", "text_encoder", "tokenizer", "scheduler", "image_noising_scheduler")
    for file in sorted(file for part in parts for file in folder.glob(f"{part}/**/*") if file.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode())
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]

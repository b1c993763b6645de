"""Stages from diffusers' pipelines: folders that they save and load, names on the hub, pipelines that are loaded already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from iterinv import schedule
from iterinv.levels import Level
from iterinv.models import Embed, Stage, digest_of
from iterinv.models.codec import Autoencoder
from iterinv.models.memory import Words
from iterinv.models.text import clip, sdxl, t5
from iterinv.models.unet import UNetDenoiser

IF = ("IFPipeline", "IFImg2ImgPipeline", "IFInpaintingPipeline")
IF_LARGER = ("IFSuperResolutionPipeline", "IFImg2ImgSuperResolutionPipeline", "IFInpaintingSuperResolutionPipeline")
UPSCALERS = ("StableDiffusionUpscalePipeline",)
SD = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
SDXL = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
PIPELINES = (*IF, *IF_LARGER, *UPSCALERS, *SD, *SDXL)
NOISE_LEVELS = {**dict.fromkeys(IF_LARGER, 250), **dict.fromkeys(UPSCALERS, 20)}
"""The label of the noise on the picture from below that diffusers' pipelines take where none is given."""

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What a network may predict under a variance-preserving schedule."""

PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "unet", "vae")
SCHEDULERS = ("scheduler", "image_noising_scheduler", "low_res_scheduler")


def stage(
    pipe: Any, number: int = 0, below: Stage | None = None, noise_level: int | None = None, clean: bool = False,
    device: str | None = None, words: Words | None = None, tiled: bool = False,
) -> Stage:  # fmt: skip
    """A live pipeline as the ``number``-th stage of a cascade, from 0; its networks are shared, not copied.

    Networks are set to evaluation, without gradients of their weights and in channels-last layout, an autoencoder to float32.
    ``below`` is the stage whose pictures it enlarges; it reads the words where the pipeline has no text encoder, as IF-II may.
    ``noise_level`` is the label of the noise on the picture from below, in a stage that takes one; ``clean`` is IF's
    ``clean_caption``. ``device`` is where states are, if not where the network is now; ``words`` reads them in place of the
    pipeline's encoder; ``tiled`` lets an autoencoder work tile by tile. Raises ``ValueError`` for another kind of pipeline,
    prediction or class label, for a network of several precisions, and for a noise level that the schedule lacks;
    ``FileNotFoundError`` where nothing reads the words.
    """
    kind = type(pipe).__name__
    if kind not in PIPELINES:
        raise ValueError(f"this is a {kind}; a stage of a cascade is one of {', '.join(PIPELINES)}")
    # Convolutions are a quarter faster so, on this side of the cache and on tensor cores.
    unet = pipe.unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    dtypes = sorted({str(weights.dtype).removeprefix("torch.") for weights in unet.parameters()})
    if len(dtypes) > 1:
        raise ValueError(
            f"the network of {_whose(pipe)} holds weights of {' and '.join(dtypes)}, and what it is given is of one precision: "
            "make them all of one, as pipe.unet.to(dtype) does"
        )
    prediction_type = pipe.scheduler.config.prediction_type
    if prediction_type not in PREDICTIONS:
        raise ValueError(f"{_whose(pipe)} predicts {prediction_type!r}; what it may predict is {', '.join(PREDICTIONS)}")
    noising = next((getattr(pipe, name, None) for name in SCHEDULERS[1:] if getattr(pipe, name, None)), None)
    labelled = unet.config.class_embed_type is not None or unet.config.num_class_embeds is not None
    if labelled != (noising is not None) or unet.config.class_embed_type not in (None, "timestep"):
        raise ValueError(
            f"{_whose(pipe)} takes class labels of a kind ({unet.config.class_embed_type or 'none'}) that its pipeline does "
            "not give: only a network that enlarges is labelled, by the noise level of the picture below"
        )
    device = device or str(unet.device)
    codec = Autoencoder(_codec(pipe, tiled), device) if getattr(pipe, "vae", None) is not None else None
    size = unet.config.sample_size * (1 if codec is None else codec.factor)
    if kind in UPSCALERS and below is not None:  # of any size: its latents are as large as the picture below
        size = below.size * codec.factor if codec else size
    low_level: Level | None = None
    if noising is not None:
        label = NOISE_LEVELS[kind] if noise_level is None else noise_level
        low_level = schedule.from_config(noising.config).level(label)  # raises where there is none
        most = getattr(pipe.config, "max_noise_level", None)
        if most is not None and label > most:
            raise ValueError(f"noise level {label} is more than {_whose(pipe)} was trained for: take {most} or less")
    return Stage(
        name="I" * (number + 1),
        size=size,
        denoiser=UNetDenoiser(unet, prediction_type, low_level),
        schedule=schedule.from_config(pipe.scheduler.config),
        embed=words or _embed(pipe, clean, size, device) or (below.embed if below else _missing(pipe)),
        fingerprint=fingerprint(pipe, 0 if low_level is None else int(low_level.t), words, tiled and codec is not None),
        low_level=low_level,
        device=device,
        codec=codec,
    )


def _whose(pipe: Any) -> str:
    return str(getattr(pipe.config, "_name_or_path", None) or type(pipe).__name__)


def _codec(pipe: Any, tiled: bool) -> Any:
    vae = pipe.vae.float().eval().requires_grad_(False)
    if tiled:
        vae.enable_tiling()
        vae.enable_slicing()
    if getattr(vae.config, "latents_mean", None) is not None or getattr(vae.config, "shift_factor", None):
        raise ValueError(f"the autoencoder of {_whose(pipe)} shifts its latents; only a scaling factor is known here")
    return vae


def _embed(pipe: Any, clean: bool, size: int, device: str) -> Embed | None:
    """How a pipeline reads words, ``None`` where it cannot."""
    kind = type(pipe).__name__
    encoders = [getattr(pipe, name, None) for name in ("text_encoder", "text_encoder_2")]
    tokenizers = [getattr(pipe, name, None) for name in ("tokenizer", "tokenizer_2")]
    if kind in SDXL:
        if None in encoders or None in tokenizers:
            raise ValueError(f"{_whose(pipe)} lacks one of SDXL's two text encoders: the refiner inverts nothing by itself")
        return sdxl(tokenizers, [_still(each) for each in encoders], pipe.config.force_zeros_for_empty_prompt, size, device)
    if encoders[0] is None or tokenizers[0] is None:
        return None
    if kind not in (*IF, *IF_LARGER):
        return clip(tokenizers[0], _still(encoders[0]), device)
    return t5(tokenizers[0], _still(encoders[0]), cleaner(pipe) if clean else None, device)


def _still(encoder: Any) -> Any:
    return encoder.eval().requires_grad_(False)


def cleaner(pipe: Any) -> Callable[[str], str]:
    """IF's own ``clean_caption``. Raises ``ModuleNotFoundError`` where what it needs is not installed."""
    from diffusers.utils import is_bs4_available, is_ftfy_available

    if not (is_bs4_available() and is_ftfy_available()):
        raise ModuleNotFoundError(
            "cleaning captions as DeepFloyd does needs ftfy and beautifulsoup4: pip install 'iterinv[if]'"
        )
    return lambda prompt: str(pipe._text_preprocessing(prompt, clean_caption=True)[0])


def _missing(pipe: Any) -> Embed:
    raise FileNotFoundError(
        f"{_whose(pipe)} holds no text encoder or no tokenizer; the first stage of a cascade must have both"
    )


def fingerprint(pipe: Any, noise_level: int, words: Words | None = None, tiled: bool = False) -> str:
    """A short hash of all that a prediction depends on: networks, their precision, words, schedules, noise on the condition."""
    digest = hashlib.sha256(f"{noise_level}{' tiled' if tiled else ''}".encode())
    for name in SCHEDULERS:
        if (part := getattr(pipe, name, None)) is not None:
            digest.update(f"{name} {settings_of(part.config)}".encode())
    for name in PARTS:
        part = getattr(pipe, name, None)
        if name == "text_encoder" and words is not None:
            digest.update(f"{name} {words.digest()}".encode())
        elif part is not None and "tokenizer" in name:
            digest.update(f"{name} {json.dumps(sorted(part.get_vocab().items()))}".encode())
        elif part is not None:
            digest.update(f"{name} {digest_of(part, settings_of(part.config))}".encode())
    return digest.hexdigest()[:16]


def settings_of(config: Any) -> str:
    """A configuration without the library's version and the folder it was read from."""
    told = config if isinstance(config, dict) else config.to_dict()
    own = {key: value for key, value in told.items() if not key.startswith("_") and key != "transformers_version"}
    return json.dumps(own, sort_keys=True, default=str)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ``ValueError``, naming the file, where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): get the folder again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged (it holds no object): get the folder again")
    return found


def open_folder(
    folder: Path, number: int = 0, dtype: torch.dtype = torch.float32, allow_pickle: bool = False, text: bool = True, **how: Any
) -> Any:  # fmt: skip
    """The pipeline in a diffusers folder, as :func:`from_pretrained` loads it.

    ``how`` goes to ``from_pretrained`` (``variant``). Raises ``FileNotFoundError`` for a folder without ``model_index.json``,
    ``ValueError`` for another kind of pipeline and for weights that are there only as pickles, unless ``allow_pickle``.
    """
    file = folder / "model_index.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no model_index.json: it is not a diffusers pipeline folder")
    index = read_json(file)
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(f"{folder} is a {kind}; a stage of a cascade is one of {', '.join(PIPELINES)}")
    for part in (*PARTS, *SCHEDULERS):
        if index.get(part, [None])[0] is not None and not any((folder / part).glob("*")):
            raise FileNotFoundError(f"{folder} holds no {part}, though its model_index.json names one: get the folder again")
    for part in PARTS:
        held = [each.suffix for each in (folder / part).glob("*") if each.suffix in (".safetensors", ".bin")]
        if held and ".safetensors" not in held and not allow_pickle:
            raise ValueError(
                f"{folder / part} holds its weights only as a pickle (.bin), which runs code when it is read: get the "
                ".safetensors, or allow pickles (allow_pickle=True, --allow-pickle) if you trust who made it"
            )
    return from_pretrained(folder, number, dtype, None if allow_pickle else True, text, **how)


def from_pretrained(
    what: str | Path, number: int, dtype: torch.dtype, use_safetensors: bool | None = True, text: bool = True, **how: Any
) -> Any:  # fmt: skip
    """``DiffusionPipeline.from_pretrained`` for the ``number``-th stage of a cascade: the autoencoder in float32, without what
    inversion has no use for; and an IF that enlarges without its text encoder, which is the first stage's again. ``text`` may
    leave out that of any IF."""
    from diffusers import DiffusionPipeline

    where = {key: how[key] for key in ("revision", "local_files_only") if key in how}
    config = DiffusionPipeline.load_config(what, **where)
    absent: dict[str, Any] = {name: None for name in ("safety_checker", "feature_extractor", "watermarker") if name in config}
    absent |= {"requires_safety_checker": False} if "requires_safety_checker" in config else {}
    if number and config["_class_name"] in IF_LARGER:
        absent |= {"text_encoder": None, "tokenizer": None}
    if not text and config["_class_name"] in (*IF, *IF_LARGER):
        absent |= {"text_encoder": None}
    dtypes = {"default": dtype, "vae": torch.float32}
    return DiffusionPipeline.from_pretrained(what, dtype=dtypes, use_safetensors=use_safetensors, **absent, **how)

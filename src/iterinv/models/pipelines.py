"""diffusers' pipelines of any family are checked, taken apart and fingerprinted here."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from iterinv import schedules
from iterinv.levels import Level
from iterinv.models import digest_of
from iterinv.models.codec import Autoencoder
from iterinv.models.memory import CachedTextEncoder
from iterinv.models.unet import labelled
from iterinv.schedules import Schedule

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""The prediction types that fit a variance-preserving schedule."""

PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "unet", "vae")
SCHEDULERS = ("scheduler", "image_noising_scheduler", "low_res_scheduler")


def whose(pipe: Any) -> str:
    """Name a pipeline in a message."""
    return str(getattr(pipe.config, "_name_or_path", None) or type(pipe).__name__)


def still(network: Any) -> Any:
    """Set a network to evaluation, without gradients of its weights."""
    return network.eval().requires_grad_(False)


def unet(pipe: Any) -> Any:
    """Give a pipeline's network, still and in channels-last layout.

    Raises ``ValueError`` for one of several precisions, and for another prediction or class label than is known here.
    """
    # Convolutions are a quarter faster so, on this side of the cache and on tensor cores.
    network = still(pipe.unet).to(memory_format=torch.channels_last)
    dtypes = sorted({str(weights.dtype).removeprefix("torch.") for weights in network.parameters()})
    if len(dtypes) > 1:
        raise ValueError(
            f"the network of {whose(pipe)} holds weights of {' and '.join(dtypes)}, and what it is given is of one "
            "precision: make them all of one, as pipe.unet.to(dtype) does"
        )
    prediction_type = pipe.scheduler.config.prediction_type
    if prediction_type not in PREDICTIONS:
        raise ValueError(f"{whose(pipe)} predicts {prediction_type!r}; what it may predict is {', '.join(PREDICTIONS)}")
    label = network.config.class_embed_type
    if labelled(network.config) != (_noising(pipe) is not None) or label not in (None, "timestep"):
        raise ValueError(
            f"{whose(pipe)} takes class labels of a kind ({label or 'none'}) that its pipeline does not give: only a "
            "network that enlarges is labelled, by the noise level of the picture below"
        )
    return network


def autoencoder(pipe: Any, device: str, tiled: bool) -> Autoencoder | None:
    """Give a pipeline's autoencoder in float32; ``None`` for pixels. Raises ``ValueError`` for one that shifts
    latents."""
    if (vae := getattr(pipe, "vae", None)) is None:
        return None
    vae = still(vae.float())
    if tiled:
        vae.enable_tiling()
        vae.enable_slicing()
    if getattr(vae.config, "latents_mean", None) is not None or getattr(vae.config, "shift_factor", None):
        raise ValueError(f"the autoencoder of {whose(pipe)} shifts its latents; only a scaling factor is known here")
    return Autoencoder(vae, device)


def schedule(scheduler: Any) -> Schedule:
    """Give the schedule of a diffusers scheduler, by its class and the settings which that has.

    A configuration may hold settings of other classes besides, which diffusers keeps and does not use. Raises
    ``ValueError`` for a class or a setting that is not known.
    """
    kind = next((each for each in type(scheduler).__mro__ if each.__name__ in schedules.WALKS), type(scheduler))
    return schedules.from_config({**own_settings(kind, scheduler.config), "_class_name": kind.__name__})


def own_settings(kind: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings in a configuration that a class takes."""
    return {key: value for key, value in config.items() if key in inspect.signature(kind).parameters}


def low_level(pipe: Any, label: int) -> Level | None:
    """Give the level of the noise on the picture from below; ``None`` where a pipeline takes none.

    Raises ``ValueError`` for a label that its schedule lacks, or that its network was not trained for.
    """
    if (noising := _noising(pipe)) is None:
        return None
    level = schedule(noising).level(label)
    most = getattr(pipe.config, "max_noise_level", None)
    if most is not None and label > most:
        raise ValueError(f"noise level {label} is more than {whose(pipe)} was trained for: take {most} or less")
    return level


def _noising(pipe: Any) -> Any:
    return next((part for name in SCHEDULERS[1:] if (part := getattr(pipe, name, None))), None)


def fingerprint(pipe: Any, noise_level: int, words: CachedTextEncoder | None = None, tiled: bool = False) -> str:
    """A short hash of all that a prediction depends on: networks, their precision, words, schedules, noise on the
    condition."""
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

"""diffusers' pipelines of any family are checked, taken apart and fingerprinted here."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

from iterinv import schedules
from iterinv.levels import Level
from iterinv.models import digest_of, frozen, unwrapped
from iterinv.models.checkpoints import POINTER, kind_of
from iterinv.models.codec import Autoencoder
from iterinv.models.memory import CachedTextEncoder
from iterinv.models.unet import UNetDenoiser, labelled
from iterinv.schedules import Schedule

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""The prediction types that fit a variance-preserving schedule."""

TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
PARTS = (*TOKENIZERS, "text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer", "vae")
SCHEDULERS = ("scheduler", "image_noising_scheduler", "low_res_scheduler")


def whose(pipe: Any) -> str:
    """Name a pipeline in a message."""
    return str(getattr(pipe.config, "_name_or_path", None) or type(pipe).__name__)


def frozen_parts(pipe: Any) -> Any:
    """A pipeline of the same weights whose networks are in evaluation and without gradients; the given one stays as it
    is.

    Raises ``ValueError`` for networks whose weights are offloaded or that hooks of accelerate or diffusers drive, since
    the state of such hooks cannot be copied.
    """
    mine = copy(pipe)
    for name in PARTS:
        part = unwrapped(getattr(pipe, name, None))
        if "tokenizer" in name:
            mine.__dict__[name] = deepcopy(part)  # reading sets how a tokenizer pads and cuts
        elif part is not None:
            if any(hasattr(each, "_diffusers_hook") for each in part.modules()):
                raise ValueError(
                    f"the {name} of {whose(pipe)} is driven by hooks of diffusers, which stay: load the pipeline again "
                    "without layerwise casting, group offloading and caching, or from its folder with memory='auto'"
                )
            if any(hasattr(each, "_hf_hook") for each in part.modules()) or any(x.is_meta for x in part.parameters()):
                raise ValueError(
                    f"the {name} of {whose(pipe)} is offloaded or driven by hooks: take them off "
                    "(pipe.remove_all_hooks()), or load the model from its folder with memory='auto'"
                )
            mine.__dict__[name] = frozen(part)
    return mine


def still(network: Any) -> Any:
    """Set a network to evaluation, without gradients of its weights."""
    return network.eval().requires_grad_(False)


def checked_network(pipe: Any, part: str, kind: type) -> Any:
    """Give a pipeline's network, the ``part`` of that name.

    Raises ``ValueError`` for one of another class than ``kind``, and for weights of several precisions.
    """
    network, name = getattr(pipe, part), whose(pipe)
    if not isinstance(getattr(network, "_orig_mod", network), kind):
        raise ValueError(f"the {part} of {name} is a {type(network).__name__}, and only a {kind.__name__} is known")
    dtypes = sorted({str(weights.dtype).removeprefix("torch.") for weights in network.parameters()})
    if len(dtypes) > 1:
        raise ValueError(
            f"the network of {name} holds weights of {' and '.join(dtypes)}, and its inputs are of one "
            f"precision: make them all of one, as pipe.{part}.to(dtype) does"
        )
    return network


def unet(pipe: Any, channels: int, low_level: Level | None, added: Mapping[str, str] | None = None) -> UNetDenoiser:
    """Give a pipeline's UNet as a denoiser, for states of so many channels; see :class:`UNetDenoiser`.

    Raises ``ValueError``, which names the fault, for one that cannot be called as its pipeline calls it.
    """
    from diffusers import UNet2DConditionModel

    network, name, added = checked_network(pipe, "unet", UNet2DConditionModel), whose(pipe), added or {}
    config = network.config
    prediction_type = pipe.scheduler.config.prediction_type
    if prediction_type not in PREDICTIONS:
        raise ValueError(f"{name} predicts {prediction_type!r}; the known predictions are {', '.join(PREDICTIONS)}")
    label, enlarges = config.class_embed_type, _noising(pipe) is not None
    if labelled(config) != enlarges or label not in (None, "timestep"):
        labels = f"takes class labels ({label or 'num_class_embeds'})" if labelled(config) else "takes no class label"
        raise ValueError(
            f"the unet of {name} {labels}, and its pipeline gives {'a noise level' if enlarges else 'none'}: a network "
            "that enlarges, and no other, is labelled, by the noise level of the picture below"
        )
    taken = channels + 3 * enlarges
    if config.in_channels != taken or config.out_channels not in (channels, 2 * channels):
        raise ValueError(
            f"the unet of {name} takes {config.in_channels} channels and gives {config.out_channels}, where this kind "
            f"of model takes {taken} and gives {channels} or {2 * channels}: one that also takes a mask or a picture "
            "(inpainting, instructions, depth) cannot be inverted"
        )
    if config.time_cond_proj_dim is not None:
        raise ValueError(
            f"the unet of {name} is distilled and takes its guidance scale as an input (time_cond_proj_dim), which is "
            "not given here: take the model that it was distilled from"
        )
    if config.encoder_hid_dim_type not in (None, "text_proj"):
        adapter = config.encoder_hid_dim_type == "ip_image_proj"
        remedy = "take its IP-Adapter off (pipe.unload_ip_adapter())" if adapter else "take a model of text alone"
        raise ValueError(f"the unet of {name} also takes {config.encoder_hid_dim_type}, a picture as prompt: {remedy}")
    if config.addition_embed_type not in (("text_time",) if "time_ids" in added else (None, "text")):
        own, given = config.addition_embed_type or "nothing", "text_time" if "time_ids" in added else "nothing"
        raise ValueError(
            f"the unet of {name} takes {own} besides the prompt, and its pipeline gives {given} (addition_embed_type)"
        )
    return UNetDenoiser(network, prediction_type, low_level, added)


def checked_transformer(pipe: Any, kind: type, channels: int) -> Any:
    """Give a pipeline's transformer, of a class, for so many channels.

    Raises ``ValueError``, which names the fault, for one that cannot be called as its pipeline calls it.
    """
    made, name = checked_network(pipe, "transformer", kind), whose(pipe)
    taken, given = made.config.in_channels, made.config.out_channels or made.config.in_channels
    if (taken, given) != (channels, channels):
        raise ValueError(
            f"the transformer of {name} takes {taken} channels and gives {given}, where this kind of model takes and "
            f"gives {channels}: one that also takes a mask or a picture (fill, depth, canny) cannot be inverted"
        )
    if any(getattr(made, adapter, None) is not None for adapter in ("encoder_hid_proj", "image_proj")):
        raise ValueError(
            f"the transformer of {name} also takes a picture as prompt: take its IP-Adapter off "
            "(pipe.unload_ip_adapter())"
        )
    return made


def square_side(config: Any, name: str, part: str = "unet", default: int | None = None) -> int:
    """Give the height and width of a network's states, ``default`` where its kind says none.

    Raises ``ValueError`` where it says none, or not a square.
    """
    size = config.get("sample_size", default)
    size = size[0] if isinstance(size, (list, tuple)) and len(set(size)) == 1 else size
    if type(size) is not int or size < 1:
        raise ValueError(
            f"the {part} of {name} has the sample_size {size}: set the side of its square states, as "
            f"pipe.{part}.register_to_config(sample_size=64)"
        )
    return size


def autoencoder(pipe: Any, device: str, tiled: bool, latent: bool, shifts: bool = False) -> Autoencoder | None:
    """Give a pipeline's autoencoder in float32; ``None`` for pixels.

    Raises ``ValueError`` where a ``latent`` model has none that is known, one that scales by nothing, or one that also
    shifts its latents, unless the pipeline ``shifts`` them too.
    """
    if not latent:
        return None
    from diffusers import AutoencoderKL

    if not isinstance(vae := pipe.vae, AutoencoderKL):
        raise ValueError(
            f"the vae of {whose(pipe)} is {'missing' if vae is None else f'of the kind {type(vae).__name__}'}: give it "
            "an AutoencoderKL, as the published model has"
        )
    vae = vae.float()
    if tiled:
        vae.enable_tiling()
        vae.enable_slicing()
    shift = 0.0 if shifts else getattr(vae.config, "shift_factor", None)
    if getattr(vae.config, "latents_mean", None) is not None or shift:
        raise ValueError(f"the autoencoder of {whose(pipe)} shifts its latents; only a scaling factor is known here")
    if not isinstance(scale := vae.config.scaling_factor, (int, float)) or not 0 < scale < math.inf:
        raise ValueError(
            f"the vae of {whose(pipe)} has the scaling_factor {scale}: set the factor by which its latents are "
            "multiplied, as 0.18215 in its config.json"
        )
    return Autoencoder(vae, device)


def schedule(scheduler: Any) -> Schedule:
    """Give the discrete schedule of a diffusers scheduler. Raises ``ValueError`` for a class or a setting that is not
    known."""
    return schedules.from_config(config_of(scheduler))


def config_of(scheduler: Any) -> dict[str, Any]:
    """Give the configuration of a diffusers scheduler: its class and the settings which that has.

    A configuration may hold settings of other classes besides, which diffusers keeps and does not use. A
    class that comes from a known one is called by that one's name.
    """
    known = {*schedules.WALKS, schedules.FLOW}
    kind = next((each for each in type(scheduler).__mro__ if each.__name__ in known), type(scheduler))
    return {**own_settings(kind, scheduler.config), "_class_name": kind.__name__}


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


def fingerprint(
    pipe: Any,
    computed: object = "",
    words: CachedTextEncoder | None = None,
    spare: Sequence[str] = (),
    tiled: bool = False,
) -> str:
    """A short hash of a pipeline's weights, in their precision, of its vocabulary, and of the settings in ``computed``.

    It does not depend on where they came from, nor on settings that nothing is computed with. ``spare`` names parts
    that another stage's stand in for.
    """
    digest = hashlib.sha256(repr(computed).encode())
    for name in PARTS:
        part = None if name in spare else getattr(pipe, name, None)
        if name == "text_encoder" and words is not None:
            digest.update(f"{name} {words.digest()}".encode())
        elif part is not None and "tokenizer" in name:
            digest.update(f"{name} {json.dumps(sorted(part.get_vocab().items()))}".encode())
        elif part is not None:
            digest.update(f"{name} {digest_of(part, settings_of(part))}".encode())
            if getattr(part, "use_tiling", False):  # a probe is too small to be cut into tiles
                tiles = {key: value for key, value in vars(part).items() if key.startswith("tile_")}
                digest.update(json.dumps(tiles, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def settings_of(network: Any) -> str:
    """A network's configuration as far as its own class has it, and not at its default: no versions, no folders."""
    network = getattr(network, "_orig_mod", network)
    if isinstance(network.config, Mapping):
        arguments = inspect.signature(type(network).__init__).parameters
        plain, given = {key: each.default for key, each in arguments.items()}, dict(network.config)
    else:
        from transformers import PreTrainedConfig

        every = PreTrainedConfig().to_dict()
        plain, given = type(network.config)().to_dict(), network.config.to_dict()
        plain = {key: value for key, value in plain.items() if key not in every}
    keys = plain.keys() & given.keys() - {"sample_size"}  # a stage's size is told apart from it
    own = {key: given[key] for key in keys if _json(given[key]) != _json(plain[key])}
    return _json(own)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def read_index(folder: Path) -> dict[str, Any]:
    """The ``model_index.json`` of a folder, which names the library and the class of every part, or neither.

    Raises ``FileNotFoundError`` where there is none, ``ValueError`` where it names something else.
    """
    file = folder / "model_index.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no model_index.json: it is not a diffusers pipeline folder")
    index = read_json(file)
    for part in (*PARTS, *SCHEDULERS):
        named = index.get(part, [None, None])
        pair = isinstance(named, list) and len(named) == 2
        if not pair or not (named == [None, None] or all(isinstance(each, str) for each in named)):
            raise ValueError(
                f"{file} names no class for its {part} but {json.dumps(named)}, where a library and a class belong: "
                "get the folder again"
            )
    return index


def scheduler_config(folder: Path, part: str, name: str) -> dict[str, Any]:
    """The configuration of a folder's scheduler of the class ``name``, as far as that class takes it."""
    import diffusers

    config, kind = read_json(folder / part / "scheduler_config.json"), getattr(diffusers, name, None)
    return {**(config if kind is None else own_settings(kind, config)), "_class_name": name}


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ``ValueError``, naming the file, where there is none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        if (kind := kind_of(file)) == POINTER:
            raise ValueError(f"{file} is {kind}") from None
        raise ValueError(f"{file} is damaged ({error}): get the folder again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file} is damaged (it holds no object): get the folder again")
    return value

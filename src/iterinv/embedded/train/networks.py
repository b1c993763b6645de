"""The embedded cascade's networks, built from the recipe as real diffusers and transformers classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iterinv.embedded.scenes.caption import WEIGHT, vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tokenizer(tokens: int) -> Any:
    """A T5 tokenizer whose pieces are the captions' words; any other word falls to single letters.

    Marks, accents and weights in brackets are not read, and a comma stands exactly where the captions have one: before
    the wall, and before the light.
    """
    from tokenizers import Regex, normalizers
    from transformers import PreTrainedTokenizerFast, T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0), ("▁,", -1.0), (",", -1.0)]
    pieces += [(f"▁{word}", -1.0) for word in vocabulary() if len(word) > 1]
    pieces += [("▁a", -1.0)] + [(letter, -8.0) for letter in LETTERS]
    words = T5TokenizerFast(vocab=pieces, extra_ids=0).backend_tokenizer
    plain: list[Any] = [normalizers.Replace(Regex(WEIGHT), ""), normalizers.Replace(Regex(r"\p{S}"), " ")]
    plain += [normalizers.NFKD(), normalizers.Lowercase()]
    plain += [normalizers.Replace(Regex(r"[\p{M}\p{Cf}]"), ""), normalizers.Replace(Regex(r"[^\p{L}\p{N}]+"), " ")]
    commas = [r"(?<=\bfloor) (?=an? \w+ wall\b)", r"(?<=\bwall) (?=light\b)"]
    plain += [normalizers.Replace(Regex(place), ", ") for place in commas]
    words.normalizer = normalizers.Sequence(plain)
    # The general class, since T5's own makes its reading anew and leaves the normalisation out.
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=tokens, **special)


def text_encoder(recipe: Mapping[str, Any], words: int) -> Any:
    """The text encoder, from the recipe."""
    from transformers import T5Config, T5EncoderModel

    text = recipe["text"]
    return T5EncoderModel(
        T5Config(
            vocab_size=words,
            d_model=text["width"],
            d_kv=text["width"] // text["heads"],
            d_ff=text["feed_forward"],
            num_layers=text["layers"],
            num_heads=text["heads"],
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            tie_word_embeddings=False,
        )
    )


def unet(recipe: Mapping[str, Any], stage: Mapping[str, Any]) -> Any:
    """The network of a stage, from the recipe."""
    from diffusers import UNet2DConditionModel

    sr = stage.get("low") is not None
    up = tuple(name.replace("Downsample", "Upsample").replace("Down", "Up") for name in reversed(stage["down"]))
    return UNet2DConditionModel(
        sample_size=stage["size"],
        in_channels=6 if sr else 3,
        out_channels=6,
        down_block_types=tuple(stage["down"]),
        mid_block_type=stage["mid"],
        up_block_types=up,
        block_out_channels=tuple(stage["channels"]),
        layers_per_block=1,
        norm_num_groups=8,
        act_fn="silu",
        attention_head_dim=32,
        cross_attention_dim=stage["channels"][-1],
        encoder_hid_dim=recipe["text"]["width"],
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="timestep" if sr else None,
    )


def scheduler(stage: Mapping[str, Any]) -> Any:
    """IF's scheduler with a stage's prediction type: cosine, learned-range variance, dynamic thresholding."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        prediction_type=stage["prediction"],
        clip_sample=True,
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=stage["sample_max"],
    )


def save_stage(folder: Path, network: Any, stage: Mapping[str, Any], text: tuple[Any, Any] | None) -> None:
    """Write a stage of the recipe as a diffusers folder, in half precision. ``text`` (tokenizer, encoder) goes with the
    first stage only."""
    import torch
    from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline

    words, encoder = text or (None, None)
    absent = dict(safety_checker=None, feature_extractor=None, watermarker=None, requires_safety_checker=False)
    parts = dict(tokenizer=words, text_encoder=encoder, unet=network, scheduler=scheduler(stage))
    if stage.get("low") is not None:
        noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        pipe = IFSuperResolutionPipeline(**parts, image_noising_scheduler=noising, **absent)
    else:
        pipe = IFPipeline(**parts, **absent)
    pipe.to(dtype=torch.float16).save_pretrained(folder)
    config = folder / "unet" / "config.json"  # where the network lay in training is nobody's business
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings.pop("_name_or_path", None)
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    for file in folder.rglob("*.safetensors"):
        file.chmod((folder / "model_index.json").stat().st_mode)  # safetensors writes 0600, whatever the umask

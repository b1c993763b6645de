"""DINO's structure distance and CLIP's scores, on tiny models of the real classes, in folders as the hub has them."""

import json
import string
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, ViTConfig, ViTModel

from iterinv import metrics
from iterinv.metrics import dino
from iterinv.metrics.weights import hub_folder

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LETTERS = [*string.ascii_lowercase, *(f"{each}</w>" for each in string.ascii_lowercase)]
"""The tokens: letters within words and at their ends."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Write a folder with tiny models under the names of the published ones."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    ViTModel(ViTConfig(**SIZE, image_size=64, patch_size=16)).save_pretrained(folder / "dino-vitb8")
    vision = {**SIZE, "image_size": 32, "patch_size": 8}
    text = {**SIZE, "vocab_size": 2 + len(LETTERS), "bos_token_id": 0, "eos_token_id": 1}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.save_pretrained(folder / "clip-vit-large-patch14")
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, **{letter: k for k, letter in enumerate(LETTERS, 2)}}
    names = {"vocab": vocabulary, "merges": [], "model_max_length": 77}
    CLIPTokenizer(**names).save_pretrained(folder / "clip-vit-large-patch14")
    square = {"shortest_edge": 32}, {"height": 32, "width": 32}
    CLIPImageProcessorPil(size=square[0], crop_size=square[1]).save_pretrained(folder / "clip-vit-large-patch14")
    return folder


def pictures(height=96, width=112):
    a = data.astronaut()[100 : 100 + height, 150 : 150 + width].copy()
    return a, 255 - a


def corner():
    mask = np.zeros((96, 112), bool)
    mask[:48, :56] = True
    return mask


def test_the_structure_distance_is_that_of_the_keys_of_the_last_layer(weights):
    """The keys are computed here from the hidden states that the model returns."""
    a, b = pictures()
    model, maps = ViTModel.from_pretrained(weights / "dino-vitb8").eval(), []
    for each in (a, b):
        x = torch.from_numpy(each).permute(2, 0, 1)[None].float() / 255
        x = F.interpolate(x, (224, 256), mode="bilinear", antialias=True)  # 261 px is 16 patches and a bit
        x = (x - torch.tensor(dino.MEAN)[:, None, None]) / torch.tensor(dino.SPREAD)[:, None, None]
        with torch.no_grad():
            out = model(pixel_values=x, interpolate_pos_encoding=True, output_hidden_states=True)
            layer = model.layers[-1]
            keys = layer.attention.k_proj(layer.layernorm_before(out.hidden_states[-2]))[0]
        maps.append(F.cosine_similarity(keys[:, None], keys[None], dim=-1))
    want = float((maps[0] - maps[1]).square().mean())
    assert metrics.dino_structure(a, b, weights=weights) == pytest.approx(want, rel=1e-4)
    assert metrics.dino_structure(a, a, weights=weights) == 0
    assert metrics.dino_structure(a, b, weights=weights, published=True) != pytest.approx(want, rel=0.01)


def test_the_clip_score_is_100_times_the_cosine(weights):
    a, b = pictures()
    ready = CLIPImageProcessorPil.from_pretrained(weights / "clip-vit-large-patch14")(images=b, return_tensors="pt")
    tokens = torch.tensor([[0, *(2 + LETTERS.index(each) for each in ("a</w>", "c", "a", "t</w>")), 1]])
    model = CLIPModel.from_pretrained(weights / "clip-vit-large-patch14").eval()
    with torch.no_grad():
        out = model(pixel_values=ready["pixel_values"], input_ids=tokens)
    want = 100 * float(out.text_embeds[0] @ out.image_embeds[0])
    assert metrics.clip_score(a, b, prompts=("a person", "a cat"), weights=weights) == pytest.approx(want, rel=1e-4)
    black = np.where(corner()[..., None], b, 0).astype(np.uint8)
    scores = (
        metrics.clip_score(*each, prompts=("", "a cat"), weights=weights) for each in ((a, black), (a, b, corner()))
    )
    assert next(scores) == pytest.approx(next(scores))


def test_the_direction_is_1_along_the_change_and_turns_with_it(weights):
    a, b = pictures()
    words = "a photo of a person", "a cat"
    there = metrics.clip_direction(a, b, prompts=words, weights=weights)
    assert metrics.clip_direction(b, a, prompts=words, weights=weights) == pytest.approx(-there, abs=1e-5)
    assert metrics.clip_direction(b, a, prompts=words[::-1], weights=weights) == pytest.approx(there, abs=1e-5)
    assert -1 <= there <= 1
    assert metrics.clip_direction(a, a, prompts=words, weights=weights) is None
    assert metrics.clip_direction(a, b, prompts=("a cat", "a cat"), weights=weights) is None


def test_only_differences_in_the_mask_count(weights):
    a, b = pictures()
    outside_changed = np.where(corner()[..., None], a, b)
    assert metrics.dino_structure(a, outside_changed, corner(), weights=weights) == 0
    assert metrics.dino_structure(a, b, corner(), weights=weights) > 0
    words = ("a cat", "a photo of a person")
    assert metrics.clip_direction(a, outside_changed, corner(), prompts=words, weights=weights) is None
    nowhere = np.zeros((96, 112), bool)
    assert metrics.dino_structure(a, b, nowhere, weights=weights) is None
    assert metrics.clip_score(a, b, nowhere, prompts=words, weights=weights) is None


def test_missing_models_are_named_with_the_command_that_gets_them(tmp_path):
    a, b = pictures()
    for call, words in (
        (metrics.dino_structure, "the structure distance needs facebook/dino-vitb8: hf download facebook/dino-vitb8"),
        (metrics.clip_score, "CLIP needs openai/clip-vit-large-patch14: hf download openai/clip-vit-large-patch14"),
    ):
        with pytest.raises(ModuleNotFoundError, match=words):
            call(a, b, weights=tmp_path)
    (tmp_path / "dino-vitb8").mkdir()
    (tmp_path / "dino-vitb8" / "config.json").write_text(json.dumps({}))
    assert hub_folder(dino.MODEL, tmp_path) is None  # settings without weights are no model


def test_an_evaluation_measures_by_weights_in_a_folder(weights, tiny_folder, tmp_path):
    from PIL import Image

    from iterinv.evaluate.rows import rows
    from iterinv.evaluate.run import evaluate
    from iterinv.evaluate.worker import Evaluation
    from iterinv.workbench import Model

    names = ("clip-score", "dino-structure")
    how = Evaluation("scenes", Model(str(tiny_folder)).load, ("ddim",), (), names, 2, size=16, count=1, threads=1)
    with pytest.raises(ModuleNotFoundError, match="clip-vit-large-patch14"):
        next(evaluate(how, tmp_path / "none"))
    list(evaluate(replace(how, weights=weights), tmp_path / "run"))
    (row,) = rows(tmp_path / "run")
    folder = tmp_path / "run" / "pictures" / row["task"]
    source, made = (np.asarray(Image.open(folder / f"{name}.png")) for name in ("source", "ddim"))
    assert row["metrics"]["dino-structure"] == pytest.approx(metrics.dino_structure(source, made, weights=weights))
    assert row["metrics"]["clip-score"] is not None

"""Devices, variants, damaged weights and hub errors give a sentence with the remedy when a model loads."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import iterinv
import published
from iterinv import sources
from iterinv.__main__ import command_line
from iterinv.images import to_uint8
from iterinv.store import BadInversion

from conftest import refused

PROMPT = "a red ball"


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", "xpu", "hpu", "cpu0", ""])
def test_a_device_that_is_not_here_is_a_sentence(tiny_folder, picture, tmp_path, device):
    Image.fromarray(to_uint8(picture)).save(tmp_path / "a.png")
    words, how = f"there is no device '{device}' here: take cpu", ("--device", device, "--model", tiny_folder)
    for command in (
        ("invert", tmp_path / "a.png", "-p", PROMPT, *how, "-o", tmp_path),
        ("edit", tmp_path / "a.png", "-p", PROMPT, "--to", "a blue cube", *how, "-o", tmp_path),
        ("compare", tmp_path / "a.png", "-p", PROMPT, *how, "-o", tmp_path),
        ("sample", PROMPT, *how, "-o", tmp_path),
        ("doctor", *how),
        ("cost", tiny_folder, "--device", device),
        ("sample", PROMPT, *how, "-o", tmp_path, "--memory", "auto"),
    ):
        refused(words, *command)
    with pytest.raises(ValueError, match=words):
        iterinv.load(tiny_folder).to(device)


def test_a_variant_is_named_and_taken(tmp_path, picture):
    published.sd().save_pretrained(tmp_path / "half", variant="fp16")
    Image.fromarray(to_uint8(picture)).save(tmp_path / "a.png")
    arguments = (
        "invert",
        tmp_path / "a.png",
        "-p",
        PROMPT,
        "-n",
        2,
        "-o",
        tmp_path / "out",
        "--model",
        tmp_path / "half",
    )
    refused("holds its weights only in the variant fp16: load it by variant='fp16', --variant fp16", *arguments)
    refused("holds no weights of the variant 'fp61': leave it out", *arguments, "--variant", "fp61")
    result = CliRunner().invoke(command_line(), [str(word) for word in (*arguments, "--variant", "fp16")])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("mode", [None, "staged"])
def test_a_variant_is_taken_in_every_way_of_loading(tiny_folder, tmp_path, mode, monkeypatch):
    monkeypatch.setenv("ITERINV_CACHE", str(tmp_path / "words"))
    (plain,) = sources.stages(tiny_folder / "stage1")
    sources.open_folder(tiny_folder / "stage1").save_pretrained(tmp_path / "half", variant="fp16")
    (stage,) = sources.stages(tmp_path / "half", mode=mode, variant="fp16")
    assert stage.fingerprint == plain.fingerprint
    assert torch.equal(stage.embed([PROMPT])["text"], plain.embed([PROMPT])["text"])


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
@pytest.mark.parametrize("harm", ["cut", "emptied", "a shard lost", "an index of rubbish"])
def test_damaged_weights_are_a_sentence_that_names_the_file(tmp_path, part, harm):
    published.sd().save_pretrained(tmp_path, max_shard_size="30KB" if "shard" in harm or "index" in harm else "1GB")
    file = sorted((tmp_path / part).glob("*.safetensors"))[0]
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif harm == "emptied":
        file.write_bytes(b"")
    elif harm == "a shard lost":
        file.unlink()
    else:
        (file,) = (tmp_path / part).glob("*.index.json")
        file.write_text("[]")
    with pytest.raises((ValueError, FileNotFoundError), match=rf"{file.name}.*(get it again|get the folder again)"):
        iterinv.load(tmp_path)


@pytest.mark.parametrize("harm", ["emptied", "cut", "flipped", "of other tensors", "of no safetensors", "a folder"])
def test_a_damaged_entry_of_the_word_cache_is_made_again(tiny_folder, tmp_path, monkeypatch, harm):
    monkeypatch.setenv("ITERINV_CACHE", str(tmp_path / "words"))
    truth = sources.stages(tiny_folder / "stage1", mode="staged")[0]
    text = truth.embed([PROMPT])["text"]
    for file in (tmp_path / "words").iterdir():
        data = bytearray(file.read_bytes())
        data[-1] ^= 64
        file.unlink()
        if harm == "a folder":
            file.mkdir()
        elif harm == "of other tensors":
            save_file({"text": torch.zeros(1, 77, 3)}, file)
        else:
            file.write_bytes({"emptied": b"", "cut": data[:-9], "flipped": data, "of no safetensors": b"words"}[harm])
    again = sources.stages(tiny_folder / "stage1", mode="staged")[0]
    assert again.fingerprint == truth.fingerprint
    assert torch.equal(again.embed([PROMPT])["text"], text)


def test_words_are_read_where_nothing_can_be_kept(tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "words").write_text("a file where the folder should be")
    monkeypatch.setenv("ITERINV_CACHE", str(tmp_path / "words"))
    (plain,) = sources.stages(tiny_folder / "stage1")
    (stage,) = sources.stages(tiny_folder / "stage1", mode="staged")
    assert torch.equal(stage.embed([PROMPT])["text"], plain.embed([PROMPT])["text"])


def test_without_a_connection_the_cause_is_said_after_one_question(monkeypatch):
    """The loader then searches the hub's cache without another request."""
    import httpx2
    from diffusers import DiffusionPipeline
    from huggingface_hub import HfApi

    timeouts, sought = [], []

    def no_answer(self, name, **how):
        timeouts.append(how["timeout"])
        raise httpx2.ConnectError("[Errno -2] Name or service not known")

    def load_config(name, **how):
        sought.append(how["local_files_only"])
        raise OSError("it is not in the cache. And more.")

    monkeypatch.setattr(HfApi, "model_info", no_answer)
    monkeypatch.setattr(DiffusionPipeline, "load_config", load_config)
    with pytest.raises(FileNotFoundError, match=r"no connection to the hub: ConnectError: .*Name or service not known"):
        iterinv.load("deepfloyd")
    assert timeouts == [5]
    assert sought == [True]
    refused("no connection to the hub", "sample", PROMPT, "--model", "sd15")


def test_a_licence_is_asked_for_where_the_hub_answers(monkeypatch):
    from diffusers import DiffusionPipeline

    def gated(name, **how):
        assert not how["local_files_only"]
        raise OSError("You are trying to access a gated repo. More.")

    monkeypatch.setattr(sources, "unreachable", lambda name: None)
    monkeypatch.setattr(DiffusionPipeline, "load_config", gated)
    with pytest.raises(FileNotFoundError, match=r"\(You are trying to access a gated repo\): accept the licence at"):
        iterinv.load("deepfloyd")


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_weights_that_lack_a_tensor_are_refused(tmp_path, part):
    """The libraries fill a missing tensor of a text encoder at random, and would load another model each time."""
    published.sd().save_pretrained(tmp_path)
    (file,) = (tmp_path / part).glob("*.safetensors")
    tensors = load_file(file)
    lost = sorted(key for key in tensors if key.endswith("weight") and tensors[key].ndim > 1)[0]
    save_file(
        {
            f"x.{key}" if key == lost and part == "vae" else key: x
            for key, x in tensors.items()
            if key != lost or part == "vae"
        },
        file,
        {"format": "pt"},
    )
    with pytest.raises(ValueError, match=rf"{part}.*lack {lost}"):
        iterinv.load(tmp_path)


def test_a_text_encoder_of_another_class_is_refused(tmp_path):
    published.sd().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("CLIPTextModel", "T5EncoderModel"))
    with pytest.raises(ValueError, match="text_encoder"):
        iterinv.load(tmp_path)


@pytest.mark.parametrize("path", ["/no/such", "./missing", "~/models/sd", "models/of/sd", "models/sd/", "C:\\m\\sd"])
def test_a_path_that_is_not_there_is_a_sentence(path):
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        iterinv.load(path)


def test_a_name_that_is_too_long_is_a_sentence(tiny, tmp_path):
    long = "a" * 300
    for path in (long, tmp_path / long, [tmp_path / long], f"{long}/b", f"b/{long}"):
        with pytest.raises(FileNotFoundError, match="there is no file or folder"):
            iterinv.load(path)
    with pytest.raises(FileNotFoundError, match=r"the cost of a+ is not known"):
        iterinv.load(long, memory="auto")
    with pytest.raises(BadInversion, match="there is no file"):
        tiny.open(tmp_path / long)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
WEIGHTS, SCHEDULER = "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"
HARMS = {
    "no class": ("model_index.json", {"unet": None}, "model_index.json names no class for its unet but null"),
    "an empty class": ("model_index.json", {"vae": []}, r"names no class for its vae but \[\]"),
    "half a class": ("model_index.json", {"unet": "x"}, 'names no class for its unet but "x"'),
    "numbers for a class": (
        "model_index.json",
        {"tokenizer": [1, 2]},
        r"names no class for its tokenizer but \[1, 2\]",
    ),
    "no network": ("model_index.json", {"unet": [None, None]}, "model_index.json names no unet: get the folder again"),
    "another library": ("model_index.json", {"unet": ["diffusers", "Nope"]}, "cannot be loaded .*no class `Nope`"),
    "a list of settings": (SCHEDULER, b"[]", "scheduler_config.json is damaged .*get the folder again"),
    "half a tokenizer": ("tokenizer/tokenizer.json", b"{", "tokenizer.json is damaged .*get the folder again"),
    "a list for a network": ("unet/config.json", b"[]", "unet/config.json is damaged"),
    "a pointer to weights": (WEIGHTS, POINTER, f"{WEIGHTS} is the pointer of a file in Git LFS .*git lfs pull"),
    "a pointer to settings": ("vae/config.json", POINTER, "vae/config.json is the pointer of a file in Git LFS"),
    "no levels": (SCHEDULER, {"num_train_timesteps": 0}, "in .*/scheduler: a DDIM.*num_train_timesteps is 0; it is 1"),
    "levels of words": (SCHEDULER, {"beta_end": "x"}, "beta_end is 'x', a str; it is a finite number"),
    "levels of NaN": (SCHEDULER, {"beta_end": float("nan")}, "beta_end is nan; it is a finite number"),
    "no betas": (SCHEDULER, {"trained_betas": []}, "trained_betas is 0; its length is 1"),
    "an offset of words": (SCHEDULER, {"steps_offset": "a"}, "steps_offset is 'a', a str; it is a whole number"),
    "a scale of zero": ("vae/config.json", {"scaling_factor": 0}, "the vae of .* has the scaling_factor 0"),
    "a size below zero": ("unet/config.json", {"sample_size": -8}, "the unet of .* has the sample_size -8"),
}


@pytest.mark.parametrize("name", HARMS)
def test_a_folder_with_a_harmed_file_is_a_sentence_that_names_it(tmp_path, name):
    file, harm, words = HARMS[name]
    published.sd().save_pretrained(tmp_path)
    given = json.dumps({**json.loads((tmp_path / file).read_text()), **harm}) if isinstance(harm, dict) else None
    (tmp_path / file).write_bytes(harm if given is None else given.encode())
    with pytest.raises(ValueError, match=words):
        iterinv.load(tmp_path)
    if file == "model_index.json" and "Nope" not in str(harm):
        refused("model_index.json names no", "sample", PROMPT, "--model", tmp_path)

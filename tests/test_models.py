"""Models as users hold them: a live pipeline stays as it is, what is computed is told apart, and disks change."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import iterinv
import published
from iterinv import sources
from iterinv.images import to_uint8
from iterinv.methods import plan
from iterinv.store import BadInversion

PROMPT = "a red ball"
LIVE = {"sd": published.sd, "sdxl": published.sdxl, "x4": published.x4}


def state_of(pipe):
    """All that a pipeline's networks, tokenizers and schedulers hold."""
    found = {}
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            for key, x in [*part.named_parameters(), *part.named_buffers()]:
                found[name, key] = (x.data_ptr(), x.dtype, x.device, x.stride(), x.requires_grad, x._version)
            found[name, "training"] = [module.training for module in part.modules()]
            found[name, "attributes"] = {
                key: repr(value) for key, value in vars(part).items() if key.startswith("use_")
            }
        elif hasattr(part, "get_vocab"):
            backend = part.backend_tokenizer
            found[name, "reading"] = (backend.padding, backend.truncation, part.model_max_length, part.get_vocab())
        found[name, "config"] = str(getattr(part, "config", None))
    return found | {"config": str(pipe.config)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LIVE)
def test_a_live_pipeline_works_as_before(name, dtype, tiny_folder, picture):
    """In training, in any precision, tiled or not: no weight, flag, layout or setting of it changes."""
    pipe = LIVE[name]().to(dtype)
    pipe.unet.train()
    pipe.text_encoder.train()
    before = state_of(pipe)
    what = [sources.open_folder(tiny_folder / "stage1"), pipe] if name == "x4" else pipe
    cascade = iterinv.load(what, tiled=True)
    inversion = cascade.invert(picture, PROMPT, plan("bdia", 3))
    assert (to_uint8(inversion.picture) == to_uint8(picture)).all()
    cascade.to("cpu").sample("a blue cube, " * 60, 2)
    assert state_of(pipe) == before
    if name != "x4":
        pipe(PROMPT, num_inference_steps=1, output_type="np", height=64, width=64)


def test_a_live_if_pipeline_and_a_module_work_as_before(tiny_folder, picture):
    pipes = [sources.open_folder(tiny_folder / f"stage{k}") for k in (1, 2, 3)]
    for pipe in pipes:
        pipe.unet.train().requires_grad_(True)
    before = [state_of(pipe) for pipe in pipes]
    iterinv.load(pipes).invert(picture, PROMPT, plan("bdia", 3))
    assert [state_of(pipe) for pipe in pipes] == before

    class Network(torch.nn.Module):
        img_resolution = 16

        def __init__(self):
            super().__init__()
            self.conv, self.drop = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Dropout(0.5)

        def forward(self, x, sigma):
            return self.drop(self.conv(x)) / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    network = Network().train()
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    found = iterinv.load(network).invert(x, "", plan("bdia", 6))
    assert float((found.picture - x).abs().max()) < 1e-4
    assert network.training
    assert network.drop.training
    assert network.conv.weight.requires_grad


def test_what_a_pipeline_becomes_after_loading_is_not_seen(picture):
    """Its weights are shared and its modules are not: a hook that is put there later acts there alone."""
    pipe = published.sd()
    cascade = iterinv.load(pipe)
    before = cascade.sample(PROMPT, 2)[-1]
    pipe.unet.conv_out.register_forward_hook(lambda *_: torch.zeros(1))
    pipe.enable_freeu(s1=0.1, s2=0.1, b1=1.9, b2=1.9)
    assert torch.equal(cascade.sample(PROMPT, 2)[-1], before)


def offloaded(pipe):
    from accelerate import cpu_offload

    cpu_offload(pipe.unet, "cpu")
    return pipe


def test_a_network_that_cannot_be_copied_is_said():
    with pytest.raises(ValueError, match="the unet of StableDiffusionPipeline is offloaded or driven by hooks"):
        iterinv.load(offloaded(published.sd()))
    pipe = published.sd()
    pipe.unet.progress = iter(())
    pipe.unet.log = open(__file__)  # noqa: SIM115
    with pytest.raises(ValueError, match=r"UNet2DConditionModel cannot be copied \(.*take off the hooks"):
        iterinv.load(pipe)
    pipe.unet.log.close()


class Adapter(torch.nn.Module):
    """A low-rank adapter as peft's: a scale that is no weight."""

    def __init__(self, base, scale):
        super().__init__()
        self.base_layer, self.scaling = base, {"style": scale}
        generator = torch.Generator().manual_seed(0)
        self.down = torch.nn.Parameter(torch.randn(2, base.in_features, generator=generator) / 4)
        self.up = torch.nn.Parameter(torch.randn(base.out_features, 2, generator=generator) / 4)

    def forward(self, x, *args, **kwargs):
        return self.base_layer(x) + self.scaling["style"] * (x @ self.down.to(x).T @ self.up.to(x).T)


class Scaled:
    """An attention processor of one's own."""

    def __init__(self, inner, scale):
        self.inner, self.scale = inner, scale

    def __call__(self, *args, **kwargs):
        return self.scale * self.inner(*args, **kwargs)


def adapted(scale, part="unet"):
    def change(pipe):
        network = getattr(pipe, part)
        name = next(name for name, module in network.named_modules() if name.endswith(("to_q", "q_proj")))
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, Adapter(network.get_submodule(name), scale).to(network.dtype))

    return change


def processors(scale):
    return lambda pipe: pipe.unet.set_attn_processor(
        {name: Scaled(inner, scale) for name, inner in pipe.unet.attn_processors.items()}
    )


def hooked(part, layer, scale):
    return lambda pipe: getattr(pipe, part).get_submodule(layer).register_forward_hook(lambda _, __, out: out * scale)


def words_limit(tokens):
    return lambda pipe: setattr(pipe.tokenizer, "model_max_length", tokens)


CHANGES = {
    "an adapter's scale": (adapted(1.0), adapted(0.9)),
    "an adapter's scale of the text encoder": (adapted(1.0, "text_encoder"), adapted(0.9, "text_encoder")),
    "attention processors": (processors(1.0), processors(1.01)),
    "FreeU": (lambda pipe: None, lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)),
    "a hook of the network": (lambda pipe: None, hooked("unet", "conv_out", 1.01)),
    "a hook of the decoder": (lambda pipe: None, hooked("vae", "decoder.conv_in", 1.01)),
    "a hook of the encoder": (lambda pipe: None, hooked("vae", "quant_conv", 1.01)),
    "a hook of the text encoder": (lambda pipe: None, hooked("text_encoder", "final_layer_norm", 1.01)),
    "a limit on tokens": (lambda pipe: None, words_limit(40)),
    "tiles": (lambda pipe: None, lambda pipe: pipe.vae.enable_tiling()),
    "the scaling of latents": (lambda pipe: None, lambda pipe: pipe.vae.register_to_config(scaling_factor=0.2)),
    "the prediction": (lambda pipe: None, lambda pipe: pipe.scheduler.register_to_config(prediction_type="sample")),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CHANGES)
def test_an_inversion_is_refused_where_another_thing_is_computed(name, dtype, picture, tmp_path):
    """Whatever the change is called and wherever it is kept: the weights are the same in both."""
    cascades = []
    for change in CHANGES[name]:
        pipe = published.sd().to(dtype)
        change(pipe)
        cascades.append(iterinv.load(pipe))
    first, other = cascades
    first.invert(picture, PROMPT, plan("bdia", 2)).save(tmp_path / "a.safetensors")
    inversion = first.open(tmp_path / "a.safetensors")
    with pytest.raises(
        BadInversion, match=r"the networks of stage I then computed something else|other weights, settings"
    ):
        other.open(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="load that one, or invert the picture again"):
        other.edit(inversion, "a blue ball")


def test_what_computes_the_same_is_the_same(picture, tmp_path):
    """Attention in slices or by another kernel, another layout."""
    from diffusers.models.attention_processor import AttnProcessor

    first = iterinv.load(published.sd())
    first.invert(picture, PROMPT, plan("bdia", 2)).save(tmp_path / "a.safetensors")
    for change in (
        lambda pipe: pipe.unet.set_attn_processor(AttnProcessor()),
        lambda pipe: pipe.enable_attention_slicing(),
        lambda pipe: pipe.vae.enable_slicing(),
        lambda pipe: pipe.unet.requires_grad_(False),
        lambda pipe: pipe.unet.to(memory_format=torch.channels_last),
    ):
        pipe = published.sd()
        change(pipe)
        again = iterinv.load(pipe)
        assert again.fingerprint == first.fingerprint
        assert again.open(tmp_path / "a.safetensors").prompt == PROMPT


@pytest.mark.slow
def test_a_compiled_network_is_the_same_model():
    pipe = published.sd()
    before = iterinv.load(pipe)
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    after = iterinv.load(pipe)
    assert after.fingerprint == before.fingerprint
    assert after.stages[0].probe.agrees(before.stages[0].probe)


def test_a_probe_of_another_machine_may_differ_in_its_last_digits(tiny):
    probe = tiny.stages[0].probe
    for share, here, elsewhere in ((1e-7, True, True), (3e-5, False, True), (1e-3, False, False)):
        values = tuple(tuple(x + share * group[0] for x in group) for group in probe.values)
        assert probe.agrees(replace(probe, values=values)) == here
        assert replace(probe, values=values, where="another machine").agrees(probe) == elsewhere
    assert not probe.agrees(replace(probe, values=probe.values[1:]))


@pytest.mark.parametrize("name", LIVE)
def test_the_same_weights_have_one_name_however_they_came(name, tmp_path, tiny_folder):
    """In memory, saved, loaded, in shards, as a variant, under another name and with the notes that libraries leave."""
    below = [tiny_folder / "stage1"] if name == "x4" else []
    pipe = LIVE[name]()
    prints = {iterinv.load([*below, pipe]).fingerprint}
    pipe.save_pretrained(tmp_path / "plain")
    prints.add(iterinv.load([*below, pipe]).fingerprint)
    pipe.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    pipe.save_pretrained(tmp_path / "variant", variant="fp16")
    config = tmp_path / "plain" / "unet" / "config.json"
    noted = {
        **json.loads(config.read_text()),
        "_name_or_path": "elsewhere",
        "_diffusers_version": "0.30.0",
        "note": "mine",
    }
    config.write_text(json.dumps(noted))
    config = tmp_path / "plain" / "text_encoder" / "config.json"
    noted = {
        **json.loads(config.read_text()),
        "transformers_version": "4.0",
        "_name_or_path": "x",
        "torch_dtype": "float16",
    }
    config.write_text(json.dumps(noted))
    for folder, variant in (("plain", None), ("shards", None), ("variant", "fp16")):
        prints.add(iterinv.load([*below, tmp_path / folder], variant=variant).fingerprint)
    assert len(prints) == 1


def test_a_live_cascade_has_the_name_of_its_folders(tiny, tiny_folder):
    pipes = [sources.open_folder(tiny_folder / f"stage{k}") for k in (1, 2, 3)]
    pipes[1].text_encoder, pipes[1].tokenizer = pipes[0].text_encoder, pipes[0].tokenizer
    assert iterinv.load(pipes, noise_level=100).fingerprint == tiny.fingerprint


def test_another_solver_of_the_same_schedule_is_the_same_model():
    from diffusers import PNDMScheduler

    pipe = published.sd()
    before = iterinv.load(pipe).fingerprint
    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config)
    assert iterinv.load(pipe).fingerprint == before


def rewritten(folder, keep_times):
    """Weights of another seed in the place of a folder's, of the same size and, if asked, of the same times."""
    import os

    (file,) = (folder / "unet").glob("*.safetensors")
    told = file.stat()
    tensors = {name: x + 0.01 for name, x in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    assert file.stat().st_size == told.st_size
    if keep_times:
        os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_folder_that_changed_is_loaded_again(tiny_folder, tmp_path, keep_times):
    folder = shutil.copytree(tiny_folder, tmp_path / "cascade")
    first = iterinv.load(folder)
    assert iterinv.load(folder).stages[0] is first.stages[0]
    rewritten(folder / "stage2", keep_times)
    second = iterinv.load(folder)
    assert second.stages[0].fingerprint == first.stages[0].fingerprint
    assert second.stages[1].fingerprint != first.stages[1].fingerprint
    config = folder / "stage1" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("squaredcos_cap_v2", "linear"))
    assert iterinv.load(folder).stages[0].fingerprint != first.stages[0].fingerprint


def test_words_are_read_anew_where_encoder_or_tokenizer_changed(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ITERINV_CACHE", str(tmp_path / "words"))
    folder = shutil.copytree(tiny_folder / "stage1", tmp_path / "stage")
    before = sources.stages(folder, mode="staged")[0].embed
    first = before([PROMPT])["text"]
    (file,) = (folder / "text_encoder").glob("*.safetensors")
    save_file({name: x + 0.01 for name, x in load_file(file).items()}, file, {"format": "pt"})
    assert before([PROMPT, "words that were not read before"])["text"].shape[0] == 2  # by the encoder that is loaded
    before.free()
    with pytest.raises(ValueError, match="text encoder's files changed since the cascade was loaded: load it again"):
        before(["others"])
    second = sources.stages(folder, mode="staged")[0].embed([PROMPT])["text"]
    assert not torch.equal(first, second)
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    vocabulary = json.loads(tokenizer.read_text())
    names = [piece for piece, _ in vocabulary["model"]["vocab"]]
    red, blue = names.index("▁red"), names.index("▁blue")
    pieces = vocabulary["model"]["vocab"]
    pieces[red], pieces[blue] = pieces[blue], pieces[red]
    tokenizer.write_text(json.dumps(vocabulary))
    third = sources.stages(folder, mode="staged")[0].embed([PROMPT])["text"]
    assert not torch.equal(second, third)


def test_unknown_options_are_named(tiny_folder):
    for word in ("noise_levl", "varient", "use_safetensors", "mode"):
        with pytest.raises(TypeError, match=word):
            iterinv.load(tiny_folder, **{word: 5})
    with pytest.raises(ValueError, match="variant, config: a network that is loaded already has no use for it"):
        iterinv.load(published.sd(), variant="fp16", config="x")


@pytest.mark.parametrize("mode", [None, "staged"])
def test_no_pickle_is_opened_without_consent(tiny_folder, tmp_path, mode, monkeypatch):
    """Nor where another safetensors file lies beside it, in any way of loading; and TorchScript is code too."""
    monkeypatch.setenv("ITERINV_CACHE", str(tmp_path / "words"))
    opened, real = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: opened.append(args) or real(*args, **kwargs))
    for part, name in (("text_encoder", "pytorch_model.bin"), ("unet", "diffusion_pytorch_model.bin")):
        folder = shutil.copytree(tiny_folder / "stage1", tmp_path / part)
        (weights,) = (folder / part).glob("*.safetensors")
        torch.save(load_file(weights), folder / part / name)
        weights.rename(folder / part / "other.safetensors")
        with pytest.raises(ValueError, match=rf"{part} holds its weights only as a pickle .*--allow-pickle"):
            sources.stages(folder, mode=mode)
        assert not opened
        assert sources.stages(folder, mode=mode, allow_pickle=True)[0].embed([PROMPT])["text"].shape[1] == 77
        assert opened
        opened.clear()


def test_a_hub_name_is_loaded_by_the_same_path(tiny_folder, tmp_path, monkeypatch):
    """What the hub's cache holds goes through the checks of a folder."""
    from diffusers import DiffusionPipeline

    folder = shutil.copytree(tiny_folder / "stage1", tmp_path / "stage")
    (weights,) = (folder / "text_encoder").glob("*.safetensors")
    torch.save(load_file(weights), folder / "text_encoder" / "pytorch_model.bin")
    weights.unlink()
    real, asked = DiffusionPipeline.load_config, []
    monkeypatch.setattr(sources, "unreachable", lambda name: None)
    monkeypatch.setattr(DiffusionPipeline, "load_config", lambda name, **how: real(folder))
    monkeypatch.setattr(DiffusionPipeline, "download", lambda name, **how: asked.append(how) or str(folder))
    for mode in (None, "staged"):
        with pytest.raises(ValueError, match="text_encoder holds its weights only as a pickle"):
            sources.stages("someone/stage", mode=mode)
    assert all(how["use_safetensors"] for how in asked)


def test_nothing_of_the_process_changes_by_loading(tiny_folder, tmp_path):
    import diffusers.utils.logging as d
    import transformers.utils.logging as t

    def state():
        return (
            d.get_verbosity(), d.is_progress_bar_enabled(), t.get_verbosity(), t.is_progress_bar_enabled(),
            torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
        )  # fmt: skip

    folder = shutil.copytree(tiny_folder, tmp_path / "cascade")
    d.set_verbosity_info()
    d.disable_progress_bar()
    before = state()
    try:
        iterinv.load(folder).sample(PROMPT, 2)
        assert state() == before
    finally:
        d.set_verbosity_warning()
        d.enable_progress_bar()

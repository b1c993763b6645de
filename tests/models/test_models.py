"""A live pipeline stays as it is, fingerprints follow the computation, and files may change on disk."""

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
from iterinv.models import digest_of
from iterinv.store import BadInversion

PROMPT = "a red ball"
LIVE = {"sd": published.sd, "sdxl": published.sdxl, "x4": published.x4}


def state_of(pipe):
    """Return everything that a pipeline's networks, tokenizers and schedulers contain."""
    files = {}
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            for key, x in [*part.named_parameters(), *part.named_buffers()]:
                files[name, key] = (x.data_ptr(), x.dtype, x.device, x.stride(), x.requires_grad, x._version)
            files[name, "training"] = [module.training for module in part.modules()]
            files[name, "attributes"] = {
                key: repr(value) for key, value in vars(part).items() if key.startswith("use_")
            }
        elif hasattr(part, "get_vocab"):
            backend = part.backend_tokenizer
            files[name, "reading"] = (backend.padding, backend.truncation, part.model_max_length, part.get_vocab())
        files[name, "config"] = str(getattr(part, "config", None))
    return files | {"config": str(pipe.config)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LIVE)
def test_a_live_pipeline_works_as_before(name, dtype, tiny_folder, picture):
    """Loading changes no weight, flag, layout or setting of it, in training mode, any precision, tiled or not."""
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
    inversion = iterinv.load(network).invert(x, "", plan("bdia", 6))
    assert float((inversion.picture - x).abs().max()) < 1e-4
    assert network.training
    assert network.drop.training
    assert network.conv.weight.requires_grad


def test_what_a_pipeline_becomes_after_loading_is_not_seen(picture):
    """The cascade shares the weights and not the modules: a later hook on the pipeline acts on the pipeline alone."""
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
    cast, spread = published.sd(), published.sd()
    cast.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    spread.unet.enable_group_offload(torch.device("cpu"), torch.device("cpu"), offload_type="leaf_level")
    for pipe in (cast, spread):
        with pytest.raises(ValueError, match="hooks of diffusers, which stay: load the pipeline again without layer"):
            iterinv.load(pipe)
    with pytest.raises(ValueError, match="the unet of StableDiffusionPipeline is offloaded or driven by hooks"):
        iterinv.load(offloaded(published.sd()))
    pipe = published.sd()
    pipe.unet.progress = iter(())
    pipe.unet.log = open(__file__)  # noqa: SIM115
    with pytest.raises(ValueError, match=r"UNet2DConditionModel cannot be copied \(.*take off the hooks"):
        iterinv.load(pipe)
    pipe.unet.log.close()


class Adapter(torch.nn.Module):
    """A low-rank adapter like peft's, with a scale that is no weight."""

    def __init__(self, base, scale):
        super().__init__()
        self.base_layer, self.scaling = base, {"style": scale}
        generator = torch.Generator().manual_seed(0)
        self.down = torch.nn.Parameter(torch.randn(2, base.in_features, generator=generator) / 4)
        self.up = torch.nn.Parameter(torch.randn(base.out_features, 2, generator=generator) / 4)

    def forward(self, x, *args, **kwargs):
        return self.base_layer(x) + self.scaling["style"] * (x @ self.down.to(x).T @ self.up.to(x).T)


class Scaled:
    """A user's own attention processor."""

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
    """The weights are the same in both; every kind of change counts, wherever the pipeline stores it."""
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
    """Sliced attention, another kernel and another layout leave the fingerprint as it is."""
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
    """The weights come from memory, a folder, shards, a variant or another name, and with the notes that libraries
    add."""
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
    """Replace a folder's weights by those of another seed, of the same size and, if asked, the same times."""
    import os

    (file,) = (folder / "unet").glob("*.safetensors")
    status = file.stat()
    tensors = {name: x + 0.01 for name, x in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    assert file.stat().st_size == status.st_size
    if keep_times:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


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
    assert before([PROMPT, "words that were not read before"])["text"].shape[0] == 2  # the loaded encoder reads it
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


class Network(torch.nn.Module):
    """A network of EDM's kind."""

    def __init__(self, size=16):
        super().__init__()
        self.img_resolution, self.mix = size, torch.nn.Linear(3, 3)

    def forward(self, x, sigma):
        return self.mix(x.movedim(1, -1)).movedim(-1, 1) / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


def test_an_option_without_effect_is_refused(tiny_folder, tmp_path):
    """The error names it and the kind of model; an option with an effect on another stage is taken."""
    published.sd().save_pretrained(tmp_path / "sd")
    live = "a network that is loaded already"
    for what, option, words in (
        (published.sd(), {"variant": "fp16"}, f"variant has no effect on {live}, but on a folder or a name on the hub"),
        (published.sd(), {"config": "x"}, f"config has no effect on {live}, but on a file of all weights: leave"),
        (published.sd(), {"local_files_only": True}, f"local_files_only has no effect on {live}"),
        (published.sd(), {"dtype": torch.float16}, "dtype has no effect on StableDiffusionPipeline, .* in float32"),
        (Network(), {"dtype": torch.float16}, "dtype has no effect on Network, which stays in float32"),
        (Network(), {"noise_level": 5}, "noise_level has no effect .* none of them enlarges a picture: leave it out"),
        (tiny_folder, {"variant": "fp16"}, "stage1 holds no weights of the variant 'fp16': leave it out"),
        (tiny_folder, {"tiled": True}, "tiled has no effect .* none of them has an autoencoder"),
        (tmp_path / "sd", {"revision": "v2"}, "revision has no effect on a folder, but on a name on the hub"),
        (tmp_path / "sd", {"config": "x"}, "config has no effect on a folder"),
        (tmp_path / "sd", {"noise_level": 5}, "noise_level has no effect"),
        (tmp_path / "sd", {"clean": True}, "clean has no effect on these stages, since they read captions as they are"),
    ):
        with pytest.raises(ValueError, match=words):
            iterinv.load(what, **option)
    with pytest.raises(ValueError, match="device has no effect on StableDiffusionPipeline, which is on cpu: move it"):
        sources.stages(published.sd(), device="cuda")
    assert iterinv.load(tmp_path / "sd", local_files_only=True, clean=False, tiled=True).size == 64
    assert iterinv.load(published.sd(), dtype=torch.float32).size == 64
    assert iterinv.load([tiny_folder / "stage1", tiny_folder / "stage2"], noise_level=7).stages[1].low_level.t == 7


def quantised(network):
    return torch.ao.quantization.quantize_dynamic(network, {torch.nn.Linear}, dtype=torch.qint8)


def sparse(network):
    layer = next(each for each in network.modules() if isinstance(each, torch.nn.Linear))
    layer.weight = torch.nn.Parameter(layer.weight.detach().to_sparse(), requires_grad=False)
    return network


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_network_in_whole_numbers_is_a_model_of_its_own(part, picture):
    """It is told from the same weights in float32 by its fingerprint, and every pixel comes back."""
    prints = [iterinv.load(published.sd()).fingerprint]
    for _ in range(2):
        pipe = published.sd()
        setattr(pipe, part, quantised(getattr(pipe, part)))
        cascade = iterinv.load(pipe)
        prints.append(cascade.fingerprint)
    assert prints[1] == prints[2] != prints[0]
    inversion = cascade.invert(picture, PROMPT, plan("bdia", 3))
    assert (to_uint8(inversion.picture) == to_uint8(picture)).all()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_network_spread_over_devices_is_the_network_within(part):
    pipe = published.sd()
    setattr(pipe, part, torch.nn.DataParallel(getattr(pipe, part)))
    assert iterinv.load(pipe).fingerprint == iterinv.load(published.sd()).fingerprint
    network = Network()
    assert iterinv.load(torch.nn.DataParallel(network)).fingerprint == iterinv.load(network).fingerprint


@pytest.mark.filterwarnings("ignore")
def test_sparse_weights_are_loaded_where_they_run():
    dense, pipe = published.sd(), published.sd()
    sparse(pipe.text_encoder)
    assert iterinv.load(pipe).fingerprint == iterinv.load(dense).fingerprint
    for part, words in (("unet", "the network of"), ("vae", "the autoencoder of")):
        pipe = published.sd()
        sparse(getattr(pipe, part))
        with pytest.raises(ValueError, match=f"{words} StableDiffusionPipeline cannot be run .*[Ss]parse"):
            iterinv.load(pipe)
    empty = Network()
    empty.register_buffer("lost", torch.empty(3, device="meta"))
    with pytest.raises(ValueError, match="the lost of a Network is not in memory: load all of its weights first"):
        iterinv.load(empty)
    with pytest.raises(ValueError, match="the weights lost of a Network are of a kind that is not read here"):
        digest_of(empty)


def test_what_is_no_model_is_told():
    for what in (b"embedded", None, 3, {}, [["embedded"]], [None], published.sd):
        with pytest.raises(TypeError, match="is no model: give a name or a path as text, a pipeline"):
            iterinv.load(what)
    for size in (-16, 0, True):
        with pytest.raises(ValueError, match=f"a Network has the img_resolution {size}: set it to the size"):
            iterinv.load(Network(size))
    with pytest.raises(ValueError, match=r"a UNet2DConditionModel has no img_resolution: .*or load the pipeline"):
        iterinv.load(published.sd().unet)


@pytest.mark.parametrize("mode", [None, "staged"])
def test_no_pickle_is_opened_without_consent(tiny_folder, tmp_path, mode, monkeypatch):
    """This holds beside another safetensors file too, in every way of loading; TorchScript counts as code as well."""
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
    """Files in the hub's cache pass the checks of a folder."""
    from diffusers import DiffusionPipeline

    folder = shutil.copytree(tiny_folder / "stage1", tmp_path / "stage")
    (weights,) = (folder / "text_encoder").glob("*.safetensors")
    torch.save(load_file(weights), folder / "text_encoder" / "pytorch_model.bin")
    weights.unlink()
    real, requests = DiffusionPipeline.load_config, []
    monkeypatch.setattr(sources, "unreachable", lambda name: None)
    monkeypatch.setattr(DiffusionPipeline, "load_config", lambda name, **how: real(folder))
    monkeypatch.setattr(DiffusionPipeline, "download", lambda name, **how: requests.append(how) or str(folder))
    for mode in (None, "staged"):
        with pytest.raises(ValueError, match="text_encoder holds its weights only as a pickle"):
            sources.stages("someone/stage", mode=mode)
    assert all(how["use_safetensors"] for how in requests)


def test_nothing_of_the_process_changes_by_loading(tiny_folder, tmp_path):
    import diffusers.utils.logging as d
    import transformers.utils.logging as t

    def state():
        return (
            d.get_verbosity(),
            d.is_progress_bar_enabled(),
            t.get_verbosity(),
            t.is_progress_bar_enabled(),
            torch.get_rng_state().tolist(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
        )

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


def without(name):
    return lambda pipe: setattr(pipe, name, None)


def tiny_vae(pipe):
    from diffusers import AutoencoderTiny

    widths = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    pipe.vae = AutoencoderTiny(**widths, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))


def built(size=8, **config):
    def change(pipe):
        pipe.unet = published.unet(size, [published.ATTENTION, published.PLAIN], **config)

    return change


def oblong(pipe):
    pipe.unet.register_to_config(sample_size=[8, 16])


def ip_adapter(pipe):
    pipe.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")


def shortened(pipe):
    pipe.text_encoder.text_model = torch.nn.Identity() if hasattr(pipe.text_encoder, "text_model") else None
    pipe.text_encoder.forward = lambda *args, **kwargs: (torch.zeros(1, 77, 7),)


REFUSED = {
    "an autoencoder of another kind": (published.sd, tiny_vae, r"the vae of .* is of the kind AutoencoderTiny"),
    "no autoencoder": (published.sd, without("vae"), r"the vae of .* is missing: give it an AutoencoderKL"),
    "no network": (published.sd, without("unet"), r"has no unet: load it with all of its parts"),
    "no scheduler": (published.sdxl, without("scheduler"), r"has no scheduler"),
    "no tokenizer": (published.sd, without("tokenizer"), r"holds no text encoder or no tokenizer"),
    "inpainting": (published.sd, built(in_channels=9), r"takes 9 channels and gives 4, .* takes 4 .*inpainting"),
    "other latents": (published.sd, built(out_channels=16), r"gives 16, where this kind of model takes 4"),
    "a negative size": (published.sd, built(-8), r"the unet of .* has the sample_size -8: set the side"),
    "latents scaled by nothing": (
        published.sd,
        lambda pipe: pipe.vae.register_to_config(scaling_factor=0),
        r"the vae of .* has the scaling_factor 0: set the factor",
    ),
    "no size": (published.sd, built(None), r"has the sample_size None: set the side"),
    "a size that is no square": (
        published.sdxl,
        lambda pipe: pipe.unet.register_to_config(sample_size=[8, 16]),
        r"sample_size \[8, 16\]: set",
    ),
    "distilled guidance": (published.sd, built(time_cond_proj_dim=8), r"takes its guidance scale as an input"),
    "an IP-Adapter": (published.sd, ip_adapter, r"ip_image_proj, a picture as prompt: .*unload_ip_adapter"),
    "text and time": (
        published.sd,
        built(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=72),
        r"takes text_time besides the prompt, and its pipeline gives nothing",
    ),
    "no size of the picture": (
        published.sdxl,
        built(addition_embed_type=None),
        r"takes nothing besides the prompt, and its pipeline gives text_time",
    ),
    "a picture as prompt": (
        published.sd,
        built(encoder_hid_dim_type="image_proj", encoder_hid_dim=32),
        r"also takes image_proj, a picture as prompt: take a model of text alone",
    ),
    "labels": (
        published.sd,
        built(num_class_embeds=10),
        r"takes class labels \(num_class_embeds\), and its pipeline gives none",
    ),
    "an aesthetics score": (
        published.sdxl,
        lambda pipe: pipe.register_to_config(requires_aesthetics_score=True),
        r"takes an aesthetics score, as SDXL's refiner does",
    ),
    "another width of words": (published.sd, shortened, r"the network of .* cannot be run as this kind of model"),
    "an encoder that fails": (
        published.sd,
        lambda pipe: setattr(pipe.text_encoder, "forward", None),
        r"the text encoder of StableDiffusionPipeline cannot be run .*TypeError",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_run_is_refused_when_it_is_loaded(name):
    make, change, words = REFUSED[name]
    pipe = make()
    change(pipe)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        iterinv.load(pipe)


def test_a_square_size_in_a_list_is_a_size(picture):
    pipe = published.sd()
    pipe.unet.register_to_config(sample_size=[8, 8])
    assert iterinv.load(pipe).size == 64


def test_a_stage_that_enlarges_is_refused_alone(tiny_folder):
    for what in (published.x4(), [published.x4(), published.x4()], tiny_folder / "stage2"):
        with pytest.raises((ValueError, FileNotFoundError), match=r"cannot be a cascade by itself|text encoder"):
            iterinv.load(what)


WRONG = {
    "a.gguf": (b"GGUF" + b"\0" * 600, "is a GGUF file, whose weights are quantised"),
    "a.safetensors": (b"\n<!DOCTYPE html><html>" + b" " * 600, "is an HTML page, as a browser saves it"),
    "b.safetensors": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "is the pointer of a file in Git",
    ),
    "c.safetensors": (b"", "is an empty file"),
    "d.ckpt": (b"\x80\x02}q\x00.", "is a pickle, which runs code when it is read: .*--allow-pickle"),
    "e.bin": (b"PK\x03\x04 and no more", "is a file of PyTorch that is cut short"),
    "f.txt": (b"hello", "is no file of weights: take a .safetensors"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_of_another_kind_is_told_for_what_it_is(tmp_path, name):
    content, words = WRONG[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} {words}"):
        iterinv.load(tmp_path / name)


def test_weights_that_are_no_whole_model_are_told(tmp_path, tiny, picture):
    torch.save({"x": torch.zeros(3)}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net.pt is a pickle"):
        iterinv.load(tmp_path / "net.pt")
    save_file({"lora.up.weight": torch.zeros(3)}, tmp_path / "lora.safetensors")
    save_file({}, tmp_path / "none.safetensors")
    for name in ("none.safetensors", "net.pt"):
        with pytest.raises(ValueError, match=rf"{name} holds no network and no autoencoder and no text encoder as a"):
            iterinv.load(tmp_path / name, allow_pickle=True)
    with pytest.raises(
        ValueError, match=r"lora.safetensors is an adapter \(LoRA\), not a model: put it on the pipeline"
    ):
        iterinv.load(tmp_path / "lora.safetensors")
    tiny.invert(picture, PROMPT, plan("ddim", 2)).save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a.safetensors is an inversion, not a model: give the model that it was"):
        iterinv.load(tmp_path / "a.safetensors")
    data = (tmp_path / "lora.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-4])
    with pytest.raises(ValueError, match=r"cut.safetensors is damaged or cut short"):
        iterinv.load(tmp_path / "cut.safetensors")


def single_file(pipe, path):
    """Write a pipeline's weights to one file, under the names of the first Stable Diffusion code, with blocks counted
    through."""
    heads = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    heads |= {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    heads |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    resnet |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    each = pipe.unet.config.layers_per_block + 1
    attends = ["CrossAttn" in kind for kind in pipe.unet.config.up_block_types]

    def unet(key):
        for ours, theirs in heads.items():
            if key.startswith(ours + "."):
                return key.replace(ours, theirs, 1)
        for ours, theirs in (
            ("mid_block.resnets.0", "middle_block.0"),
            ("mid_block.attentions.0", "middle_block.1"),
            ("mid_block.resnets.1", "middle_block.2"),
        ):
            key = key.replace(ours, theirs)
        side, block, kind, layer, *rest = key.split(".")
        if side in ("down_blocks", "up_blocks"):
            down, block = side == "down_blocks", int(block)
            place = each * block + (int(layer) + 1 if down else int(layer))
            if kind in ("downsamplers", "upsamplers"):
                place = each * (block + 1) if down else each * block + each - 1
                spot = 0 if down else 1 + attends[block]
                rest = ["op", *rest[1:]] if down else rest
            else:
                spot = 0 if kind == "resnets" else 1
            key = ".".join([("input_blocks" if down else "output_blocks"), str(place), str(spot), *rest])
        for ours, theirs in resnet.items() if "transformer_blocks" not in key else ():
            key = key.replace(f".{ours}.", f".{theirs}.")
        return key

    def vae(key):
        for name, other in (("encoder.down_blocks", "encoder.down"), ("decoder.up_blocks", "decoder.up")):
            if key.startswith(name):
                k, rest = key[len(name) + 1 :].split(".", 1)
                k = k if "encoder" in name else str(len(pipe.vae.config.block_out_channels) - 1 - int(k))
                rest = rest.replace("resnets.", "block.").replace("downsamplers.0", "downsample")
                key = f"{other}.{k}.{rest.replace('upsamplers.0', 'upsample')}"
        for ours, theirs in (
            ("mid_block.resnets.0", "mid.block_1"),
            ("mid_block.resnets.1", "mid.block_2"),
            ("mid_block.attentions.0", "mid.attn_1"),
            ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
            ("group_norm", "norm"),
            ("to_q", "q"),
            ("to_k", "k"),
            ("to_v", "v"),
            ("to_out.0", "proj_out"),
        ):
            key = key.replace(ours, theirs)
        return key

    tensors = {f"model.diffusion_model.{unet(key)}": x for key, x in pipe.unet.state_dict().items()}
    for key, x in pipe.vae.state_dict().items():
        attention = "mid_block.attentions" in key and x.ndim == 2
        tensors[f"first_stage_model.{vae(key)}"] = x[..., None, None] if attention else x
    second = getattr(pipe, "text_encoder_2", None)
    first = "cond_stage_model.transformer" if second is None else "conditioner.embedders.0.transformer"
    for key, x in pipe.text_encoder.state_dict().items():
        key = key if key.startswith("text_model.") else f"text_model.{key}"
        tensors[f"{first}.{key}"] = x
    if second is not None:
        tensors |= {f"conditioner.embedders.1.model.{key}": x for key, x in open_clip(second.state_dict())}
    save_file({key: x.clone().contiguous() for key, x in tensors.items()}, path)


def open_clip(weights):
    """A text encoder's weights by OpenCLIP's names, which has queries, keys and values in one tensor."""
    names = {"text_model.encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1", "layer_norm2": "ln_2"}
    names |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn": "attn"}
    names |= {"text_model.final_layer_norm": "ln_final", "text_model.embeddings.token_embedding": "token_embedding"}
    names |= {"text_model.embeddings.position_embedding.weight": "positional_embedding"}
    for key, x in weights.items():
        if "k_proj" in key or "v_proj" in key:
            continue
        if "q_proj" in key:
            x = torch.cat([weights[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        key = key.replace("q_proj.", "in_proj_")
        yield ("text_projection", x.T) if key == "text_projection.weight" else (key, x)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_checkpoint_in_one_file_is_the_model_of_its_folder(tmp_path, name):
    pipe = LIVE[name]()
    pipe.save_pretrained(tmp_path / "folder")
    single_file(pipe, tmp_path / "model.safetensors")
    whole = iterinv.load(tmp_path / "folder")
    one = iterinv.load(tmp_path / "model.safetensors", config=tmp_path / "folder", local_files_only=True)
    assert one.fingerprint == whole.fingerprint
    assert one.stages[0].probe.agrees(whole.stages[0].probe)

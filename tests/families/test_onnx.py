"""Networks in ONNX files: a tiny one that is exact for Gaussian data, and one that was trained elsewhere."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_onnx import DOUBLE, FLOAT, FLOAT16, INT64, constant, ideal, model, node, value
from typer.testing import CliRunner

import iterinv
from iterinv.cli import app
from iterinv.families import edm, onnx
from iterinv.images import from_uint8, to_uint8
from iterinv.inspect.doctor import findings
from iterinv.methods import METHODS, plan
from iterinv.models.codec import Grey
from iterinv.presets import PRESETS
from iterinv.reports import inversion_report
from iterinv.workbench import CompareRequest, InvertRequest, Model, Workbench

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def net(tmp_path):
    """A file of one channel, whose pictures have the mean that the prompt says."""
    path = tmp_path / "net.onnx"
    path.write_bytes(ideal(mean=("batch",)))
    return path


def grey(size=16, seed=0):
    rng = np.random.default_rng(seed)
    return np.repeat(rng.integers(0, 256, (size, size, 1), np.uint8), 3, 2)


def written(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("kind", "close"), [(FLOAT, 1e-6), (DOUBLE, 1e-12), (FLOAT16, 1e-2)])
def test_it_predicts_what_a_network_in_python_does(kind, close, tmp_path):
    """In the file's own precision, and alone as in a batch."""
    data = ideal(mean=("batch",), kind=kind, label=("batch",), labels=["label"])
    stage = iterinv.load(written(tmp_path / "n.onnx", data)).stages[0]
    assert stage.shape == (1, 16, 16)
    x, level = torch.randn(3, 1, 16, 16, dtype=torch.float64), stage.schedule.grid(8)[3]
    for prompt, mean in (("", 0.0), ("mean=0.5", 0.5), ("label=3, mean = -2.5e-1", -0.25)):
        s = level.sigma**2
        truth = (0.04 * x + mean * s) / (0.04 + s)
        condition = stage.condition(prompt)
        torch.testing.assert_close(stage.denoiser(x, level, condition).x0, truth, rtol=0, atol=close)
        alone = torch.cat([stage.denoiser(x[k : k + 1], level, condition).x0 for k in range(3)])
        assert torch.equal(stage.denoiser(x, level, condition).x0, alone)


def test_the_noise_level_may_be_as_deep_as_the_sample(tmp_path):
    flat, deep = (
        written(tmp_path / f"{k}.onnx", ideal(sigma=shape)) for k, shape in enumerate((("n",), ("n", 1, 1, 1)))
    )
    assert torch.equal(iterinv.load(flat).sample("", 4)[0], iterinv.load(deep).sample("", 4)[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_the_datas_and_have_three_channels(channels, tmp_path):
    cascade = iterinv.load(written(tmp_path / "n.onnx", ideal(channels, 32, mean=("batch",))))
    assert cascade.defaults == edm.DEFAULTS
    (x,) = cascade.sample(["mean=0.3", "mean=-0.4"], num_images_per_prompt=4)
    assert x.shape == (8, 3, 32, 32)
    assert torch.equal(x[:, 0], x[:, 1]) == (channels == 1)
    for rows, mean in ((x[:4], 0.3), (x[4:], -0.4)):
        assert float(rows.mean()) == pytest.approx(mean, abs=0.02)
        assert float(rows.std()) == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize("method", ["bdia", "bdia-fixed", "edict", "belm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_back_bit_for_bit_and_from_a_file_too(channels, method, tmp_path):
    path = written(tmp_path / "n.onnx", ideal(channels, mean=("batch",)))
    cascade, pictures = iterinv.load(path), [grey(), np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)]
    inversion = cascade.invert(pictures, ["mean=0.1", ""], method, 9)
    assert inversion.noise.shape[1] == channels
    inversion.save(tmp_path / "i.safetensors")
    for found in (inversion, cascade.open(tmp_path / "i.safetensors")):
        assert all((np.array(a) == b).all() for a, b in zip(found.images, pictures, strict=True))
    report = inversion_report(cascade, inversion, 0.0, [], 1)
    assert report["reconstruction"]["exact_pixels"] == 1
    lost = report["stages"][0]["loss"]["codec"]
    assert lost is None if channels == 3 else lost > 0.1  # the colour, which a network of one channel does not see
    assert cascade.rerun(inversion).rerun_note() == ""


def test_grey_is_kept_to_the_last_bit_and_colour_is_weighed():
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64).repeat(1, 3, 1, 1)
    assert torch.equal(Grey().decode(Grey().encode(x)), x)
    red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    assert float(Grey().encode(red)) == pytest.approx(0.299)


def test_an_edit_moves_the_number_that_a_network_is_conditioned_on(net):
    cascade = iterinv.load(net)
    picture = to_uint8((0.2 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))).repeat(1, 3, 1, 1))
    inversion = cascade.invert(picture, "mean=0", "bdia", 20)
    edit = cascade.edit(inversion, "mean=0.4", iterinv.edits.PromptSwap(strength=1.0, guidance=1.0))
    moved = edit.pictures[-1].mean() - from_uint8(picture).mean()
    assert float(moved) == pytest.approx(0.4, abs=0.05)


def test_words_stand_for_nothing_and_a_note_says_so(tmp_path):
    path = written(tmp_path / "n.onnx", ideal(mean=("batch",), extra=("batch", 2)))
    stage = iterinv.load(path).stages[0]
    assert stage.embed(["mean=0.5, extra=1,2", None])["text"].tolist() == [[[0.5, 1, 2]], [[0, 0, 0]]]
    assert stage.embed(["mean=0.5"]).notes == ()
    (note,) = stage.embed(["a hill"]).notes
    assert note == (
        "this network reads no words: it takes mean=NUMBER, extra=NUMBER,…, each 0 where the prompt does not give it"
    )
    with pytest.raises(ValueError, match="extra is 2 number"):
        stage.embed(["extra=1"])


@pytest.mark.parametrize("method", [name for name in METHODS if plan(name).gradients])
def test_methods_that_take_gradients_are_refused_before_any_call(net, method):
    cascade, calls = iterinv.load(net), []

    class Hearing(iterinv.Observer):
        def on_call(self, stage):
            calls.append(stage)

    with pytest.raises(
        ValueError, match=f"{method} takes gradients of the network, and the network of stage I gives none"
    ):
        cascade.invert(grey(), "", method, 5, observer=Hearing())
    assert calls == []


def test_the_methods_that_take_gradients_are_those_two():
    assert [name for name in METHODS if plan(name).gradients] == ["iterinv", "null-text"]


def test_a_comparison_of_all_methods_leaves_out_what_cannot_run_and_says_why(net, tmp_path, monkeypatch):
    some = {name: METHODS[name] for name in ("bdia", "belm", "iterinv", "iterinv-damped", "null-text")}
    monkeypatch.setattr("iterinv.workbench.METHODS", some)
    Image.fromarray(grey()).save(tmp_path / "p.png")
    bench = Workbench()
    source = InvertRequest(tmp_path / "p.png", "", num_inference_steps=4, model=Model(net))
    rows = list(bench.compare(CompareRequest(source)))
    assert [row["method"] for row in rows] == ["bdia", "iterinv-damped"]
    said = [note for note in bench.notes if "is left out" in note]
    assert len(said) == 3
    assert "belm is left out: undoing 4 steps" in said[0]
    assert "iterinv is left out: iterinv takes gradients" in said[1]
    with pytest.raises(ValueError, match="undoing 4 steps of BELM"):
        list(Workbench().compare(CompareRequest(source, ("bdia", "belm"))))


def test_the_fingerprint_is_the_files_and_a_file_that_changed_is_loaded_again(tmp_path):
    path = written(tmp_path / "n.onnx", ideal())
    before = iterinv.load(path)
    assert iterinv.load(path).stages[0].denoiser is before.stages[0].denoiser
    written(path, ideal(std=0.25))
    assert iterinv.load(path).fingerprint != before.fingerprint
    inversion = before.invert(grey(), "", "bdia", 4)
    with pytest.raises(ValueError, match="other weights"):
        iterinv.load(path).rerun(inversion)


def test_the_arithmetic_names_onnxruntime_and_the_threads_are_torchs(net):
    stage, before = iterinv.load(net).stages[0], torch.get_num_threads()
    assert stage.arithmetic(1).kernels.endswith(f"onnxruntime {onnxruntime.__version__}")
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made = stage.denoiser.denoised.session
            assert made.get_session_options().intra_op_num_threads == stage.arithmetic(1).threads == threads
            assert stage.denoiser.denoised.session is made
    finally:
        torch.set_num_threads(before)


def noise_of(channels=1, size=16):
    """A network that predicts the noise, as those of DDPM do."""
    shape = ("batch", channels, size, size)
    nodes = [node("Mul", "x", "zero", "noise")]
    inputs = [value("x", shape), value("t", ("batch",))]
    return model(nodes, [constant("zero", (1, 1, 1, 1), [0.0])], inputs, [value("noise", shape)])


def of_labels():
    """A network of timesteps that are whole numbers."""
    shape = ("batch", 1, 16, 16)
    inputs = [value("x", shape), value("t", ("batch",), INT64)]
    return model([node("Identity", "x", "same")], [], inputs, [value("same", shape)])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "damaged, or no ONNX network in one file"),
        (b"\x89PNG no network", "damaged, or no ONNX network in one file"),
        (ideal(mean=("batch",))[:200], "damaged, or no ONNX network in one file"),
        (noise_of(), "one that predicts noise or velocity"),
        (of_labels(), r"takes x \(batch x 1 x 16 x 16\), t \(batch\), and the contract is a sample"),
        (ideal(4), "batch x 1 or 3 x size x size"),
        (ideal(size="side"), "takes 'x' .*a fixed size"),
        (ideal(mean=()), "takes 'mean' .one value"),
        (ideal(batch=2), "takes 2 pictures at once"),
        (ideal(mean=("batch", 3)), "whose output at a noise of 0.002 is the sample itself"),
        (ideal(rows=7), "cannot be run"),
    ],
    ids=["empty", "other", "cut", "noise", "labels", "channels", "side", "scalar", "two", "wide", "broken"],
)
def test_what_does_not_follow_the_contract_is_refused(data, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        iterinv.load(written(tmp_path / "n.onnx", data))


def test_a_rectangle_is_refused_with_what_to_do(net):
    with pytest.raises(ValueError, match="squares of 16 px alone: pad or crop the pictures to a square"):
        iterinv.load(net).invert(np.ascontiguousarray(grey(16)[:8]), "", fit="aspect")


def test_another_device_is_refused(net):
    assert iterinv.load(net).to("cpu").fingerprint == iterinv.load(net, device="cpu:0").fingerprint
    with pytest.raises(ValueError, match="runs on the CPU here: leave the device 'cuda' out"):
        onnx.from_file(net, device="cuda")


def test_a_file_for_one_picture_at_a_time_takes_batches(tmp_path):
    cascade = iterinv.load(written(tmp_path / "n.onnx", ideal(batch=1)))
    assert cascade.sample("", 4, num_images_per_prompt=3)[0].shape == (3, 3, 16, 16)


def test_what_is_missing_is_said(net, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*other\.onnx"):
        iterinv.load(tmp_path / "other.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=r"net\.onnx is an ONNX network.*pip install onnxruntime"):
        iterinv.load(net)
    assert "pip install onnxruntime" in [found.said for found in findings(str(net))][-1]
    terrain = PRESETS["terrain"]
    gone = type(terrain)(terrain.title, (tmp_path / "gone.onnx",), extra="foreign")
    monkeypatch.setitem(PRESETS, "terrain", gone)
    with pytest.raises(FileNotFoundError, match=r"network of terrain .*pip install 'iterinv\[foreign\]'"):
        iterinv.load("terrain")


def test_the_command_line_samples_inverts_and_refuses(net, tmp_path):
    def run(*words):
        return CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--model", str(net)])

    result = run("sample", "mean=0.3", "--count", "3", "--steps", "10")
    assert result.exit_code == 0, result.output
    x = np.stack([np.asarray(Image.open(tmp_path / "out" / f"sample-{k}.png")) for k in range(3)])
    assert x.shape == (3, 16, 16, 3)
    assert float(x.mean() / 127.5 - 1) == pytest.approx(0.3, abs=0.03)
    Image.fromarray(grey()[..., 0]).save(tmp_path / "p.png")
    result = run("invert", str(tmp_path / "p.png"), "--prompt", "mean=0.3", "--method", "bdia-fixed", "--steps", "5")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["reconstruction"]["exact_pixels"] == 1
    result = run("reconstruct", str(tmp_path / "out" / "inversion.safetensors"))
    assert result.exit_code == 0, result.output
    assert (np.asarray(Image.open(tmp_path / "out" / "reconstruction.png")) == grey()).all()
    result = run("invert", str(tmp_path / "p.png"), "--prompt", "", "--method", "null-text")
    assert result.exit_code == 2
    assert "null-text takes gradients" in result.output


@pytest.fixture(scope="module")
def terrain():
    """The network of another project's package, where that is installed."""
    pytest.importorskip("terrain_diffusion")
    return iterinv.load("terrain")


def test_a_trained_network_of_others_draws_what_its_own_package_draws(terrain):
    """The clean data at the noisiest level is the package's one step, to the last bit."""
    import terrain_diffusion

    (stage,), own = terrain.stages, terrain_diffusion.TerrainGenerator(device="cpu")
    noise = np.random.default_rng(7).standard_normal((1, 1, 128, 128), dtype=np.float32)
    heights = own.generate(1, shape=128, difficulty=50, seed=7, zero_floor=False)
    level = stage.schedule.grid(2)[0]
    assert level.sigma == own.sigma_max
    x0 = stage.denoiser(torch.from_numpy(np.float32(80) * noise), level, stage.condition(f"difficulty={49 / 99}")).x0
    share = math.asinh(own.height_range / own.asinh_scale)
    made = own.asinh_scale * np.sinh(np.clip((x0[0].numpy() + 1) / 2, 0, 1) * share)
    np.testing.assert_allclose(made, heights, rtol=1e-4, atol=1e-5)


def test_a_trained_network_of_others_is_inverted_exactly(terrain):
    (drawn,) = terrain.sample(["difficulty=0.1", "difficulty=0.9"])
    assert float(drawn[0].mean()) < float(drawn[1].mean())
    pictures = [to_uint8(x[None]) for x in drawn]
    for method in ("bdia", "bdia-fixed"):
        inversion = terrain.invert(pictures[1], "difficulty=0.9", method, 3)
        assert (np.array(inversion.images[0]) == pictures[1]).all()
        assert inversion.stages[0].report.forward == 5
        assert terrain.rerun(inversion).images[0] == inversion.images[0]


def test_a_trained_network_of_others_keeps_a_sample_without_noise(terrain):
    """EDM's boundary: at the least noise, clean data is the sample to within that noise."""
    (stage,) = terrain.stages
    (drawn,) = terrain.sample("difficulty=0.5")
    level = stage.schedule.grid(2)[-2]
    x = stage.encode(drawn)
    x0 = stage.denoiser(x, level, stage.condition("difficulty=0.5")).x0
    assert float((x0 - x).square().mean().sqrt()) < level.sigma

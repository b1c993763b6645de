"""The nodes load as ComfyUI loads them, its workflows run, and what they give is what the workbench gives."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iterinv.masks import GivenMask
from iterinv.workbench import EditRequest, InvertRequest, Model, Workbench

from graph import as_prompt, core_nodes, execute, load_nodes, problems

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "integrations" / "comfyui" / "iterinv_nodes"
EXAMPLES = ROOT / "examples"
WORKFLOWS = ("edit", "region")
PACK = load_nodes(FOLDER)
NODES = PACK.NODE_CLASS_MAPPINGS
PROMPT, TARGET = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"


def workflow(name):
    return json.loads((FOLDER.parent / "api" / f"{name}.json").read_text(encoding="utf-8"))


def nodes(outputs):
    return {**core_nodes(EXAMPLES, outputs), **NODES}


def run(kind, /, **values):
    """Run a node with its defaults and the given values, in inference mode as ComfyUI does."""
    node = NODES[kind]
    defaults = {
        key: info[1]["default"] for key, info in node.INPUT_TYPES()["required"].items() if "default" in info[-1]
    }
    with torch.inference_mode():
        return getattr(node(), node.FUNCTION)(**{**defaults, **values})


def image(*arrays):
    return torch.from_numpy(np.stack(arrays).astype(np.float32) / 255)


def noise(h=48, w=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def cascade(tiny_folder):
    return run("IterinvLoad", name=str(tiny_folder))[0]


@pytest.fixture(scope="module")
def inverted(cascade):
    return run("IterinvInvert", cascade=cascade, image=image(noise(), noise(seed=1)), prompt=PROMPT, steps=4)


def test_every_node_has_what_comfyui_asks_of_it():
    assert set(NODES) == set(PACK.NODE_DISPLAY_NAME_MAPPINGS)
    for node in NODES.values():
        types_ = node.INPUT_TYPES()
        assert set(types_) <= {"required", "optional"}
        for name, info in {**types_["required"], **types_.get("optional", {})}.items():
            assert isinstance(info[0], (str, list)), name
            if isinstance(info[0], list):
                assert info[1]["default"] in info[0]
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        assert callable(getattr(node, node.FUNCTION))
        assert node.CATEGORY == "iterinv"
        assert node.DESCRIPTION.endswith(".")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_consistent_and_both_formats_are_one(name, tmp_path):
    every, prompt = nodes(tmp_path), workflow(name)
    assert list(problems(prompt, every)) == []
    drawn = json.loads((FOLDER / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    assert as_prompt(drawn, every) == {
        key: {"class_type": each["class_type"], "inputs": each["inputs"]} for key, each in prompt.items()
    }
    assert [node["title"] for node in drawn["nodes"]] == [each["_meta"]["title"] for each in prompt.values()]


def test_the_check_of_workflows_sees_what_is_wrong(tmp_path):
    every = nodes(tmp_path)
    for change, words in (
        (lambda p: p["3"]["inputs"].pop("prompt"), "3: prompt is missing"),
        (lambda p: p["5"].update(class_type="Other"), "5: there is no node Other"),
        (lambda p: p["3"]["inputs"].update(image=["2", 1]), r"3.image: the link ['2', 1] does not give a IMAGE"),
        (lambda p: p["3"]["inputs"].update(method="magic"), "3.method: 'magic' is not one of"),
        (lambda p: p["3"]["inputs"].update(steps=0), "3.steps: 0 is out of range"),
        (lambda p: p["3"]["inputs"].update(steps="4"), "3.steps: '4' is no INT"),
        (lambda p: p["3"]["inputs"].update(colour=1), "3: there is no input colour"),
        (lambda p: [p.pop(key) for key in ("5", "6", "7", "8")], "the workflow has no output"),
    ):
        prompt = workflow("edit")
        change(prompt)
        assert words in " ".join(problems(prompt, every))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs(name, tiny_folder, tmp_path):
    """The networks have random weights here, so that only exactness is certain of the pictures."""
    every, prompt = nodes(tmp_path), workflow(name)
    prompt["1"]["inputs"]["name"] = str(tiny_folder)
    prompt["3"]["inputs"]["steps"] = 4
    outputs = execute(prompt, every)
    assert set(outputs) == set(prompt)
    picture = np.array(Image.open(EXAMPLES / prompt["2"]["inputs"]["image"]).convert("RGB"))
    saved = np.array(Image.open(tmp_path / "iterinv_00001_.png"))
    edit, region, _ = outputs[next(key for key, each in prompt.items() if each["class_type"] == "IterinvEdit")]
    assert saved.shape == picture.shape == tuple(edit.shape[1:])
    assert (saved[region[0].numpy() == 0] == picture[region[0].numpy() == 0]).all()
    said = next(outputs[key][0] for key, each in prompt.items() if each["class_type"] == "PreviewAny")
    assert "Every pixel comes back, at every stage." in said
    (target,) = (each["inputs"]["prompt"] for each in prompt.values() if each["class_type"] == "IterinvEdit")
    assert f"Edit to “{target}”" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_as_it_ships_edits_by_its_words(name, tmp_path):
    outputs, prompt = execute(workflow(name), nodes(tmp_path)), workflow(name)
    picture = np.array(Image.open(EXAMPLES / prompt["2"]["inputs"]["image"]).convert("RGB"))
    saved = np.array(Image.open(tmp_path / "iterinv_00001_.png")).astype(int)
    assert (outputs["3"][1][0].numpy() * 255 == picture).all()  # the reconstruction
    y, x = {"edit": (128, 128), "region": (140, 190)}[name]
    was, is_ = {"edit": (0, 2), "region": (1, 0)}[name]  # red to blue, green to red
    assert picture[y, x].argmax() == was
    assert saved[y, x].argmax() == is_
    said = outputs["8" if name == "edit" else "10"][0]
    assert "The network sees the target prompt in the result." in said
    if name == "region":
        box = prompt["4"]["inputs"]
        outside = np.ones(picture.shape[:2], bool)
        outside[box["top"] : box["top"] + box["height"], box["left"] : box["left"] + box["width"]] = False
        assert (saved[outside] == picture[outside]).all()


def test_a_batch_gives_what_the_workbench_gives(tiny_folder, inverted):
    inversion, reconstruction = inverted
    region = torch.zeros(1, 48, 64)
    region[:, 8:40, 8:50] = 1
    edited, masks, edit = run(
        "IterinvEdit", inversion=inversion, prompt=TARGET, editor="prompt-swap", strength=0.6, region=region
    )
    assert edited.shape == (2, 48, 64, 3)
    assert edited.dtype == masks.dtype == torch.float32
    assert masks.shape == (2, 48, 64)
    for k in range(2):
        source = InvertRequest(noise(seed=k), PROMPT, num_inference_steps=4, model=Model(str(tiny_folder)))
        assert (np.rint(255 * reconstruction[k].numpy()) == noise(seed=k)).all()
        box = GivenMask(box=(8, 8, 42, 32))
        result = Workbench().edit(EditRequest(source, (TARGET,), "prompt-swap", 0.6, mask=box, size="own"))
        expected = np.array(result.edits[0].images[0])
        assert (np.rint(255 * edited[k].numpy()) == expected).all()
        assert (masks[k].numpy()[:8] == 0).all()
    said = run("IterinvReport", inversion=inversion, edit=edit)
    assert said["ui"]["text"] == said["result"]
    assert "Picture 2:\nEvery pixel comes back" in said["result"][0]
    assert "PromptSwap" in said["result"][0]
    assert "Note: " in said["result"][0]  # on the padding


def test_settings_reach_the_model(tiny_folder, cascade):
    picture = image(noise(64, 64))
    one, _ = run("IterinvInvert", cascade=cascade, image=picture, prompt=PROMPT, steps=3, method="aligned", seed=5)
    assert one.requests[0].seed == 5
    assert one.results[0].inversion.stages[0].plan.method == "aligned"
    edit = run("IterinvEdit", inversion=one, prompt=TARGET, editor="sdedit", edit_seed=3, size="model")[2]
    assert edit.results[0].editor.seed == 3
    (half,) = run("IterinvLoad", name=str(tiny_folder), dtype="bfloat16")
    assert half.load().fingerprint != cascade.load().fingerprint


def test_methods_that_need_gradients_run_in_inference_mode(cascade):
    inversion, _ = run(
        "IterinvInvert",
        cascade=cascade,
        image=image(noise(64, 64)),
        prompt=PROMPT,
        steps=2,
        method="null-text",
        guidance_scale=3.0,
    )
    said = run("IterinvReport", inversion=inversion)["result"][0]
    assert inversion.results[0].inversion.stages[0].report.backward > 0
    assert "% of the pixels come back." in said


def test_a_region_is_a_box_a_mask_or_both():
    picture = image(noise(40, 60), noise(40, 60))
    (box,) = run("IterinvRegion", image=picture, left=10, top=5, width=20, height=10)
    assert box.shape == (2, 40, 60)
    assert box.sum() == 2 * 200
    painted = torch.zeros(1, 40, 60)
    painted[:, 30:35, 40:45] = 1
    (both,) = run("IterinvRegion", image=picture, left=10, top=5, width=20, height=10, mask=painted)
    assert both.sum() == 2 * 225
    (alone,) = run("IterinvRegion", image=picture, mask=painted[0], invert=True, grow=-1)
    assert alone[0, 0, 0] == 1
    assert alone[0, 29:36, 39:46].sum() < 9
    (soft,) = run("IterinvRegion", image=picture, left=10, top=5, width=20, height=10, feather=3)
    assert 0 < soft[0, 5, 20] < soft[0, 6, 20] < 1 == soft[0, 9, 20]


def test_bad_inputs_are_sentences(cascade, inverted, tmp_path):
    picture = image(noise(64, 64))
    for how, words in (
        ({"name": " "}, "the cascade has no name: type embedded"),
        ({"name": str(tmp_path)}, "no model"),
        ({"device": "cuda:9"}, "there is no device 'cuda:9' here"),
        ({"memory": "much"}, "much"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            run("IterinvLoad", **how)
    for values, words in (
        (noise(), "the image is a ndarray; it is a tensor .batch, height, width, 3.: connect"),
        (picture[0], r"the image has the shape \(64, 64, 3\)"),
        (picture[:0], "and not empty"),
        (torch.cat([picture, picture[..., :1]], -1), "the image has 4 channels; iterinv takes three"),
        (picture * 2, r"the values of the image are not all in \[0, 1\]: clamp them"),
        (picture * torch.nan, "clamp them"),
    ):
        with pytest.raises(ValueError, match=words):
            run("IterinvInvert", cascade=cascade, image=values, prompt=PROMPT)
    for how, words in (
        ({"prompt": " "}, "the target prompt is empty"),
        ({"prompt": PROMPT}, "nothing is asked to change"),
        ({"region": torch.zeros(1, 64, 64)}, "the mask is empty"),
        ({"region": torch.ones(3, 48, 64)}, "there are 3 masks for 2 images"),
        ({"region": picture}, r"the mask has the shape \(1, 64, 64, 3\)"),
        ({"editor": "diffedit", "edit_seed": 1}, "has no seed|seed"),
    ):
        with pytest.raises(ValueError, match=words):
            run("IterinvEdit", inversion=inverted[0], **{"prompt": TARGET, **how})
    with pytest.raises(ValueError, match="there is no mask"):
        run("IterinvRegion", image=picture)
    with pytest.raises(ValueError, match="reaches outside the picture"):
        run("IterinvRegion", image=picture, left=60, top=0, width=10, height=10)
    other = run("IterinvInvert", cascade=cascade, image=picture, prompt=PROMPT, steps=2)[0]
    edit = run("IterinvEdit", inversion=other, prompt=TARGET, editor="sdedit")[2]
    with pytest.raises(ValueError, match="the edit is one of another inversion"):
        run("IterinvReport", inversion=inverted[0], edit=edit)


@pytest.fixture
def comfy(monkeypatch):
    """Stand in for the two parts of ComfyUI that the nodes use."""
    heard = types.SimpleNamespace(drawn=[], checks=0, stop_at=None)

    class Interrupted(Exception):
        pass

    class ProgressBar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            assert total == self.total
            heard.drawn.append(value)

    def throw_exception_if_processing_interrupted():
        heard.checks += 1
        if heard.checks == heard.stop_at:
            raise Interrupted

    package, utils, management = (types.ModuleType(f"comfy{name}") for name in ("", ".utils", ".model_management"))
    utils.ProgressBar = ProgressBar
    management.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted
    for module in (package, utils, management):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    heard.Interrupted = Interrupted
    return heard


def test_the_bar_rises_to_its_end(comfy, cascade):
    pair = image(noise(), noise(seed=1))
    inversion, _ = run("IterinvInvert", cascade=cascade, image=pair, prompt=PROMPT, steps=2)
    assert comfy.drawn == sorted(comfy.drawn)
    assert comfy.drawn[-1] == 1000
    half = next(k for k, value in enumerate(comfy.drawn) if value >= 500)
    assert 0.3 < half / len(comfy.drawn) < 0.7  # both pictures move it
    comfy.drawn.clear()
    run("IterinvEdit", inversion=inversion, prompt=TARGET)
    assert comfy.drawn == sorted(comfy.drawn)
    assert comfy.drawn[-1] == 1000


def test_the_user_interrupts_the_work_between_two_network_calls(comfy, cascade):
    comfy.stop_at = 5
    with pytest.raises(comfy.Interrupted):
        run("IterinvInvert", cascade=cascade, image=image(noise()), prompt=PROMPT)
    assert comfy.checks == 5


def test_a_missing_iterinv_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="install it with 'python -m pip install iterinv'"):
        load_nodes(FOLDER)

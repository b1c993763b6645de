"""The blocks of diffusers' modular pipelines give what the Python interface gives, bit by bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.modular_pipelines import InputParam, ModularPipelineBlocks, OutputParam, SequentialPipelineBlocks

import iterinv
from iterinv.diffusers_blocks import EditBlock, InvertBlock, PipelineCascade

PICTURE = Path(__file__).parents[2] / "examples" / "red-sphere.png"
PROMPT, TARGET = (
    f"a large {colour} shiny sphere on a wooden floor in front of a beige wall" for colour in ("red", "blue")
)
pytestmark = pytest.mark.filterwarnings("ignore:.*reduced from 256x256")


class Mirror(ModularPipelineBlocks):
    """A block of another author between the two: it turns the mask over."""

    @property
    def inputs(self):
        return [InputParam("mask_image", np.ndarray, required=True)]

    @property
    def intermediate_outputs(self):
        return [OutputParam("mask_image", np.ndarray)]

    def __call__(self, components, state):
        block = self.get_block_state(state)
        block.mask_image = block.mask_image[:, ::-1].copy()
        self.set_block_state(state, block)
        return components, state


@pytest.fixture(scope="module")
def cascade():
    return iterinv.load().up_to(64)


def pipeline(cascade, **blocks):
    pipe = SequentialPipelineBlocks.from_blocks_dict(blocks).init_pipeline()
    pipe.update_components(cascade=cascade)
    return pipe


@pytest.fixture(scope="module")
def state(cascade):
    return pipeline(cascade, invert=InvertBlock, edit=EditBlock)(
        image=PICTURE, prompt=PROMPT, target_prompt=TARGET, num_inference_steps=6, seed=3
    )


def test_a_sequence_gives_the_pictures_of_the_python_interface(cascade, state):
    inversion = cascade.invert(PICTURE, PROMPT, num_inference_steps=6, seed=3)
    edit = cascade.edit(inversion, TARGET)
    assert torch.equal(state.inversion.noise, inversion.noise)
    assert [image.tobytes() for image in state.reconstruction] == [image.tobytes() for image in inversion.images]
    assert state.reconstruction[0].tobytes() == inversion.canvases[0].image.tobytes()  # every pixel came back
    assert [image.tobytes() for image in state.images] == [image.tobytes() for image in edit.images]
    for one, other in zip(state.edit.stages, edit.stages, strict=True):
        assert torch.equal(one.picture, other.picture)
        assert torch.equal(one.mask, other.mask)


def test_a_state_is_edited_again_without_inverting(cascade, state, monkeypatch):
    monkeypatch.setattr(iterinv.Cascade, "invert", lambda *_, **__: pytest.fail("the picture was inverted again"))
    again = pipeline(cascade, edit=EditBlock)(state=state, target_prompt=TARGET, editor="prompt-swap", output_type="np")
    assert (again.images[0] == cascade.edit(state.inversion, TARGET, "prompt-swap", output_type="np").images[0]).all()


def test_other_blocks_stand_between(cascade):
    mask = np.zeros((256, 256), np.uint8)
    mask[:, :100] = 255
    images = pipeline(cascade, invert=InvertBlock, mirror=Mirror, edit=EditBlock)(
        image=PICTURE,
        prompt=PROMPT,
        target_prompt=TARGET,
        editor="prompt-swap",
        mask_image=mask,
        num_inference_steps=4,
        output_type="np",
        output="images",
    )
    picture = cascade.invert(PICTURE, PROMPT, num_inference_steps=4).canvases[0].image
    changed = (images[0] != picture).any(-1).any(0)
    assert not changed[:39].any()
    assert changed[39:].any()


def test_a_batch_and_every_setting_reach_the_cascade(cascade):
    pictures = [PICTURE, PICTURE.with_name("yellow-cube.png")]
    prompts = [PROMPT, PICTURE.with_name("yellow-cube.txt").read_text().strip()]
    how = {"method": "aligned", "num_inference_steps": 3, "guidance_scale": 1.5, "fit": "crop"}
    generators = [[torch.Generator().manual_seed(seed) for seed in (1, 2)] for _ in range(2)]
    inversion = InvertBlock().init_pipeline()
    inversion.update_components(cascade=cascade)
    one = inversion(image=pictures, prompt=prompts, generator=generators[0], output="inversion", **how)
    other = cascade.invert(pictures, prompts, generator=generators[1], **how)
    assert len(one) == 2
    assert torch.equal(one.noise, other.noise)
    assert one.seeds == other.seeds


def test_methods_that_need_gradients_run_in_a_pipeline(tiny, picture):
    images = pipeline(tiny, invert=InvertBlock)(
        image=picture, prompt="a cube", method="null-text", num_inference_steps=2, guidance_scale=3.0
    )
    assert images.inversion.stages[0].report.backward > 0


def test_the_cascade_is_loaded_as_a_component(tiny_folder):
    pipe = InvertBlock().init_pipeline()
    pipe.load_components(pretrained_model_name_or_path={"cascade": str(tiny_folder)})
    assert isinstance(pipe.cascade, PipelineCascade)
    assert pipe.cascade.fingerprint == iterinv.load(str(tiny_folder)).fingerprint
    with pytest.raises(ValueError, match="not from the subfolder 'unet' of another"):
        PipelineCascade.from_pretrained(str(tiny_folder), subfolder="unet")


def test_what_is_missing_is_said(cascade, tiny):
    pipe = InvertBlock().init_pipeline()
    with pytest.raises(ValueError, match=r"has no cascade: call update_components\(cascade=iterinv.load\(\)\)"):
        pipe(image=PICTURE, prompt=PROMPT)
    pipe.update_components(cascade=cascade)
    with pytest.raises(ValueError, match="'image' is missing"):
        pipe(prompt=PROMPT)
    pipe.update_components(cascade=cascade.stages[0])
    with pytest.raises(TypeError, match=r"cascade is .*Stage"):
        pipe(image=PICTURE, prompt=PROMPT)


def test_the_inputs_are_those_of_the_cascade():
    """Every keyword of the Python interface is an input, but for callbacks and what a state cannot hold."""
    import inspect

    left_out = {"self", "picture", "callback_on_step_end", "observer", "as_needed"}
    assert (
        set(InvertBlock().input_names) - {"image"}
        == set(inspect.signature(iterinv.Cascade.invert).parameters) - left_out
    )
    keywords = set(inspect.signature(iterinv.Cascade.edit).parameters) - left_out - {"prompt", "mask"}
    assert set(EditBlock().input_names) - {"target_prompt", "mask_image"} == keywords
    for block in (InvertBlock(), EditBlock()):
        assert all(each.description in block.doc.replace("\n          ", " ") for each in block.inputs)

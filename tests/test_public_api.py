"""The public API takes pictures in all common types, and its results have readable reprs."""

import numpy as np
import pytest
import torch
from PIL import Image

import iterinv
from iterinv.images import from_uint8

PROMPT, TARGET = "a red sphere on a wooden floor", "a blue cube"


def pixels(h=64, w=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def test_a_file_a_pil_image_an_array_and_a_tensor_are_one_picture(tiny, tmp_path):
    array = pixels()
    Image.fromarray(array).save(tmp_path / "a.png")
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(array), array, from_uint8(array)]
    inversions = [tiny.invert(form, PROMPT, num_inference_steps=2) for form in forms]
    for each in inversions:
        assert torch.equal(each.noise, inversions[0].noise)
        assert (np.array(each.images[0]) == array).all()


@pytest.mark.filterwarnings("ignore:.*")
def test_a_list_is_a_batch_of_any_sizes(tiny):
    pictures = [pixels(40, 64), Image.fromarray(pixels(64, 90, 1))]
    both = tiny.invert(pictures, [PROMPT, "a green cone"], num_inference_steps=3, seed=[4, 5])
    assert len(both) == 2
    assert [image.size for image in both.images] == [(64, 40), (64, 46)]
    for k, picture in enumerate(pictures):
        alone = tiny.invert(picture, both.prompts[k], num_inference_steps=3, seed=4 + k)
        torch.testing.assert_close(alone.noise[0], both.noise[k], rtol=0, atol=1e-4)
        assert (np.array(alone.images[0]) == np.array(both.images[k])).all()
    edit = tiny.edit(both, [TARGET, PROMPT], "prompt-swap", output_type="np")
    assert [image.shape for image in edit.images] == [(40, 64, 3), (46, 64, 3)]


def test_pictures_come_out_as_asked(tiny):
    inversion = tiny.invert(pixels(), PROMPT, num_inference_steps=2)
    arrays = tiny.edit(inversion, TARGET, "diffedit", output_type="np").images
    assert (np.array(tiny.edit(inversion, TARGET, "diffedit").images[0]) == arrays[0]).all()
    tensor = tiny.edit(inversion, TARGET, "diffedit", output_type="pt").images
    assert tensor.shape == (1, 3, 64, 64)
    assert torch.equal(tensor, from_uint8(arrays[0]))
    with pytest.raises(ValueError, match="output_type 'jpg' is not one of pil, np, pt"):
        tiny(PROMPT, 2, output_type="jpg")


def test_generators_are_drawn_from_as_diffusers_does(tiny):
    def noise(**how):
        return tiny.invert([pixels(), pixels()], PROMPT, num_inference_steps=2, **how).stages[1].condition["low_noise"]

    one = noise(generator=torch.Generator().manual_seed(3))
    assert torch.equal(one, noise(generator=torch.Generator().manual_seed(3)))
    assert torch.equal(one[0], one[1])
    two = noise(generator=[torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)])
    assert torch.equal(two[0], one[0])
    assert not torch.equal(two[0], two[1])
    with pytest.raises(ValueError, match="3 seeds or generators for 2 pictures"):
        noise(seed=[1, 2, 3])


def test_the_trajectory_runs_from_the_noise_to_the_picture(tiny):
    inversion = tiny.invert(pixels(), PROMPT, num_inference_steps=4)
    states = inversion.trajectory[0]
    assert torch.equal(states[0], inversion.noise)
    assert inversion.noise_level == tiny.stages[0].schedule.grid(4)[0]
    assert torch.equal(states[-1], inversion.stages[0].picture)


def test_what_is_shown_fits_a_screen_and_equality_never_raises(tiny):
    inversion = tiny.invert(pixels(), PROMPT, num_inference_steps=2)
    edit = tiny.edit(inversion, TARGET)
    shown = [
        tiny,
        tiny.stages[0],
        inversion,
        inversion.stages[0],
        inversion.canvases[0],
        edit,
        inversion.stages[0].condition,
    ]
    shown += [inversion.stages[0].plan, iterinv.FlowEdit(), tiny.defaults, edit.stages[0]]
    for each in shown:
        assert len(repr(each)) < 1000, type(each)
        assert each == each
        assert each != object()


def test_wrong_kinds_are_sentences(tiny):
    inversion = tiny.invert(pixels(), PROMPT, num_inference_steps=2)
    for wrong, words in (
        (pixels().astype(float), "of dtype float64 is no picture|dtype float64 is no picture"),
        (5, "a int is no picture"),
        ([], "no picture in the list"),
        (torch.full((3, 8, 8), 2.0), r"lie in \[-1, 1\]"),
    ):
        with pytest.raises(ValueError, match=words):
            tiny.invert(wrong, PROMPT)
    with pytest.raises(ValueError, match="2 prompts for 1 pictures"):
        tiny.invert(pixels(), [PROMPT, TARGET])
    with pytest.raises(ValueError, match="leave num_inference_steps"):
        tiny.invert(pixels(), PROMPT, iterinv.plan("bdia"), num_inference_steps=3)
    with pytest.raises(ValueError, match="the editors are automatic"):
        tiny.edit(inversion, TARGET, "magic")


def test_the_names_of_the_package_are_all_there():
    for name in iterinv.__all__:
        assert getattr(iterinv, name) is not None
    assert set(iterinv.__all__) <= set(dir(iterinv))
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = iterinv.magic

import pytest
import torch

from iterinv.cascade import Cascade
from iterinv.edits import Detail, DiffEdit, Everywhere, FromPrompts, Given, Intersection, Site, Union
from iterinv.edits.detail import enlarge
from iterinv.methods import plan

PROMPT, TARGET = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"


def photo(size):
    values = torch.randint(0, 256, (1, 3, size, size), generator=torch.Generator().manual_seed(2))
    return values.float() / 127.5 - 1


@pytest.fixture(scope="module")
def exact(tiny):
    return tiny.invert(photo(64), PROMPT, plan("bdia", 10))


def site(tiny, exact, prompt=TARGET):
    stage = tiny.stages[0]
    return Site(stage, exact.stages[0], stage.condition(prompt), (PROMPT,), (prompt,))


def test_the_region_of_equal_prompts_is_empty(tiny, exact):
    assert FromPrompts()(site(tiny, exact)).any()
    assert not FromPrompts()(site(tiny, exact, PROMPT)).any()


def test_the_region_is_the_plain_difference_under_proximal_guidance_too(tiny):
    first, masks = Cascade(tiny.stages[:1]), []
    for method in ("negative-prompt", "proximal"):
        inversion = first.invert(photo(16), PROMPT, plan(method, 4))
        masks.append(first.edit(inversion, TARGET, DiffEdit()).masks[0])
    assert torch.equal(*masks)
    assert 0 < masks[0].mean() < 1


def test_the_papers_threshold_and_the_one_that_follows_the_region():
    heat = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    heat[:, 4:] += 1.0  # three quarters of the picture change
    assert (heat > FromPrompts().threshold(heat)).float().mean() == 0.75
    assert not (heat > FromPrompts(clip=3.0).threshold(heat)).any()


def test_the_papers_threshold_edits_too(tiny, exact):
    assert FromPrompts(clip=3.0)(site(tiny, exact)).any()


def test_regions_combine(tiny, exact):
    left, top = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    left[..., :8], top[..., :8, :] = 1, 1
    here = site(tiny, exact)
    assert torch.equal(Union((Given(left), Given(top)))(here), torch.maximum(left, top))
    assert torch.equal(Intersection((Given(left), Given(top)))(here), left * top)
    assert Union((Given(left), Everywhere()))(here) is None
    assert torch.equal(Intersection((Given(left), Everywhere()))(here), left)
    assert Intersection((Everywhere(), Everywhere()))(here) is None


def test_a_given_region_of_any_size_loses_no_small_part(tiny, exact):
    large = torch.zeros(1, 1, 64, 64)
    large[0, 0, 21, 42] = 1
    small = Given(large)(site(tiny, exact))
    assert small.shape == (1, 1, 16, 16)
    assert small.nonzero().tolist() == [[0, 0, 5, 10]]


def test_a_mask_grows_with_the_picture():
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 3, 4] = 1
    rows, columns = enlarge(mask, (32, 32))[0, 0].nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 17, 14, 21)


def test_a_mask_keeps_to_what_the_stage_below_changed(tiny, exact, monkeypatch):
    """A larger ``visible`` makes smaller masks above the first stage and leaves the first mask as it is. A change of
    structure is in the mask, whatever ``visible`` is."""
    all_structure = tiny.edit(exact, TARGET, DiffEdit(detail=Detail(visible=3.0)))
    assert all_structure.masks[-1].mean() > 0
    monkeypatch.setattr("iterinv.edits.detail.structure_change", lambda a, b: torch.zeros_like(a[:, :1]).double())
    edits = [tiny.edit(exact, TARGET, DiffEdit(detail=Detail(visible=visible))) for visible in (0.0, 0.02, 3.0)]
    assert all(torch.equal(edit.masks[0], edits[0].masks[0]) for edit in edits)
    shares = [float(edit.masks[-1].mean()) for edit in edits]
    assert shares[0] > shares[1] > shares[2] == 0
    assert torch.equal(edits[2].pictures[-1], exact.stages[-1].picture.clamp(-1, 1))

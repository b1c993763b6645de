"""These algebraic rules hold for every editor."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from iterinv import sources
from iterinv.cascade import Cascade
from iterinv.edits import EDITORS, AdaptiveFlow, Detail, DiffEdit, Everywhere, Given, PromptSwap, Site
from iterinv.edits.site import Blend, StageEdit
from iterinv.images import to_uint8
from iterinv.inverters import Solve
from iterinv.levels import Level, Prediction
from iterinv.methods import plan
from iterinv.plans import Plan
from iterinv.roots import Anderson
from iterinv.steps import BDIA, DDIM
from iterinv.steps.run import NotFinite

from conftest import Hearing

PROMPT, TARGET = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"
NOWHERE, FULL = Given(torch.zeros(1, 1, 4, 4)), Given(torch.ones(1, 1, 4, 4))


def photo(batch=1, size=64):
    values = torch.randint(0, 256, (batch, 3, size, size), generator=torch.Generator().manual_seed(2))
    return values.float() / 127.5 - 1


@pytest.fixture(scope="module")
def exact(tiny):
    return tiny.invert(photo(), PROMPT, plan("bdia", 10))


@pytest.mark.parametrize("name", EDITORS)
def test_an_empty_region_is_the_reconstruction_bit_for_bit(tiny, exact, name):
    edit = tiny.edit(exact, TARGET, EDITORS[name](region=NOWHERE))
    for picture, inversion in zip(edit.pictures, exact.stages, strict=True):
        assert torch.equal(picture, inversion.picture.clamp(-1, 1))


@pytest.mark.parametrize("rule", [BDIA(), BDIA(0.5)], ids=["bdia", "bdia 0.5"])
def test_an_empty_region_is_the_reconstruction_by_other_rules_too(tiny, exact, rule):
    edit = tiny.edit(exact, TARGET, DiffEdit(region=NOWHERE, rule=rule, detail=Detail(rule=rule)))
    for picture, inversion in zip(edit.pictures, exact.stages, strict=True):
        assert torch.equal(picture, inversion.picture.clamp(-1, 1))


@pytest.mark.parametrize("name", EDITORS)
def test_a_full_region_is_an_edit_without_one(tiny, exact, name, monkeypatch):
    if name == "flow-redraw":  # it draws anew what FlowEdit changed: here that is everything
        monkeypatch.setattr("iterinv.edits.flow_redraw.CHANGED", 0.0)
        monkeypatch.setattr("iterinv.edits.flow_redraw.is_wide", lambda before, after: False)
    settings = {"strength": 0.6, "guidance": 3.0, "detail": Detail(visible=0.0)}
    masked = tiny.edit(exact, TARGET, EDITORS[name](region=FULL, **settings))
    free = tiny.edit(exact, TARGET, EDITORS[name](region=Everywhere(), **settings))
    assert (free.masks is None) == (name != "flow-redraw")
    assert all(bool((mask == 1).all()) for mask in (*masked.masks, *(free.masks or ())))
    for a, b in zip(masked.pictures, free.pictures, strict=True):
        assert torch.equal(a, b)


@pytest.fixture(scope="module")
def solved(tiny):
    return tiny.invert(photo(), PROMPT, Plan(DDIM(), Solve(Anderson(30, 1e-6)), steps=5))


@pytest.mark.parametrize("name", ["prompt-swap", "prompt-to-prompt", "plug-and-play", "masactrl", "pix2pix-zero"])
def test_the_same_prompt_by_the_same_rule_is_the_reconstruction(tiny, solved, name):
    """DDIM is solved to a tolerance and run again from its own state under its own prompt: the picture comes back."""
    edit = tiny.edit(solved, PROMPT, EDITORS[name](strength=1.0, guidance=1.0))
    torch.testing.assert_close(edit.pictures[-1].double(), solved.picture, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["diffedit", "adaptive-flow", "automatic", "redraw"])
def test_outside_the_mask_every_8_bit_pixel_is_the_pictures_own_at_every_stage(tiny, exact, name, monkeypatch):
    monkeypatch.setattr("iterinv.edits.automatic.LEAST", 0.0)  # random networks change little
    edit = tiny.edit(exact, TARGET, EDITORS[name]())
    for picture, mask, inversion in zip(edit.pictures, edit.masks, exact.stages, strict=True):
        outside = ~mask[0, 0].bool().numpy()
        assert outside.any()
        edited, original = to_uint8(picture), to_uint8(inversion.picture)
        assert (edited[outside] == original[outside]).all()
        assert (edited != original).any()


def test_the_blend_uses_the_level_that_the_step_arrives_at():
    """Public ports blend with the state of the level that the step left, so their background never reaches the
    picture."""
    path = [torch.full((1, 1, 2, 2), float(k)) for k in range(4)]
    grid = tuple(Level(0.0, 1.0 - 0.2 * k, 0.5) for k in range(4))
    blend = Blend(DDIM(), torch.zeros(1, 1, 2, 2), path)
    for i in range(3):
        (x,) = blend.step(lambda x, a: Prediction(x, x), blend.init(path[i]), grid, i)
        assert torch.equal(x, path[i + 1])


def test_an_editor_is_any_function_of_a_site(tiny, exact):
    """The cascade calls it once per stage, from small to large, with the edit of the stage below."""
    calls = []

    def grey(site):
        calls.append((site.stage.name, site.source_prompt, site.target_prompt, site.below))
        yield (site.path[-1],)
        return StageEdit(site.picture * 0 + len(calls) / 10, None)

    heard = Hearing()
    edit = tiny.edit(exact, TARGET, grey, observer=heard)
    assert [stage for stage, *_ in calls] == ["I", "II", "III"]
    assert calls[0] == ("I", PROMPT, TARGET, None)
    assert [below is edit.stages[k] for k, (*_, below) in enumerate(calls[1:])] == [True, True]
    assert [float(picture.mean()) for picture in edit.pictures] == pytest.approx([0.1, 0.2, 0.3])
    assert heard.steps == [(name, "editing", 1, total, None) for name in ("I", "II", "III") for total in (None, 1)]


def test_pictures_with_and_without_a_mask_make_a_batch():
    picture, mask = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    both = StageEdit.stack([StageEdit(picture, None, ({},)), StageEdit(picture, mask, ({},))])
    assert both.mask.sum((1, 2, 3)).tolist() == [16, 0]
    assert StageEdit.stack([StageEdit(picture, None), StageEdit(picture, None)]).mask is None


def test_errors_inside_a_region_and_an_editor_name_stage_method_and_editor(tiny, exact):
    def no_memory(site):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(MemoryError, match=r"stage I by bdia, edited by DiffEdit ran out of memory on cpu: .*auto"):
        tiny.edit(exact, TARGET, DiffEdit(region=no_memory))
    first, second, third = tiny.stages
    second = replace(second, denoiser=lambda x, a, condition: Prediction(x * float("nan"), x))
    with pytest.raises(NotFinite, match="stage II by bdia, edited by PromptSwap: running: the state at level"):
        Cascade((first, second, third)).edit(exact, TARGET, PromptSwap())


def test_detail_is_for_super_resolution_stages(tiny, exact):
    inversion = exact.stages[0]
    with pytest.raises(ValueError, match="stage I is no super-resolution stage"):
        next(Detail()(Site(tiny.stages[0], inversion, inversion.condition, (PROMPT,), (TARGET,))))
    with pytest.raises(ValueError, match="detail is 0"):
        Detail(share=0)
    with pytest.raises(ValueError, match="sure is nan; it is a finite number"):
        AdaptiveFlow(sure=float("nan"))


def masks():
    """Make a narrow, a wide and an empty region."""
    mask = torch.zeros(3, 1, 16, 16)
    mask[0, :, :4, :4] = mask[1, :, :12] = 1
    return mask


@pytest.fixture(scope="module")
def unlike(tiny_folder):
    """Make a cascade in float64 and inversions of different pictures, prompts and seeds. In float64 a batch and a
    single picture agree in every digit that the tests compare."""
    cascade = Cascade(sources.stages(tiny_folder, torch.float64)).up_to(32)
    x = torch.cat([photo(1, 32), photo(1, 32).flip(-1) / 2, torch.full((1, 3, 32, 32), 0.2)])
    prompts, seeds = [PROMPT, "a blue cube", "a red sphere and a blue cube"], [3, 4, 5]

    @cache
    def inverted(method, *rows):
        return cascade.invert(x[list(rows)], [prompts[k] for k in rows], method, 3, seed=[seeds[k] for k in rows])

    return cascade, inverted, [TARGET, "a green cone", "a red sphere"]  # the last only removes words


LIMITED = [name for name in EDITORS if EDITORS[name]().region != Everywhere()]
"""The editors whose own region is not the whole picture."""
ALWAYS = "diffedit", "prompt-swap", "prompt-to-prompt"
"""The editors whose batches are tested in every region each time; for the others the region is their own."""
LONG = "automatic", "redraw", "flow-redraw"
"""The editors that draw several times; a batch of theirs at the first stage is in tests/edits/test_automatic.py."""
CASES = [
    (name, region)
    if name in ALWAYS or (region == "own" and name not in LONG)
    else pytest.param(name, region, marks=pytest.mark.slow)
    for region in ("own", "given", "all")
    for name in (LIMITED if region == "all" else EDITORS)
]


@pytest.mark.parametrize(("name", "region"), CASES)
def test_a_batch_of_unlike_pictures_is_each_alone_at_every_stage(unlike, name, region):
    cascade, inverted, targets = unlike
    rows = range(3)

    def editor(*rows):
        given = {"given": Given(masks()[list(rows)]), "all": Everywhere()}
        return EDITORS[name](**({} if region == "own" else {"region": given[region]}))

    together = cascade.edit(inverted("bdia", *rows), targets, editor(*rows))
    for k in rows:
        alone = cascade.edit(inverted("bdia", k), targets[k], editor(k))
        assert alone.reports[0] == together.reports[k]
        for a, b in zip(alone.pictures, together.pictures, strict=True):
            torch.testing.assert_close(a[0], b[k], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["null-text", "negative-prompt", "proximal", "direct", "edit-friendly", "dpmpp-2m"])
def test_a_batch_is_edited_as_each_alone_however_it_was_inverted(unlike, method):
    cascade, inverted, targets = unlike
    together = cascade.edit(inverted(method, 0, 1), targets[:2], "prompt-swap")
    for k in (0, 1):
        alone = cascade.edit(inverted(method, k), targets[k], "prompt-swap")
        for a, b in zip(alone.pictures, together.pictures, strict=True):
            torch.testing.assert_close(a[0], b[k], rtol=0, atol=1e-6)

"""AdaptiveFlow follows the region and the network's reading of the result."""

import math

import pytest
import torch
from scipy import stats

from iterinv.cascade import Cascade
from iterinv.edits import AdaptiveFlow, Everywhere, Given, Site
from iterinv.edits.adaptive_flow import without_slits
from iterinv.edits.classifier import NOISES, PROMPT_SHARE, certainty, clearness, margin
from iterinv.edits.site import start_index
from iterinv.models.toy import gaussian
from iterinv.streams import draw_noise

OLD, NEW, STD = -0.2, 0.3, 0.5


def test_the_same_words_change_no_bit(tiny):
    words = "a red sphere on a wooden floor"
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    inversion = tiny.invert(x, words)
    edit = tiny.edit(inversion, words, AdaptiveFlow(guidance=1.0, region=Everywhere()))
    assert torch.equal(edit.pictures[0], inversion.stages[0].picture.clamp(-1, 1))
    assert edit.masks is None
    other = tiny.edit(inversion, "a blue cube", AdaptiveFlow(guidance=1.0, region=Everywhere()))
    assert not torch.equal(other.pictures[0], edit.pictures[0])
    assert (other.reports[0]["rule"], other.reports[0]["guidance"]) == ("Flow", 1.0)


def test_what_is_drawn_is_the_seeds(tiny):
    inversion = tiny.invert(torch.zeros(1, 3, 64, 64), "a red sphere")
    a, b, c = (
        tiny.edit(inversion, "a blue cube", AdaptiveFlow(averages=1, seed=seed)).pictures[0] for seed in (0, 0, 1)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_some_noise_must_be_drawn():
    with pytest.raises(ValueError, match="averages is 0; it is 1 to 10000"):
        AdaptiveFlow(averages=0)
    with pytest.raises(ValueError, match="passes is 0; it is 1 to 10000"):
        AdaptiveFlow(passes=0)
    with pytest.raises(ValueError, match=r"sure is nan; it is a finite number"):
        AdaptiveFlow(sure=math.nan)


def masks():
    small, wide = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    small[..., :4, :4], wide[..., :8, :] = 1, 1
    return small, wide


@pytest.fixture(scope="module")
def inversion(tiny):
    first = Cascade(tiny.stages[:1])
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return first, first.invert(pictures, "a red sphere and a blue cube")


def test_each_picture_of_a_batch_gets_its_own_strength(inversion):
    """A picture with a small region runs beside one with a wide region as it runs alone."""
    cascade, both = inversion
    together = cascade.edit(both, "a green cube", AdaptiveFlow(region=Given(torch.cat(masks())), sure=1.0))
    assert [report["strength"] for report in together.reports] != [1.0, 1.0]
    assert together.reports[1]["strength"] == 1.0
    for k, mask in enumerate(masks()):
        alone = both.row(k)
        edit = cascade.edit(alone, "a green cube", AdaptiveFlow(region=Given(mask), sure=1.0))
        assert edit.reports[0] == together.reports[k]
        assert torch.equal(edit.pictures[0][0], together.pictures[0][k])
        assert torch.equal(edit.masks[0][0], together.masks[0][k])


def strengths_tried(cascade, inversion, target, editor, monkeypatch):
    tried = []
    flow = AdaptiveFlow.flow

    def spy(self, site, strength, passes, mask):
        tried.append((strength, passes))
        return flow(self, site, strength, passes, mask)

    monkeypatch.setattr(AdaptiveFlow, "flow", spy)
    edit = cascade.edit(inversion, target, editor)
    return tried, edit


def test_the_strength_follows_the_region_and_the_prompts(inversion, monkeypatch):
    cascade, both = inversion
    alone, (small, wide) = both.row(0), masks()

    def tried(target, **settings):
        return strengths_tried(cascade, alone, target, AdaptiveFlow(**settings), monkeypatch)[0]

    assert tried("a green cube", region=Given(wide)) == [(1.0, 1)]
    assert tried("a green cube", region=Everywhere()) == [(1.0, 1)]
    assert tried("a blue cube", region=Given(small), strength=0.5, passes=2) == [(0.5, 2)]
    assert tried("a green cube", region=Given(small), sure=0.0)[0] == (0.55, 3)


def test_an_edit_that_does_not_show_the_target_starts_again_higher(inversion, monkeypatch):
    cascade, both = inversion
    alone = both.row(0)
    margins = iter([-8.0, -1.0, 3.9, 4.0])  # first the picture's margin, then that of each edit
    monkeypatch.setattr("iterinv.edits.adaptive_flow.margin", lambda *_: next(margins))
    editor = AdaptiveFlow(region=Given(masks()[0]), outline=1.0)
    tried, edit = strengths_tried(cascade, alone, "a green cube", editor, monkeypatch)
    assert tried == [(0.55, 3), (0.7, 3), (0.85, 3)]
    assert edit.reports[0]["strength"] == pytest.approx(0.85)
    margins = iter([-8.0, -1.0, -1.0, -1.0])  # the last strength needs no margin
    tried, _ = strengths_tried(cascade, alone, "a green cube", editor, monkeypatch)
    assert [strength for strength, _ in tried] == [0.55, 0.7, 0.85, 1.0]


def test_outlines_stay_where_the_network_sees_the_target_in_new_colours_almost_as_clearly(inversion, monkeypatch):
    cascade, both = inversion
    shifts = {5: 0.01, 9: 0.02, 13: 0.03}  # by the window of the fit
    monkeypatch.setattr(
        "iterinv.edits.adaptive_flow.recoloured", lambda before, after, window, fits: before + shifts[window]
    )
    # Of FlowEdit's result, and of new colours by windows of growing size.
    for margins, likelihoods, change in (
        ((4.0, 3.1, 0.0, 0.0), (-1.0, -1.4, -1.0, -1.0), 0.01),
        ((4.0, 2.9, 2.9, 2.9), (-1.0, -1.0, -1.0, -1.0), None),
        ((-1.0, 3.0, 3.0, 3.0), (-1.0, -1.0, -1.0, -1.0), None),
        ((4.0, 3.5, 3.5, 3.5), (-1.0, -1.6, -1.6, -1.6), None),  # less likely
        ((4.0, 3.7, 0.0, 0.0), (-1.0, -2.4, -1.0, -1.0), 0.01),  # but seen clearly
        ((4.0, 4.0, 4.0, 4.0), (-1.0, -2.6, -2.6, -2.6), None),
        ((4.0, 3.1, 2.1, 2.1), (-1.0, -1.4, -1.3, -1.5), 0.02),  # of wider windows and likelier
        ((4.0, 3.1, 1.9, 1.9), (-1.0, -1.4, -1.3, -1.3), 0.01),  # but without the new colour
        ((4.0, 2.9, 3.9, 3.9), (-1.0, -3.0, -2.6, -1.5), 0.03),  # only of the widest likely enough
    ):
        monkeypatch.setattr("iterinv.edits.adaptive_flow.likelihood", lambda *_, each=iter(likelihoods): next(each))
        each = iter(margins)
        monkeypatch.setattr("iterinv.edits.adaptive_flow.margin", lambda *_, each=each: next(each, 0.0))
        editor = AdaptiveFlow(strength=0.5, region=Given(masks()[0]))
        edit = cascade.edit(both.row(0), "a green cube", editor)
        assert edit.reports[0]["same_outline"] == (change is not None)
        before, after = both.row(0).stages[0].picture.clamp(-1, 1), edit.pictures[0]
        for each in shifts.values():
            shifted = (after - (before + each).clamp(-1, 1))[masks()[0].expand_as(after) == 1]
            assert (float(shifted.abs().max()) < 1e-5) == (each == change)


def test_the_margin_tells_which_prompt_a_picture_shows(inversion, monkeypatch):
    """Closed forms give the answer: data at the old mean shows the source prompt, data at the new mean the target
    prompt."""
    cascade, both = inversion
    stage_inversion = both.stages[0].row(0)
    site = Site(cascade.stages[0], stage_inversion, stage_inversion.condition, ("old",), ("new",))
    monkeypatch.setattr(Site, "source", lambda self: gaussian(OLD, STD))
    monkeypatch.setattr(Site, "unguided", lambda self: gaussian(NEW, STD))
    old, new = (torch.full((1, 3, 16, 16), mean, dtype=torch.float64) for mean in (OLD, NEW))
    margins = [margin(site, masks()[0], old + share * (new - old)) for share in (0, 0.5, 1)]
    assert margins[0] < margins[1] < margins[2]
    assert margins[0] < 0 < margins[2]
    assert margins[2] == pytest.approx(-margins[0], rel=0.2)


def test_certainty_is_the_t_statistic_of_the_margins_of_all_noises(inversion, monkeypatch):
    cascade, both = inversion
    stage_inversion = both.stages[0].row(0)
    site = Site(cascade.stages[0], stage_inversion, stage_inversion.condition, ("old",), ("new",))
    old, new = gaussian(OLD, STD), gaussian(NEW, STD)
    monkeypatch.setattr(Site, "source", lambda self: old)
    monkeypatch.setattr(Site, "unguided", lambda self: new)
    z, level = torch.full((1, 3, 16, 16), 0.6, dtype=torch.float64), site.grid[start_index(site.grid, PROMPT_SHARE)]
    margins = []
    for k in range(NOISES):
        noise = draw_noise((3, 16, 16), [0], "classifier", k).double()
        x = level.alpha * z + level.sigma * noise
        before, after = (masks()[0] * (field(x, level).eps - noise) ** 2 for field in (old, new))
        margins.append(float((before - after).sum()))
    assert certainty(site, masks()[0], z) == pytest.approx(stats.ttest_1samp(margins, 0).statistic, rel=1e-6)


def test_the_target_is_shown_where_it_predicts_better_than_the_source_and_than_no_prompt(inversion, monkeypatch):
    """A picture that no prompt describes best shows neither of the two, though it is nearer to the target."""
    cascade, both = inversion
    stage_inversion = both.stages[0].row(0)
    site = Site(cascade.stages[0], stage_inversion, stage_inversion.condition, ("old",), ("new",))
    empty = NEW + 2 * (NEW - OLD)
    monkeypatch.setattr(Site, "source", lambda self: gaussian(OLD, STD))
    monkeypatch.setattr(Site, "unguided", lambda self: gaussian(NEW, STD))
    monkeypatch.setattr("iterinv.edits.classifier.unguided", lambda denoiser, condition: gaussian(empty, STD))
    pictures = [torch.full((1, 3, 16, 16), mean, dtype=torch.float64) for mean in (OLD, NEW, empty)]
    assert [min(clearness(site, masks()[0], z)) > 0 for z in pictures] == [False, True, False]
    assert margin(site, masks()[0], pictures[2]) > 0


def test_slits_of_a_wide_region_are_closed_and_things_on_it_stay_outside():
    mask = torch.ones(1, 1, 32, 32)
    mask[..., 10:13, 4:20] = 0  # a slit
    mask[..., 18:28, 8:18] = 0  # a thing
    mask[..., :6, :] = 0  # beyond its edge
    closed = without_slits(mask)
    assert bool((closed[..., 8:15, :] == 1).all())
    assert float(closed[..., 18:28, 8:18].sum()) == 0
    assert float(closed[..., :6, :].sum()) == 0


def test_a_wide_region_is_grown_and_a_small_one_is_not(inversion):
    cascade, both = inversion
    alone = both.row(0)
    small, wide = (cascade.edit(alone, "a green cube", AdaptiveFlow(region=Given(mask))).masks[0] for mask in masks())
    assert torch.equal(small, masks()[0])
    assert wide.sum() == 9 * 16

"""The default editor chooses by the words that change, and says whether the network sees the new ones."""

from itertools import repeat

import pytest
import torch

from iterinv.cascade import Cascade, load
from iterinv.edits import (
    AdaptiveFlow,
    Automatic,
    FlowRedraw,
    FromFlow,
    FromPrompts,
    Given,
    PromptSwap,
    Redraw,
    StageEdit,
)
from iterinv.edits.automatic import moves_outlines, tightened
from iterinv.edits.flow_redraw import changes_pattern, is_wide
from iterinv.edits.from_flow import solid, without_what_stays
from iterinv.edits.redraw import REMOVAL
from iterinv.edits.structure import recoloured
from iterinv.edits.words import word_change
from iterinv.embedded.scenes import COLORS, Scene, caption, render
from iterinv.embedded.seeds import HELD_OUT

SOURCE = "a red sphere to the left of a blue cube"
MASK = Given(torch.ones(1, 1, 16, 16).triu())
SMALL = Given(torch.ones(1, 1, 16, 16).triu(10))


@pytest.fixture(scope="module")
def first(tiny):
    cascade = Cascade(tiny.stages[:1])
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return cascade, cascade.invert(pictures, SOURCE, num_inference_steps=5)


def readings(monkeypatch, clear, before=0.0, certain=0.0):
    """The network reads ``clear`` in one edited picture after another, ``before`` in the one before the edit."""
    each = iter(clear)
    monkeypatch.setattr("iterinv.edits.automatic.clearness", lambda *_: next(each))
    monkeypatch.setattr("iterinv.edits.automatic.margin", lambda *_: -before)
    monkeypatch.setattr("iterinv.edits.automatic.certainty", lambda *_: certain)


def test_words_are_added_removed_or_exchanged():
    one = "a blue cube"
    assert word_change(SOURCE, one) == "removed"
    assert word_change(one, SOURCE) == "added"
    assert word_change(SOURCE, "A green sphere, to the left of a blue cube!") == "exchanged"
    assert word_change("a red cube beside a red cube", "a red cube") == "removed"  # words are counted
    assert word_change(one, one) == "exchanged"


def test_it_draws_anew_what_appears_or_goes_and_changes_the_rest_in_place(first, monkeypatch):
    cascade, both = first
    readings(monkeypatch, repeat((1.0, 1.0)), before=0.1)
    swapped = SOURCE.replace("red", "green")
    for target, same, wide, chosen, why in (
        ("a blue cube", False, False, "Redraw", "only has words removed"),
        (SOURCE + " and a cone", False, False, "Redraw", "only has words added"),
        (swapped, True, False, "AdaptiveFlow", "new colours are enough"),
        (swapped, False, False, "FlowRedraw", "new colours are not enough"),
        (swapped, False, True, "FlowRedraw", "a wide region"),  # a floor or a wall
    ):
        monkeypatch.setattr(AdaptiveFlow, "same_outline", lambda self, site, mask, clean, z, same=same: (same, z))
        for module in ("automatic", "flow_redraw"):
            monkeypatch.setattr(f"iterinv.edits.{module}.is_wide", lambda before, after, wide=wide: wide)
        (report,) = cascade.edit(both.row(0), target, Automatic(region=SMALL)).reports
        assert (report["chose"], report["sees_target"]) == (chosen, True)
        assert why in report["why"]


def test_new_colours_in_a_wide_box_around_a_thing_are_enough():
    """AdaptiveFlow compares no outlines in a wide box, which is no reason to draw the thing anew."""
    cascade, scene = load().up_to(32), Scene.random(HELD_OUT, things=1)
    inversion = cascade.invert(render(scene, 256)[None], caption(scene), num_inference_steps=4)
    box = torch.zeros(256, 256)
    box[40:220, 30:230] = 1
    color = next(each for each in COLORS if each != scene.things[0].color)
    (report,) = cascade.edit(inversion, caption(scene.with_(color=color)), mask=box).reports
    assert (report["chose"], report["sees_target"]) == ("AdaptiveFlow", True)


def test_a_floor_takes_another_pattern_and_a_wall_another_colour():
    across = torch.arange(32)
    scene = torch.zeros(1, 3, 32, 32)
    scene[..., 16:, :] = 0.3 * (across // 4 % 2)  # a floor of stripes
    scene[..., 10:20, 10:20] = -0.8  # a thing
    wall, floor = scene.clone(), scene.clone()
    wall[..., :16, :] = torch.tensor([0.5, 0.2, -0.4])[:, None, None]
    floor[..., 16:, :] = 0.6 * (across // 3 % 2) - 0.5
    for changed in (wall, floor):
        changed[..., 10:20, 10:20] = -0.8
        assert is_wide(scene, changed)
    assert not changes_pattern(scene, wall)
    assert changes_pattern(scene, floor)


@pytest.mark.parametrize(
    ("there", "colours", "moved"),
    [
        (10.0, 5.0, True),  # the new colours do not show the target
        (10.0, 8.0, False),
        (-1.0, -2.0, False),  # the network does not see the target in FlowEdit's result
    ],
)
def test_an_outline_has_moved_where_new_colours_are_not_enough(first, monkeypatch, there, colours, moved):
    cascade, both = first
    margins, tells = iter((there, colours)), []
    monkeypatch.setattr("iterinv.edits.automatic.margin", lambda *_: next(margins))

    def editor(site):
        tells.append(moves_outlines(site, site.path[-1], site.path[-1] + 0.5))
        return (yield from PromptSwap()(site))

    cascade.edit(both.row(0), "a blue cube", editor)
    assert tells == [moved]


def test_a_region_of_its_own_shrinks_to_what_changed():
    before, mask = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., 2:14, 2:14] = 1
    after = before.clone()
    after[..., 2:14, 2:14] = 0.05  # hardly to be seen
    after[:, 0, 5:9, 5:9] = 0.5
    after[:, 0, 6, 6] = 0  # a hole
    edit = tightened(StageEdit(after, mask), before)
    expected = torch.zeros(1, 1, 16, 16)
    expected[..., 4:10, 4:10] = 1
    assert torch.equal(edit.mask, expected)
    assert torch.equal(edit.picture, expected * after)
    whole = StageEdit(after, None)
    assert tightened(whole, before) is whole


@pytest.mark.parametrize(
    ("clear", "before"),
    [
        ([(1.0, 1.0), (1.0, -1.0), (1.0, 1.0)], 0.1),  # a thing has vanished
        ([(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)], -0.1),  # the thing does not stand where FlowEdit changed the picture
    ],
)
def test_flows_result_stays_where_drawing_anew_does_not_show_the_target(first, monkeypatch, clear, before):
    cascade, both = first
    monkeypatch.setattr(AdaptiveFlow, "same_outline", lambda self, site, mask, clean, z: (False, z))
    readings(monkeypatch, clear, before)
    target = SOURCE.replace("red", "green")
    edit = cascade.edit(both.row(0), target, Automatic(region=SMALL))
    assert (edit.reports[0]["chose"], edit.reports[0]["sees_target"]) == ("AdaptiveFlow", True)
    assert "in FlowRedraw's result" in edit.reports[0]["why"]
    assert torch.equal(edit.pictures[0], cascade.edit(both.row(0), target, AdaptiveFlow(region=SMALL)).pictures[0])


def test_a_result_that_does_not_show_the_target_is_drawn_anew(first, monkeypatch):
    cascade, both = first
    readings(monkeypatch, [(-1.0, 1.0), (2.0, 1.0)], before=0.1)
    target = SOURCE.replace("red", "green")
    edit = cascade.edit(both.row(0), target, Automatic(region=MASK))
    assert (edit.reports[0]["chose"], edit.reports[0]["sees_target"]) == ("FlowRedraw", True)
    assert "does not see" in edit.reports[0]["why"]
    assert torch.equal(edit.pictures[0], cascade.edit(both.row(0), target, FlowRedraw(region=MASK)).pictures[0])


@pytest.mark.parametrize(("certain", "chosen"), [(1.5, "Redraw"), (0.5, "AdaptiveFlow")])
def test_a_thing_is_drawn_elsewhere_only_where_the_target_is_seen_above_chance(first, monkeypatch, certain, chosen):
    cascade, both = first
    readings(monkeypatch, [(-1.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (-1.0, 1.0)], certain=certain)
    monkeypatch.setattr("iterinv.edits.automatic.is_wide", lambda before, after: False)
    target = SOURCE.replace("red", "green")
    edit = cascade.edit(both.row(0), target, Automatic())
    assert (edit.reports[0]["chose"], edit.reports[0]["sees_target"]) == (chosen, chosen == "Redraw")
    assert "FlowRedraw's result" in edit.reports[0]["why"]


@pytest.mark.parametrize(
    ("clear", "before", "certain", "seen"),
    [
        (0.1, 0.0, 0.0, True),
        (-0.1, 0.0, 9.0, False),
        (2.0, 7.0, 0.0, True),
        (1.0, 7.0, 1.5, False),  # less than a quarter as clear as the source prompt was before
        (1.0, 7.0, 2.5, True),  # but alike for all noises
        (2.0, -0.5, 0.0, True),
        (2.0, -1.5, 9.0, False),  # the network saw the target prompt before the edit already
    ],
)
def test_chance_is_no_sight_of_the_target(first, monkeypatch, clear, before, certain, seen):
    cascade, both = first
    readings(monkeypatch, repeat((clear, 1.0)), before, certain)
    (report,) = cascade.edit(both.row(0), "a blue cube", Automatic(region=MASK)).reports
    assert report["sees_target"] is seen


@pytest.mark.parametrize("editor", [Automatic(), Redraw(tries=2), FlowRedraw(tries=2)])
def test_a_batch_is_each_picture_alone(first, editor):
    cascade, both = first
    targets = ["a blue cube", SOURCE.replace("red", "green")]
    together = cascade.edit(both, targets, editor)
    for k, target in enumerate(targets):
        alone = cascade.edit(both.row(k), target, editor)
        assert alone.reports[0] == together.reports[k]
        torch.testing.assert_close(alone.pictures[0][0], together.pictures[0][k], rtol=0, atol=1e-6)


OTHER = SOURCE.replace("red", "green")


@pytest.mark.parametrize(
    ("target", "clear", "likely", "kept"),
    [
        (OTHER, [(1.0, 1.0), (-1.0, 2.0), (1.0, 1.0)], [-3.0, -2.0], 2),  # the second shows the source prompt
        (OTHER, [(9.0, 8.0), (3.0, 8.0), (8.0, 9.0)], [-2.0, -3.0], 0),  # the second is less than half as clear
        (OTHER, [(9.0, 8.0), (9.0, -1.0), (-8.0, 9.0)], [-2.0], 0),  # a thing has vanished from the second
        (OTHER, [(-1.0, 1.0), (-2.0, 1.0), (1.0, -1.0)], [-3.0, -1.0, -2.0], 1),  # none shows it
        ("a blue cube", [(9.0, 8.0), (3.0, 0.5), (-8.0, 9.0)], [-3.0, -1.0], 1),  # the first shows the cube twice
        ("a blue cube", [(9.0, 8.0), (9.0, -0.5), (9.0, -2.0)], [-3.0, -1.0], 1),  # the last shows no cube at all
    ],
)
def test_the_likeliest_of_those_that_show_the_target_is_kept(first, monkeypatch, target, clear, likely, kept):
    cascade, both = first
    each, likelihoods = iter(clear), iter(likely)
    monkeypatch.setattr("iterinv.edits.redraw.clearness", lambda *_: next(each))
    monkeypatch.setattr("iterinv.edits.redraw.likelihood", lambda *_: next(likelihoods))
    (report,) = cascade.edit(both.row(0), target, Redraw(tries=3, region=MASK)).reports
    assert (report["draw"], report["guidance"]) == (kept, 2.0 if target == OTHER else REMOVAL[kept])


def test_a_guidance_of_0_is_no_prompt(first):
    cascade, both = first
    at = lambda guidance, target: cascade.edit(  # noqa: E731
        both.row(0), target, Redraw(guidance=guidance, tries=1, region=MASK)
    ).pictures[0]
    assert torch.equal(at(0.0, "a blue cube"), at(0.0, OTHER))
    assert not torch.equal(at(1.0, "a blue cube"), at(1.0, OTHER))
    torch.testing.assert_close(at(0.0, OTHER), at(1e-9, OTHER), rtol=0, atol=1e-5)


def test_nothing_of_the_region_stays_at_full_strength(first):
    """The noise that is drawn alone decides: two pictures that differ inside the region only give one result there."""
    cascade, both = first
    picture = both.picture.float()
    other = torch.where(torch.ones(1, 1, 16, 16).triu() > 0, -picture, picture)
    edits = [
        cascade.edit(cascade.invert(x, SOURCE, "edit-friendly", 5), "a blue cube", Redraw(tries=1, region=MASK))
        for x in (picture[:1], other[:1])
    ]
    torch.testing.assert_close(edits[0].pictures[0], edits[1].pictures[0], rtol=0, atol=1e-6)


def test_the_region_of_flow_is_where_it_changes_the_picture(first):
    cascade, both = first
    alone = both.row(0)
    everything = cascade.edit(alone, "a blue cube", Redraw(tries=1, region=FromFlow(least=0.0)))
    nothing = cascade.edit(alone, "a blue cube", Redraw(tries=1, region=FromFlow(least=3.0)))
    prompts = cascade.edit(alone, "a blue cube", Redraw(tries=1, region=FromPrompts(close=True)))
    assert everything.masks[0].mean() > 0.9
    assert torch.equal(nothing.masks[0], prompts.masks[0])


def test_the_outline_of_a_thing_that_stays_is_not_in_the_region_of_flow():
    change = torch.zeros(1, 1, 32, 32)
    change[..., 4:12, 4:12] = 1.0  # a thing that goes
    change[..., 12, 4:12] = 0.1  # its faint shadow
    change[..., 4:12, 20:28] = 0.3
    change[..., 5:11, 21:27] = 0.0  # the outline of one that stays
    places = torch.zeros(1, 1, 32, 32)
    places[..., 4:13, 4:12] = 1
    assert torch.equal(solid(change, 0.15), places)
    assert not solid(change, 2.0).any()


@pytest.mark.parametrize(
    ("margins", "left"),
    [
        ([-10.0, -3.0], [0]),  # the second thing stays
        ([-3.0, -10.0], [1]),
        ([-10.0, -5.0], [0, 1]),
        ([-10.0, 1.0], [0]),
        ([2.0, 1.0], [0, 1]),  # the source prompt explains neither better
    ],
)
def test_a_thing_that_stays_is_left_out_of_the_region_of_flow(first, monkeypatch, margins, left):
    cascade, both = first
    each, seen = iter(margins), []
    monkeypatch.setattr("iterinv.edits.from_flow.margin", lambda *_, **__: next(each))
    places = torch.zeros(2, 1, 1, 16, 16)
    places[0, ..., 2:6, 2:6] = 1
    places[1, ..., 8:14, 8:14] = 1

    def editor(site):
        seen.append(without_what_stays(site, places.amax(0)))
        return (yield from PromptSwap()(site))

    cascade.edit(both.row(0), "a blue cube", editor)
    assert torch.equal(seen[0], places[left].amax(0))


def test_one_connected_region_of_flow_stays_whole(monkeypatch):
    monkeypatch.setattr("iterinv.edits.from_flow.margin", lambda *_, **__: pytest.fail("the network was asked"))
    one = torch.zeros(1, 1, 16, 16)
    one[..., 2:6, 2:6] = 1
    assert without_what_stays(None, one) is one


def flowed(monkeypatch, change):
    """FlowEdit adds ``change`` (1, 3, 16, 16) to the picture."""

    def flow(self, site, mask):
        yield (site.path[-1],)
        return site.path[-1] + change.to(site.path[-1])

    monkeypatch.setattr(FlowRedraw, "flow", flow)


def test_what_flow_changed_is_drawn_anew_closed_and_grown(first, monkeypatch):
    cascade, both = first
    ring = torch.zeros(1, 3, 16, 16)
    ring[:, 1, 4:9, 4:9] = 0.2
    ring[..., 6, 6] = 0
    ring[..., 13, 13] = 0.1  # hardly changed
    flowed(monkeypatch, ring)
    edit = cascade.edit(both.row(0), "a blue cube", FlowRedraw(tries=2))
    expected = torch.zeros(1, 1, 16, 16)
    expected[..., 3:10, 3:10] = 1
    assert torch.equal(edit.masks[0], expected)
    assert edit.reports[0]["rule"] == "Redraw"
    outside = (expected == 0).expand(1, 3, -1, -1)
    assert torch.equal(edit.pictures[0][outside], both.row(0).picture.to(edit.pictures[0])[outside])
    within = cascade.edit(both.row(0), "a blue cube", FlowRedraw(tries=2, region=MASK))
    assert torch.equal(within.masks[0], expected * MASK.mask)


def test_flows_result_stays_in_a_wide_region_but_for_the_things_in_it(first, monkeypatch):
    cascade, both = first
    floor = torch.zeros(1, 3, 16, 16)
    floor[..., 4:, :] = -0.3
    floor[..., 6:12, 5:11] = 0.1  # a thing
    flowed(monkeypatch, floor)
    edit = cascade.edit(both.row(0), "a blue cube", FlowRedraw())
    expected = torch.ones(1, 1, 16, 16)
    expected[..., :3, :] = 0
    expected[..., 7:11, 7:9] = 0
    expected[..., 8:10, 6:10] = 0
    assert torch.equal(edit.masks[0], expected)
    assert (edit.reports[0]["rule"], edit.reports[0]["strength"]) == ("Flow", 1.0)
    before = both.row(0).picture
    torch.testing.assert_close(
        edit.pictures[0], (before + expected * floor).clamp(-1, 1).to(edit.pictures[0]), rtol=0, atol=1e-6
    )


def test_the_structure_of_a_wide_region_takes_new_colours_where_its_pattern_stays(first, monkeypatch):
    """FlowEdit moves the outline of a thing in front of a wall, which stays where it was."""
    cascade, both = first
    monkeypatch.setattr("iterinv.edits.automatic.sees_target", lambda *_, **__: True)
    monkeypatch.setattr("iterinv.edits.flow_redraw.changes_pattern", lambda *_: False)
    likelihoods = iter((-1.2, -1.1, -1.3))  # by windows of growing size
    monkeypatch.setattr("iterinv.edits.flow_redraw.likelihood", lambda *_: next(likelihoods))
    wall, before = torch.full((1, 3, 16, 16), -0.3), both.row(0).picture
    wall[..., 6:12, 5:11] = 0  # a thing
    colours = recoloured(before, before + wall, 9, 4).clamp(-1, 1)
    flowed(monkeypatch, wall)
    edit = cascade.edit(both.row(0), SOURCE.replace("red", "green"), Automatic())
    assert (edit.reports[0]["chose"], edit.reports[0]["same_outline"]) == ("FlowRedraw", True)
    torch.testing.assert_close(
        edit.pictures[0], torch.where(edit.masks[0] > 0, colours, before).to(edit.pictures[0]), rtol=0, atol=1e-6
    )


def test_where_flow_changes_nothing_the_picture_stays(first, monkeypatch):
    cascade, both = first
    flowed(monkeypatch, torch.full((1, 3, 16, 16), 0.1))
    edit = cascade.edit(both.row(0), "a blue cube", FlowRedraw())
    assert not edit.masks[0].any()
    torch.testing.assert_close(edit.pictures[0], both.row(0).picture.to(edit.pictures[0]), rtol=0, atol=1e-6)


def test_settings_that_are_given_hold_for_flow_and_for_what_is_drawn_anew(first, monkeypatch):
    cascade, both = first
    readings(monkeypatch, repeat((1.0, 1.0)), before=0.1)
    target = SOURCE.replace("red", "green")
    for wide, rule in ((True, "Flow"), (False, "Redraw")):
        for module in ("automatic", "flow_redraw"):
            monkeypatch.setattr(f"iterinv.edits.{module}.is_wide", lambda before, after, wide=wide: wide)
        monkeypatch.setattr("iterinv.edits.automatic.moves_outlines", lambda *_: True)
        monkeypatch.setattr("iterinv.edits.flow_redraw.CHANGED", 0.0)
        (report,) = cascade.edit(both.row(0), target, Automatic(strength=0.4, guidance=3.0)).reports
        assert (report["rule"], report["strength"], report["guidance"]) == (rule, 0.4, 3.0)
    with pytest.raises(ValueError, match=r"flow_strength is 2\.0"):
        FlowRedraw(flow_strength=2.0)

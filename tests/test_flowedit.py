"""FlowEdit against a closed form, and what it keeps."""

import math
from dataclasses import replace

import pytest
import torch

from iterinv import drive
from iterinv.editing import fewer
from iterinv.edits import DiffEdit, FlowEdit
from iterinv.edits.flowedit import Flow
from iterinv.models.toy import arc, gaussian

OLD, NEW, STD = -0.2, 0.3, 0.5


def edited(x, steps, averages=1):
    grid = arc(steps)
    flow = Flow(gaussian(OLD, STD), x, averages, seed=0)
    *_, (z,) = drive.run(flow, gaussian(NEW, STD), flow.init(x), grid)
    return z


def truth(x):
    """Of Gaussians of one width, ``d(u - D)/ds = (u - D) s / (std^2 + s^2)``, ``u`` the edit's shift and ``D`` the means'."""
    noisy, clean = arc(2)[0], arc(2)[-1]
    high, low = ((STD**2 + (a.sigma / a.alpha) ** 2) for a in (noisy, clean))
    return x + clean.alpha * (NEW - OLD) * (1 - math.sqrt(low / high))


@pytest.mark.parametrize("averages", [1, 3])
def test_of_two_gaussians_it_is_the_shift_from_one_to_the_other(averages):
    """Whatever noise is drawn: it is in both, and cancels. The error halves with twice the steps."""
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(1, 3, 2, 2)
    shift = edited(x, 40, averages) - x
    torch.testing.assert_close(shift, shift.mean().expand_as(shift), rtol=0, atol=1e-12)
    coarse, fine = (float((edited(x, steps, averages) - truth(x)).abs().max()) for steps in (100, 200))
    assert fine < 5e-3
    assert coarse / fine == pytest.approx(2, rel=0.1)


def test_the_same_words_change_no_bit(tiny):
    words = "a red sphere on a wooden floor"
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = tiny.invert(x, words)
    edit = tiny.edit(found, words, FlowEdit(guidance=1.0, within=None))
    assert torch.equal(edit.pictures[0], found.stages[0].picture.clamp(-1, 1))
    assert edit.masks is None
    other = tiny.edit(found, "a blue cube", FlowEdit(guidance=1.0, within=None))
    assert not torch.equal(other.pictures[0], edit.pictures[0])
    assert (other.rule, other.guidance) == ("Flow", 1.0)


def test_what_is_drawn_is_the_seeds(tiny):
    found = tiny.invert(torch.zeros(1, 3, 64, 64), "a red sphere")
    a, b, c = (tiny.edit(found, "a blue cube", FlowEdit(averages=1, seed=seed)).pictures[0] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_some_noise_must_be_drawn():
    with pytest.raises(ValueError, match="averages is 0, passes 3; at least one"):
        FlowEdit(averages=0)
    with pytest.raises(ValueError, match="passes 0; at least one"):
        FlowEdit(passes=0)
    with pytest.raises(ValueError, match=r"sure is nan; it lies in"):
        FlowEdit(sure=math.nan)


def test_a_small_mask_asks_for_fewer_levels_more_often(tiny):
    """Unless a strength is given. Between two passes nothing moves."""
    found = tiny.invert(torch.zeros(1, 3, 64, 64), "a red sphere").stages[0]
    small, wide = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    small[..., :4, :4] = 1
    local, whole = (FlowEdit(passes=3).run(tiny.stages[0], found, mask) for mask in (small, wide))
    steps = len(found.grid) - 1
    assert (whole.start, len(whole.grid), whole.strength) == (0, steps + 1, 1.0)
    assert local.strength == pytest.approx(0.55)
    assert len(local.grid) - local.start == 3 * (len(found.grid) - local.start)
    gone = FlowEdit(passes=3).run(tiny.stages[0], found, small, fewer=True)
    assert (gone.start, len(gone.grid), gone.again) == (0, steps + 1, None)
    given = FlowEdit(strength=0.5, passes=1).run(tiny.stages[0], found, small, fewer=True)
    assert given.strength == pytest.approx(0.5)
    flow, state = local.rule, (torch.ones(1, 3, 16, 16),)
    assert flow.step(None, state, local.grid, steps) is state


def test_an_edit_whose_words_are_not_seen_starts_again_higher(tiny, monkeypatch):
    """By closed forms: a picture at the old words' mean shows them, one at the new words' mean the new."""
    found = tiny.invert(torch.full((1, 3, 64, 64), OLD), "a red sphere").stages[0]
    found = replace(found, path=[torch.full((1, 3, 16, 16), OLD, dtype=torch.float64)])
    monkeypatch.setattr("iterinv.edits.flowedit.guide", lambda *_: gaussian(OLD, STD))
    mask, eps = torch.zeros(1, 1, 16, 16), gaussian(NEW, STD)
    mask[..., :4, :4] = 1
    editor, old, new = FlowEdit(), *(torch.full((1, 3, 16, 16), mean, dtype=torch.float64) for mean in (OLD, NEW))
    run, strengths = editor.run(tiny.stages[0], found, mask), []
    assert run.again(new, eps) is None
    assert run.again(old + 0.8 * (new - old), eps) is None  # surer than half
    assert run.again(old + 0.7 * (new - old), eps) is not None
    while run is not None:
        strengths.append(run.strength)
        run = run.again and run.again(old, eps)
    assert strengths == pytest.approx([0.55, 0.7, 0.85, 1.0])
    assert editor.run(tiny.stages[0], found, mask).again(old, gaussian(OLD, STD)) is None  # the same words


def test_a_wide_mask_is_grown_and_a_small_one_is_not(tiny):
    class Within(DiffEdit):
        def mask(self, stage, found, target):
            mask = torch.zeros(1, 1, 16, 16)
            mask[..., : self.maps, :] = 1
            return mask

    small, wide = (FlowEdit(within=Within(maps=rows)).mask(None, None, None).sum() / 16 for rows in (4, 8))
    assert (small, wide) == (4, 9)


def test_words_that_only_go_take_a_thing_away():
    both, one = "a red cube to the left of a blue cone on a plain floor", "a blue cone on a plain floor"
    assert fewer(both, one)
    assert not fewer(one, both)
    assert not fewer(one, one)
    assert not fewer(both, "a green cone on a plain floor")
    assert fewer("a red cube beside a red cube", "a red cube")  # words are counted


def test_the_cascade_tells_the_editor_whether_words_only_go(tiny):
    found = tiny.invert(
        torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1, "a red sphere and a blue cube"
    )
    asked = []

    class Told(FlowEdit):
        def run(self, stage, found, mask, fewer=False):
            asked.append(fewer)
            return super().run(stage, found, mask, fewer)

    for words in ("a blue cube", "a green cube"):
        tiny.edit(found, words, Told(strength=0.2, passes=1))
    assert asked == [True, False]


def test_the_cascade_runs_what_takes_a_runs_place(tiny):
    """The last of them is what the edit is, and what it tells of."""
    words = "a red sphere on a wooden floor"
    found = tiny.invert(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1, words)

    class Twice(FlowEdit):
        def run(self, stage, found, mask, fewer=False):
            first = super().run(stage, found, mask)
            return first._replace(again=lambda edited, eps: FlowEdit(strength=1.0).run(stage, found, mask))

    low, high = (FlowEdit(strength=strength) for strength in (0.5, 1.0))
    twice, once, high = (tiny.edit(found, "a blue cube", editor) for editor in (Twice(strength=0.5), low, high))
    assert (twice.strength, once.strength) == (1.0, pytest.approx(0.5, abs=0.1))
    assert torch.equal(twice.pictures[-1], high.pictures[-1])
    assert not torch.equal(twice.pictures[0], once.pictures[0])

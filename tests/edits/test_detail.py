"""Above the first stage an edit follows the inverted path where only colour changed, and is drawn anew where structure
did."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iterinv.edits import AdaptiveFlow, Detail, Everywhere, Given, PromptSwap, detail
from iterinv.edits.detail import in_colours_of
from iterinv.edits.structure import carried, recoloured, structure_change
from iterinv.observer import Observer
from iterinv.streams import draw_noise

PROMPT, TARGET = "a red sphere on a wooden floor", "a blue sphere on a wooden floor"


def picture(seed=0, size=24):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@given(st.integers(0, 10_000))
def test_another_colour_is_no_change_of_structure(seed):
    """Any invertible affine map of the channels is a recolouring, in both directions."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.eye(3, dtype=torch.float64) + 0.2 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    x = picture(seed)
    y = torch.einsum("ij,bjhw->bihw", mixed, x) + 0.1
    assert float(structure_change(x, y).max()) == 0
    assert float(structure_change(x, x).max()) == 0


def test_texture_that_comes_and_texture_that_goes_are_changes_of_structure():
    flat = torch.zeros(1, 3, 24, 24, dtype=torch.float64)
    assert float(structure_change(flat, picture()).min()) == 1
    assert torch.equal(structure_change(flat, picture()), structure_change(picture(), flat))
    assert float(structure_change(flat, flat + 0.7).max()) == 0


def test_a_moved_edge_counts_where_it_was_and_where_it_is():
    before, after = torch.full((1, 3, 24, 24), -1.0), torch.full((1, 3, 24, 24), -1.0)
    before[..., :6], after[..., :14] = 1, 1
    change = structure_change(before, after)
    assert float(change[..., 5:15].min()) == 1
    assert float(change[..., 20:].max()) == 0


def test_colours_go_over_and_outlines_stay():
    """A recolouring is itself; of one whose outline moved by half a pixel, the colours stand within the old outline."""
    before = torch.full((1, 3, 24, 24), -0.5)
    before[:, 0, 8:16, 8:16] = 0.8
    colour = torch.tensor([-0.9, 0.1, 0.7]).reshape(1, 3, 1, 1)
    true = before.clone()
    true[..., 8:16, 8:16] = colour
    moved = (true + true.roll(1, -1)) / 2
    assert torch.allclose(recoloured(before, true), true, atol=0.02)
    result = recoloured(before, moved)
    assert float((result - true).square().mean()) < 0.5 * float((moved - true).square().mean())
    assert float((result[..., 10:14, 11:14] - true[..., 10:14, 11:14]).abs().max()) < 0.06
    assert float((result[..., 18:, :] + 0.5).abs().max()) < 0.02


def test_several_fits_in_wide_windows_ignore_an_outline_that_moved_by_two_pixels():
    before = torch.full((1, 3, 32, 32), -0.5)
    before[..., ::4, :] = 0.2
    before[:, :, 10:22, 8:24] = torch.tensor([0.9, 0.2, -0.8]).reshape(1, 3, 1, 1)
    colour = torch.tensor([-0.9, 0.1, 0.7]).reshape(1, 3, 1, 1)
    true = before.clone()
    true[..., 10:22, 8:24] = colour
    narrower = before.clone()
    narrower[:, :, 10:22, 8:24] = -0.5
    narrower[:, :, 12:22:4, 8:24] = 0.2
    narrower[..., 10:22, 10:23] = colour
    errors = [float((recoloured(before, narrower, *how) - true).square().mean()) for how in ((), (9, 1), (9, 4))]
    assert errors[2] < 0.5 * errors[1] < 0.5 * errors[0]


def test_a_picture_changes_its_colours_as_the_smaller_one_and_keeps_its_outlines():
    original = picture(1, 64).float() * 0.3
    true = original.clone()
    true[..., 20:40, 20:40] += 0.5
    before, after = (torch.nn.functional.interpolate(x, (16, 16), mode="area") for x in (original, true))
    tinted = true + torch.tensor([0.2, -0.1, 0.05]).reshape(1, 3, 1, 1)
    assert torch.allclose(in_colours_of(before, after, original, tinted, None), true, atol=1e-5)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :, :32] = 1
    half = in_colours_of(before, after, original, tinted, mask)
    assert torch.equal(half[..., 32:], tinted[..., 32:])
    assert torch.allclose(half[..., :16], true[..., :16], atol=0.02)
    assert torch.allclose(in_colours_of(before, after, original, true, mask), true, atol=1e-5)
    assert torch.equal(in_colours_of(before, before, original, original, mask), original)


def test_a_change_of_colour_is_carried_up_along_the_edges_of_the_picture():
    """Two colours that change side by side: the new ones end where the old ones do, also within a pixel of the stage
    below, and a picture that did not change stays."""
    original, true = torch.full((1, 3, 64, 64), -0.5), torch.full((1, 3, 64, 64), -0.5)
    original[:, 0, 18:43, 18:43] = 0.8
    true[..., 18:43, 18:43] = torch.tensor([-0.9, 0.1, 0.7]).reshape(1, 3, 1, 1)
    before, after = (torch.nn.functional.interpolate(x, (16, 16), mode="area") for x in (original, true))
    result = original + carried(before, after, original)
    enlarged = original + torch.nn.functional.interpolate(after - before, (64, 64), mode="bilinear")
    assert float((result - true).square().mean()) < 0.02 * float((enlarged - true).square().mean())
    assert torch.equal(carried(before, before, original), torch.zeros_like(original))


def calls(tiny, monkeypatch, structure, **settings):
    monkeypatch.setattr(
        "iterinv.edits.detail.structure_change", lambda a, b: torch.full_like(a[:, :1], structure).double()
    )
    inversion = tiny.invert(picture(3, 64).float(), PROMPT, num_inference_steps=10, as_needed=True)
    edit = tiny.edit(inversion, TARGET, PromptSwap(region=Everywhere(), detail=Detail(**settings)))
    return [stage.trajectory.depth for stage in inversion.stages], edit


def test_a_stage_is_inverted_as_deep_as_its_pixels_need(tiny, monkeypatch):
    depths, colour = calls(tiny, monkeypatch, 0.0)
    assert depths[1:] == [3, 3]
    depths, mixed = calls(tiny, monkeypatch, 0.5)
    assert depths[1:] == [8, 8]
    depths, fresh = calls(tiny, monkeypatch, 1.0)
    assert depths[1:] == [0, 0]
    assert not torch.equal(colour.pictures[-1], fresh.pictures[-1])
    assert not torch.equal(mixed.pictures[-1], fresh.pictures[-1])


def test_a_kept_outline_is_carried_up_at_every_stage(tiny, monkeypatch):
    """A pixel that looks like new structure does not count where the stage below reports that outlines stayed."""
    monkeypatch.setattr("iterinv.edits.adaptive_flow.AdaptiveFlow.same_outline", lambda self, site, m, x, z: (True, z))
    monkeypatch.setattr("iterinv.edits.detail.structure_change", lambda a, b: torch.ones_like(a[:, :1]).double())
    inversion = tiny.invert(picture(3, 64).float(), PROMPT, num_inference_steps=10, as_needed=True)
    edit = tiny.edit(inversion, TARGET, AdaptiveFlow(region=Given(torch.ones(1, 1, 16, 16).triu(10)), passes=1))
    assert [stage.trajectory.depth for stage in inversion.stages[1:]] == [0, 0]
    assert all(stage.reports[0]["same_outline"] for stage in edit.stages)


def test_around_what_is_drawn_anew_the_last_levels_hold_the_noise_that_it_is_drawn_from(tiny, monkeypatch):
    """An inverted state holds less noise than its level there, which leaves grain in what is drawn."""
    monkeypatch.setattr("iterinv.edits.detail.structure_change", lambda a, b: torch.ones_like(a[:, :1]).double())
    monkeypatch.setattr("iterinv.edits.detail.SETTLED", 0.2)
    backgrounds, blend = [], detail.Blend

    def blended(rule, mask, path):
        backgrounds.append(path)
        return blend(rule, mask, path)

    monkeypatch.setattr("iterinv.edits.detail.Blend", blended)
    inversion = tiny.invert(picture(3, 64).float(), PROMPT, num_inference_steps=10)
    editor = PromptSwap(region=Given(torch.ones(1, 1, 16, 16).triu(10)), detail=Detail(redraw=0.5, seed=4))
    tiny.edit(inversion, TARGET, editor)
    assert len(backgrounds) == 2
    for background, stage in zip(backgrounds, inversion.stages[1:], strict=True):
        clean, grid = stage.path[-1], stage.grid
        noise = draw_noise(clean.shape[1:], [4], "detail").to(clean)
        for k in range(5, 8):
            assert torch.equal(background[k], stage.path[k])
        for k in (8, 9):
            torch.testing.assert_close(background[k], grid[k].alpha * clean + grid[k].sigma * noise, rtol=0, atol=1e-6)
        assert torch.equal(background[10], clean)


def test_what_is_drawn_anew_is_the_seeds(tiny, monkeypatch):
    a, b, c = (calls(tiny, monkeypatch, 1.0, seed=seed)[1].pictures[-1] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_share_is_above_nothing_and_at_most_one():
    with pytest.raises(ValueError, match="redraw is 0"):
        Detail(redraw=0)


def test_an_inversion_whose_edit_was_stopped_can_be_edited(tiny):
    """The walk back is begun again, and gives what an edit that was not stopped gives."""

    class Stop(Exception):
        pass

    class Stopping(Observer):
        calls = 0

        def on_call(self, stage):
            self.calls += 1
            if self.calls == limit:
                raise Stop

        def on_note(self, text):
            pass

    editor, expected = PromptSwap(), None
    for limit in (0, 3, 25):
        inversion = tiny.invert(
            picture(3, 64).float(), PROMPT, num_inference_steps=10, as_needed=True, observer=Stopping()
        )
        if limit:
            with pytest.raises(Stop):
                tiny.edit(inversion, TARGET, editor)
        edited = tiny.edit(inversion, TARGET, editor).pictures[-1]
        expected = edited if expected is None else expected
        assert torch.equal(edited, expected)

"""Published editors agree with closed forms, with their papers' equations and with each other in limits."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

import iterinv
import published
from iterinv.cascade import Cascade
from iterinv.edits import (
    EDITORS,
    DiffEdit,
    Everywhere,
    FlowAlign,
    FlowEdit,
    FromPrompts,
    Given,
    HEditD,
    HEditR,
    Interpolation,
    PromptSwap,
    RoundTrip,
    SDEdit,
    Site,
    UniEdit,
)
from iterinv.edits.flow_align import AlignedFlow
from iterinv.edits.h_edit_d import Bridge
from iterinv.edits.interpolation import Interpolated, soft_mask
from iterinv.edits.uni_edit import contrast, fused
from iterinv.images import to_uint8
from iterinv.inverters import IndependentNoise, Solve
from iterinv.levels import Level, Prediction
from iterinv.methods import plan
from iterinv.models.toy import gaussian, gaussian_flow, mixture
from iterinv.plans import Plan
from iterinv.roots import Anderson
from iterinv.schedules import Flow
from iterinv.steps import BDIA, DDIM
from iterinv.steps.run import run
from iterinv.streams import draw_noise

from conftest import draw, result

PROMPT, TARGET, STD = "a red sphere", "a blue cube", 0.5


def photo(seed=2):
    return draw((1, 3, 16, 16), seed).clamp(-1, 1)


def mean(condition):
    """The mean of the Gaussian pictures that a prompt stands for."""
    return torch.sin(40 * condition["text"].double().flatten(1).sum(1)).reshape(-1, 1, 1, 1)


@pytest.fixture(scope="module")
def small(tiny):
    return Cascade(tiny.stages[:1])


@pytest.fixture(scope="module")
def toy(small):
    """Make a cascade of one stage that knows Gaussian pictures, and the mean of those of a prompt."""
    (stage,) = small.stages
    known = replace(stage, denoiser=lambda x, a, condition: gaussian(mean(condition), STD)(x, a))
    return Cascade((known,)), lambda prompt: mean(known.condition(prompt))


@pytest.fixture(scope="module")
def inversion(small):
    return small.invert(photo(), PROMPT, num_inference_steps=5)


def site_of(cascade, inversion, target=TARGET):
    (stage,) = cascade.stages
    return Site(stage, inversion.stages[0], stage.condition(target), (PROMPT,), (target,))


def edited(cascade, inversion, editor, target=TARGET):
    return cascade.edit(inversion, target, editor).pictures[0].double()


@pytest.mark.parametrize("passes", [1, 2])
def test_sdedit_is_the_flow_from_the_noised_picture(toy, passes):
    """Guidance extrapolates the mean of a Gaussian, so the end of the run is known."""
    cascade, mean_of = toy
    inversion = cascade.invert(photo(), PROMPT, num_inference_steps=400, as_needed=True)
    editor = SDEdit(strength=0.4, guidance=2.0, passes=passes, seed=3)
    states = list(editor(site_of(cascade, inversion)))
    grid, z = inversion.stages[0].grid, photo().double()
    wanted = mean_of("") + 2.0 * (mean_of(TARGET) - mean_of(""))
    for k in range(passes):
        noise = draw_noise((3, 16, 16), [3], "sdedit", k).double()
        (x,), (end,) = states[k * 161], states[k * 161 + 160]
        torch.testing.assert_close(x, grid[240].alpha * z + grid[240].sigma * noise, rtol=0, atol=1e-12)
        torch.testing.assert_close(end, gaussian_flow(x, grid[240], grid[-1], wanted, STD), rtol=0, atol=2e-2)
        z = end
    assert len(states) == passes * 161


def test_sdedit_needs_no_inversion_and_knows_no_source_prompt(toy):
    cascade, _ = toy
    edits = [
        edited(cascade, cascade.invert(photo(), prompt, num_inference_steps=4, as_needed=True), SDEdit())
        for prompt in (PROMPT, "a green cone")
    ]
    assert torch.equal(*edits)


@pytest.mark.filterwarnings("ignore:undoing")
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("method", ["bdia", "belm", "edict", "rex-heun", "aligned", "edit-friendly"])
def test_a_round_trip_under_the_same_prompt_is_the_reconstruction(small, method, strength):
    inversion = small.invert(photo(), PROMPT, method, 4, 2.0)
    edit = edited(small, inversion, RoundTrip(strength), PROMPT)
    torch.testing.assert_close(edit, inversion.picture.clamp(-1, 1).double(), rtol=0, atol=1e-6)


def test_a_round_trip_runs_the_pair_and_prompt_swap_does_not(small, inversion):
    """Below strength 1 a prompt swap by BDIA has the pair too. At strength 1 its first step is DDIM's, so that not even
    the same prompt gives the picture back."""
    swap, trip = PromptSwap(0.6, 1.0, rule=BDIA()), RoundTrip(0.6)
    torch.testing.assert_close(edited(small, inversion, swap), edited(small, inversion, trip), rtol=0, atol=1e-6)
    whole = edited(small, inversion, PromptSwap(1.0, 1.0, rule=BDIA()), PROMPT)
    assert float((whole - inversion.picture).abs().max()) > 1e-2


def test_bdias_pair_keeps_the_old_picture_on_a_coarse_grid_and_ddim_follows_the_new_prompt(small):
    """The pictures of a prompt are two narrow modes about its mean; the distance is that from the nearer one."""
    (stage,) = small.stages

    def modes(x, a, condition):
        middle = mean(condition) / 2
        x0, eps = mixture(0.3, 0.1)(x - a.alpha * middle, a)
        return Prediction(x0 + middle, eps)

    cascade = Cascade((replace(stage, denoiser=modes),))
    middles = [mean(stage.condition(prompt)) / 2 for prompt in (PROMPT, TARGET)]
    assert float((middles[0] - middles[1]).abs()) > 0.4
    x = (0.1 * photo() + middles[0] + 0.3).clamp(-1, 1)
    inversion = cascade.invert(x.float(), PROMPT, num_inference_steps=20)
    ends = [[*editor(site_of(cascade, inversion))][-1][0] for editor in (RoundTrip(0.5), PromptSwap(0.5, 1.0))]
    pair, ddim = (float(((z - middles[1]).abs() - 0.3).abs().mean()) for z in ends)
    assert pair > 2 * ddim


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("editor", [HEditD, HEditR])
def test_h_edit_is_the_papers_update(small, inversion, editor, implicit):
    """The oracle has the paper's form: DDIM's step of eq. 3, with noise of variance omega^2 for R, and eq. 22 to 25."""
    (stage,), grid = small.stages, inversion.stages[0].grid
    conditions = [stage.condition(prompt) for prompt in ("", PROMPT, TARGET)]

    def guided(x, a, condition, scale):
        empty, prompt = (stage.denoiser(x, a, each).eps for each in (conditions[0], condition))
        return empty + scale * (prompt - empty)

    def step(x, a, b):
        """The mean of the step under the source prompt, and the coefficient of its noise."""
        eps = stage.denoiser(x, a, conditions[1]).eps
        omega2 = (b.sigma / a.sigma) ** 2 * (1 - (a.alpha / b.alpha) ** 2) if editor is HEditR else 0
        direction = (b.sigma**2 - omega2) ** 0.5
        return b.alpha * (x - a.sigma * eps) / a.alpha + direction * eps, direction - b.alpha * a.sigma / a.alpha

    path = inversion.stages[0].path
    if editor is HEditR:
        path = result(IndependentNoise()(DDIM(), None, photo().double(), grid, [0])).path
    z = path[1]
    for i in range(1, 5):
        a, b = grid[i], grid[i + 1]
        mean, coefficient = step(z, a, b)
        base = mean + path[i + 1] - step(path[i], a, b)[0]
        at, level = (base, b if b.sigma else a) if implicit else (z, a)
        z = base + coefficient * (guided(at, level, conditions[2], 7.5) - guided(at, level, conditions[1], 5.0))
    edit = edited(small, inversion, editor(strength=0.8, implicit=implicit))
    torch.testing.assert_close(edit, z.clamp(-1, 1), rtol=0, atol=1e-5)


def test_h_edit_begins_at_a_level_without_signal_in_its_explicit_form_alone():
    grid, x = Flow().grid(4), photo().double()
    path = [level.alpha * x + level.sigma * draw(x.shape, 9).double() for level in grid]
    *_, (z,) = run(Bridge(DDIM(), OLD, path, False), lambda x, a: Prediction(0 * x, 0 * x), (path[0],), grid)
    torch.testing.assert_close(z, x, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="timestep 1000, which holds no signal: take a strength below 1"):
        list(run(Bridge(DDIM(), OLD, path, True), NEW, (path[0],), grid))


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("editor", [HEditD, HEditR])
def test_h_edit_by_the_same_prompt_at_equal_scales_is_the_picture_bit_for_bit(small, inversion, editor, implicit):
    edit = edited(small, inversion, editor(guidance=5.0, implicit=implicit), PROMPT)
    assert torch.equal(edit, inversion.stages[0].path[-1].clamp(-1, 1))


def test_h_edit_r_without_guidance_is_the_edit_friendly_edit(small):
    """The same noises are drawn, and the same noise maps are added to DDPM's steps under the target prompt."""
    inversion = small.invert(photo(), PROMPT, "edit-friendly", 5)
    explicit = HEditR(strength=0.8, guidance=1.0, source_guidance=1.0, implicit=False)
    swap = PromptSwap(strength=0.8, guidance=1.0)
    torch.testing.assert_close(edited(small, inversion, explicit), edited(small, inversion, swap), rtol=0, atol=1e-5)


def test_flow_align_without_pull_and_guidance_is_flowedit(small, inversion):
    align, flow = FlowAlign(0.8, 1.0, weight=0.0), FlowEdit(0.8, 1.0, 1.0)
    assert torch.equal(edited(small, inversion, align), edited(small, inversion, flow))
    assert not torch.equal(edited(small, inversion, FlowAlign(0.8, 1.0)), edited(small, inversion, flow))


def test_flow_align_gives_the_picture_by_the_same_prompt(small, inversion):
    edit = edited(small, inversion, FlowAlign(), PROMPT)
    torch.testing.assert_close(edit, photo().double(), rtol=0, atol=1e-4)


# On a flow model's own levels the rules are the papers' steps of the flow v = eps - x0.


def velocity(field, x, a):
    x0, eps = field(x, a)
    return eps - x0


OLD, NEW = mixture(0.3, 0.2), mixture(0.6, 0.1)


def test_flow_align_is_the_published_algorithm():
    grid, x = Flow(3.0).grid(8), photo().double()
    *_, (z,) = run(AlignedFlow(OLD, x, 1, 4, 0.01), NEW, (x,), grid)
    p = x
    for i in range(8):
        a, b = grid[i], grid[i + 1]
        noise = draw_noise((3, 16, 16), [4], "flowedit", i, 0).double()
        source = (1 - a.sigma) * x + a.sigma * noise
        edit = p + source - x
        v_edit, v_source = velocity(NEW, edit, a), velocity(OLD, source, a)
        pull = (source - a.sigma * v_source) - (edit - a.sigma * v_edit)
        p = p + (b.sigma - a.sigma) * (v_edit - v_source) + 0.01 * pull
    torch.testing.assert_close(z, p, rtol=0, atol=1e-9)


def test_interpolation_is_the_published_step():
    grid, x = Flow().grid(6), photo().double()
    path = [level.alpha * x + level.sigma * draw(x.shape, 9).double() for level in grid]
    *_, (z,) = run(Interpolated(OLD, path, 3.0, 4.5), NEW, (path[0],), grid)
    y = path[0]
    for i in range(6):
        a, b = grid[i], grid[i + 1]
        dt = b.sigma - a.sigma
        source, prompt, empty = (path[i + 1] - path[i]) / dt, velocity(NEW, y, a), velocity(OLD, y, a)
        target = empty + 3.0 * (prompt - empty)
        cosine = F.cosine_similarity(target.flatten(1), source.flatten(1)).reshape(-1, 1, 1, 1)
        y = y + dt * (source + soft_mask(prompt - source) * (1 - b.sigma**4.5) * cosine * (target - source))
    torch.testing.assert_close(z, y, rtol=0, atol=1e-6)


def test_rules_of_flow_models_do_the_same_at_variance_preserving_levels():
    """Divided by ``w = sqrt(alpha^2 + sigma^2)``, a flow model's samples and levels preserve variance."""
    straight, x = Flow().grid(6), photo().double()
    wide = {a.t + a.sigma: math.hypot(a.alpha, a.sigma) for a in straight}
    curved = [Level(a.t + a.sigma, a.alpha / w, a.sigma / w) for a, w in zip(straight, wide.values(), strict=True)]
    levels = {b.t: a for a, b in zip(straight, curved, strict=True)}
    path = [level.alpha * x + level.sigma * draw(x.shape, 9).double() for level in straight]

    def bent(field):
        return lambda y, b: field(wide[b.t] * y, levels[b.t])

    old, new = bent(OLD), bent(NEW)
    scaled = [p / w for p, w in zip(path, wide.values(), strict=True)]
    for (rule, field), (bent_rule, bent_field), start in (
        ((AlignedFlow(OLD, x, 1, 4, 0.01), NEW), (AlignedFlow(old, x, 1, 4, 0.01), new), x),
        ((Interpolated(OLD, path, 3.0, 4.5), NEW), (Interpolated(old, scaled, 3.0, 4.5), new), path[0]),
        ((DDIM(), fused(OLD, NEW, 5.0)), (DDIM(), fused(old, new, 5.0)), path[0]),
    ):
        *_, (z,) = run(rule, field, (start,), straight)
        *_, (y,) = run(bent_rule, bent_field, (start,), curved)
        torch.testing.assert_close(y, z, rtol=0, atol=1e-6)


def test_interpolation_of_exponent_0_is_the_path_and_the_mask_is_soft(small, inversion):
    edit = edited(small, inversion, Interpolation(exponent=0.0))
    torch.testing.assert_close(edit, inversion.picture.clamp(-1, 1).double(), rtol=0, atol=1e-9)
    difference = torch.zeros(2, 3, 32, 32)
    difference[1, :, 4:14, 4:14] = 1
    mask = soft_mask(difference)
    assert float(mask[0].max()) < 1e-3 < 0.99 < float(mask[1, :, 4:14, 4:14].min())
    assert float(mask[1, :, 20:].max()) < 1e-3


def test_uni_edit_is_the_published_step():
    grid, x = Flow().grid(6), photo().double()
    *_, (z,) = run(DDIM(), fused(OLD, NEW, 5.0), (x,), grid)
    for a, b in pairwise(grid):
        source, target = velocity(OLD, x, a), velocity(NEW, x, a)
        m = contrast(target - source)
        x = x + (b.sigma - a.sigma) * (m * target + (1 - m) * source + 5.0 * (1 + m) * (target - source))
    torch.testing.assert_close(z, x, rtol=0, atol=1e-4)


def test_uni_edit_where_the_prompts_differ_alike_everywhere_is_a_prompt_swap_at_its_guidance(toy):
    """The two Gaussians' predictions differ by one number, so that the mask is 0."""
    cascade, _ = toy
    inversion = cascade.invert(photo(), PROMPT, num_inference_steps=10)
    edits = [edited(cascade, inversion, editor) for editor in (UniEdit(0.6, 1.5), PromptSwap(0.6, 1.5))]
    torch.testing.assert_close(*edits, rtol=0, atol=1e-6)


def test_contrast_is_of_each_picture_by_itself():
    difference = draw((2, 3, 8, 8), 1)
    difference[1] *= 10
    least, most = (getattr(contrast(difference).flatten(1), name)(1) for name in ("amin", "amax"))
    torch.testing.assert_close(least, torch.zeros(2), rtol=0, atol=0)
    torch.testing.assert_close(most, torch.ones(2), rtol=0, atol=1e-6)


SAME = [
    PromptSwap(1.0, 1.0), UniEdit(1.0), RoundTrip(), Interpolation(guidance=1.0), FlowAlign(),
    FlowEdit(guidance=3.0, source_guidance=3.0), HEditD(guidance=5.0), HEditR(guidance=5.0),
]  # fmt: skip


@pytest.fixture(scope="module")
def solved(tiny):
    """Make a cascade of two stages, and an inversion of DDIM that is solved to a tolerance."""
    cascade, how = tiny.up_to(32), Plan(DDIM(), Solve(Anderson(30, 1e-6)), steps=4)
    return cascade, cascade.invert(draw((1, 3, 32, 32), 2).clamp(-1, 1), PROMPT, how)


@pytest.mark.parametrize("editor", SAME, ids=lambda editor: type(editor).__name__)
def test_the_same_prompt_along_ddims_own_path_is_the_reconstruction(solved, editor):
    cascade, inversion = solved
    edit = cascade.edit(inversion, PROMPT, editor)
    for picture, each in zip(edit.pictures, inversion.stages, strict=True):
        torch.testing.assert_close(picture.double(), each.picture.clamp(-1, 1).double(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("editor", [SDEdit, RoundTrip, HEditD, HEditR, FlowAlign, Interpolation, UniEdit])
def test_strengths_outside_their_range_are_refused(editor):
    for odd in (0.0, 1.5):
        with pytest.raises(ValueError, match="strength is"):
            editor(strength=odd)


def test_the_report_says_the_rule_the_share_and_the_scale(small, inversion):
    site = site_of(small, inversion)
    for editor, rule, share, scale in (
        (SDEdit(), "DDIM", 0.6, 7.5), (RoundTrip(), "BDIA", 0.8, 1.0), (HEditR(0.6), "DDPM", 0.6, 7.5),
        (UniEdit(), "DDIM", 0.6, 5.0),
    ):  # fmt: skip
        (report,) = result(editor(site)).reports
        assert report == {"rule": rule, "strength": pytest.approx(share), "guidance": scale}


CALLS = [
    (PromptSwap(1.0), 2), (DiffEdit(region=Everywhere()), 2), (SDEdit(1.0), 2), (RoundTrip(), 1),
    (RoundTrip(guidance=2.0), 2), (FlowEdit(1.0), 4), (FlowAlign(), 3), (HEditD(), 5), (HEditR(), 5),
    (Interpolation(), 2), (UniEdit(1.0), 2),
]  # fmt: skip


@pytest.mark.parametrize(("editor", "calls"), CALLS, ids=lambda each: type(each).__name__)
def test_the_network_calls_of_a_step_are_those_that_the_docs_state(toy, editor, calls):
    cascade, _ = toy
    inversion, rows = cascade.invert(photo(), PROMPT, num_inference_steps=6), []

    def counted(x, a, condition):
        rows.append(len(x))
        return cascade.stages[0].denoiser(x, a, condition)

    states = list(editor(site_of(Cascade((replace(cascade.stages[0], denoiser=counted),)), inversion)))
    assert sum(rows) == calls * (len(states) - 1)


def test_the_recipe_of_iterinvs_paper_runs_by_a_plan_for_each_stage(tiny, tmp_path):
    """Null-text inversion at the first stage, IterInv's gradient descent above, and DiffEdit, from a file too."""
    cascade, x = tiny.up_to(32), draw((1, 3, 32, 32), 2).clamp(-1, 1)
    inversion = cascade.invert(x, PROMPT, ["null-text", "iterinv"], 2, [3.0, 1.0])
    inversion.save(tmp_path / "a.safetensors")
    again = cascade.open(tmp_path / "a.safetensors")
    assert [stage.plan for stage in again.stages] == [plan("null-text", 2, 3.0), plan("iterinv", 2)]
    editor = DiffEdit(0.8, region=FromPrompts(strength=0.3, clip=1.0))
    edits = [cascade.edit(each, TARGET, editor) for each in (inversion, again)]
    torch.testing.assert_close(edits[0].pictures[-1], edits[1].pictures[-1], rtol=0, atol=1 / 255)
    assert edits[0].reports[0] == {"rule": "DDIM", "strength": 1.0, "guidance": 3.0}


NAMES = ("sdedit", "round-trip", "h-edit-d", "h-edit-r", "flow-align", "interpolation", "uni-edit", "ledits")


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def latent(request):
    """Make a cascade of a tiny pipeline with an autoencoder, whose clean end holds a little noise, and an inversion."""
    cascade = iterinv.load(getattr(published, request.param)())
    values = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(2))
    return cascade, cascade.invert(values / 127.5 - 1, PROMPT, "bdia", 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_latent_stage_keeps_every_8_bit_pixel_outside_the_region(latent, name):
    cascade, inversion = latent
    half = torch.zeros(1, 1, 64, 64)
    half[..., :32] = 1
    edit, before = cascade.edit(inversion, TARGET, EDITORS[name](region=Given(half))), to_uint8(inversion.picture)
    changed = (to_uint8(edit.pictures[0]) != before).any(-1)
    outside = edit.masks[0][0, 0].numpy() == 0
    assert outside.any()
    assert changed.any()
    assert not changed[outside].any()

"""Each refinement reaches its goal and avoids the known mistakes of public code."""

from dataclasses import replace

import pytest
import torch

from iterinv import guidance
from iterinv.cascade import Cascade, load
from iterinv.conditions import Condition
from iterinv.edits import PromptSwap
from iterinv.guidance import unguided
from iterinv.inverters import Relax, Solve, Undo
from iterinv.levels import Prediction
from iterinv.methods import plan
from iterinv.models import Stage
from iterinv.models.toy import gaussian
from iterinv.plans import Plan, Refinement
from iterinv.refine import NullText, Offsets, Proximal
from iterinv.roots import Anderson, FixedPoint
from iterinv.schedules import from_config
from iterinv.steps import BDIA, DDIM, DDPM, DPMPP2M, EDICT, Reversible

from conftest import draw, result

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
STABLE |= {"steps_offset": 1, "set_alpha_to_one": False}
PROMPT = "a red sphere on a wooden floor"


@pytest.fixture
def photo():
    values = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(2))
    return values.float() / 127.5 - 1


class Unfitted(Refinement):
    """An empty refinement: the inversion is made without guidance, as for a real one."""

    def __call__(self, stage, stage_inversion):
        return stage_inversion


def missed(inversion, x):
    return float((inversion.picture - x).square().mean())


def test_null_text_keeps_a_guided_rerun_nearer_to_the_path(first, photo):
    solved = Plan(DDIM(), Solve(Anderson()), steps=6, guidance=7.0)
    bare = first.invert(photo, PROMPT, replace(solved, refine=Unfitted()))
    fitted = first.invert(photo, PROMPT, replace(solved, refine=NullText(30, 1e-2, 0.0, 0.0)))
    assert missed(fitted, photo) < 0.6 * missed(bare, photo)
    assert fitted.stages[0].report.backward == 6 * 30
    nulls = fitted.stages[0].guidance.nulls
    assert list(nulls) == list(fitted.stages[0].grid[:-1])
    assert len({float(null.sum()) for null in nulls.values()}) == 6


def test_null_text_takes_one_step_where_it_is_near_and_carries_its_embedding_on(first, photo):
    stage_inversion = first.invert(
        photo, PROMPT, Plan(DDIM(), Solve(Anderson()), NullText(10, 1e-2, 1e9, 0.0), 4, 5.0)
    ).stages[0]
    assert stage_inversion.report.backward == 4
    nulls = list(stage_inversion.guidance.nulls.values())
    for j, (before, after) in enumerate(
        zip([stage_inversion.negative["text"].expand(2, -1, -1), *nulls[:-1]], nulls, strict=True)
    ):
        # Adam's first step is as long as its rate, wherever the gradient is not small beside its epsilon.
        assert float((after - before).abs().max()) == pytest.approx(1e-2 * (1 - j / 8), rel=0.05)


def test_null_text_needs_no_fitting_without_guidance(first, photo):
    plain = first.invert(photo, PROMPT, plan("ddim", 4))
    fitted = first.invert(photo, PROMPT, plan("null-text", 4))
    assert torch.equal(plain.picture, fitted.picture)
    assert fitted.stages[0].report.backward == 0


def test_the_published_settings_of_null_text():
    assert NullText() == NullText(10, 1e-2, 1e-5, 2e-5)
    assert NullText.as_iterinv() == NullText(51, 1e-3, 0.0, 0.0, total=True)


@pytest.mark.parametrize("method", ["negative-prompt", "proximal"])
def test_under_the_same_words_guidance_changes_nothing(first, photo, method):
    """The negative half is not computed then."""
    plain = first.invert(photo, PROMPT, plan("ddim", 5))
    for scale in (3.0, 9.0):
        guided = first.invert(photo, PROMPT, plan(method, 5, scale))
        assert torch.equal(guided.picture, plain.picture)
        assert guided.stages[0].report.forward == plain.stages[0].report.forward


def test_proximal_thresholds_are_the_intended_ones():
    """Public code takes the soft map for l0, and for l1 one that is not odd: it turns -1.5 into +0.5 at a threshold of
    1."""
    difference = torch.tensor([-3.0, -1.5, -0.5, 0.0, 0.25, 0.5, 1.0, 1.5, 3.0]).reshape(1, 1, 3, 3)
    # |d| in order: 0 .25 .5 .5 1 1.5 1.5 3 3; the quantile 0.5 is 1
    hard, soft = (guidance.Proximal(1.0, 0.5, hard).threshold(difference).flatten().tolist() for hard in (True, False))
    assert hard == [-3.0, -1.5, 0, 0, 0, 0, 0, 1.5, 3.0]
    assert soft == [-2.0, -0.5, 0, 0, 0, 0, 0, 0.5, 2.0]
    assert torch.equal(
        guidance.Proximal(1.0, 0.5, False).threshold(-difference), -torch.tensor(soft).reshape(1, 1, 3, 3)
    )


def test_proximal_takes_the_quantile_of_each_picture_by_itself():
    small = torch.randn(1, 3, 8, 8)
    together = guidance.Proximal().threshold(torch.cat([small, 100 * small]))
    assert torch.equal(together[:1], guidance.Proximal().threshold(small))
    torch.testing.assert_close(together[1:], 100 * together[:1])
    with pytest.raises(ValueError, match="quantile is 1"):
        Proximal(1.0)


def test_proximal_guidance_lets_small_differences_alone(first):
    stage, x = first.stages[0], torch.randn(1, 3, 16, 16)
    a, b = (stage.condition(words) for words in (PROMPT, "a blue cube on a plain floor"))
    level = stage.schedule.level(400)
    with torch.no_grad():
        source = unguided(stage.denoiser, a)(x, level)
        mixed = guidance.Proximal(3.0)(stage.denoiser, b, a)(x, level)
    torch.testing.assert_close(mixed.at(level), x, rtol=0, atol=1e-5)  # a pair for the same sample
    same = ((mixed.eps - source.eps).abs() < 1e-6).float().mean()
    assert 0.6 < float(same) < 0.8


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_offsets_make_any_path_exact(first, photo, scale):
    inversion = first.invert(photo, PROMPT, Plan(DDIM(), Solve(FixedPoint(1)), Offsets(), 6, scale))
    stage_inversion = inversion.stages[0]
    assert float((inversion.picture - photo).abs().max()) < 1e-5
    assert stage_inversion.report.residual_max < 1e-5
    assert len(stage_inversion.offsets) == 6
    assert stage_inversion.offsets[0].dtype == torch.float32


def test_edit_friendly_noise_maps_are_ddpms(first, photo):
    """Undo DDPM's step by hand: (x_b - mu(x_a)) / sqrt(v) is the map; maps of a path of independent noises are no N(0,
    1)."""
    stage_inversion = first.invert(photo, PROMPT, plan("edit-friendly", 10)).stages[0]
    stage, grid = first.stages[0], stage_inversion.grid
    field = unguided(stage.denoiser, stage_inversion.condition)
    spreads = []
    for i in range(9):
        a, b = grid[i], grid[i + 1]
        with torch.no_grad():
            e = field(stage_inversion.path[i].double(), a).eps
            mean = DDPM().step(field, (stage_inversion.path[i].double(),), grid, i)[0]
        v = (b.sigma / a.sigma) ** 2 * (1 - (a.alpha / b.alpha) ** 2)
        x0 = (stage_inversion.path[i] - a.sigma * e) / a.alpha
        torch.testing.assert_close(mean, b.alpha * x0 + (b.sigma**2 - v) ** 0.5 * e, rtol=0, atol=1e-6)
        torch.testing.assert_close(
            mean + stage_inversion.offsets[i], stage_inversion.path[i + 1].double(), rtol=0, atol=1e-5
        )
        spreads.append(float((stage_inversion.offsets[i] / v**0.5).std()))
    assert max(spreads) > 1.2
    noises = [
        (x - level.alpha * stage_inversion.path[-1]) / level.sigma
        for x, level in zip(stage_inversion.path[:-1], grid[:-1], strict=True)
    ]
    mixed = torch.stack([noise[0].flatten() for noise in noises]).corrcoef()
    assert float((mixed - torch.eye(10)).abs().max()) < 0.2  # every level has an independent draw


def test_an_edit_friendly_edit_runs_its_own_noise_maps(tiny):
    """Under the same words they lead back to the picture from any level, which no other rule does from such states."""
    values = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(3))
    x = values.float() / 127.5 - 1
    inversion = tiny.invert(x, PROMPT, plan("edit-friendly", 8))
    same = tiny.edit(inversion, PROMPT, PromptSwap(strength=0.6))
    other = tiny.edit(inversion, "a blue cube on a plain floor", PromptSwap(strength=0.6))
    torch.testing.assert_close(same.pictures[-1].float(), x, rtol=0, atol=1e-4)
    assert same.reports[0]["rule"] == "DDPM"
    assert float((other.pictures[0] - same.pictures[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("refine", [Offsets(), NullText(), Proximal()])
@pytest.mark.parametrize("rule", [BDIA(), EDICT(), DPMPP2M()])
def test_refinements_of_rules_that_remember_are_refused(rule, refine):
    with pytest.raises(ValueError, match="needs a one-step rule"):
        Plan(rule, Undo() if isinstance(rule, Reversible) else Relax(), refine)


def test_a_null_text_inversion_is_edited_by_its_own_embeddings(first, photo):
    x = photo[:1]
    fitted, plain = (first.invert(x, PROMPT, plan(method, 5, g)) for method, g in (("null-text", 5.0), ("ddim", 1.0)))
    same = first.edit(fitted, PROMPT, PromptSwap(strength=1.0))
    assert (same.reports[0]["rule"], same.reports[0]["guidance"]) == ("DDIM", 5.0)
    torch.testing.assert_close(same.pictures[0].double(), fitted.picture.double(), rtol=0, atol=1e-4)
    assert not torch.equal(first.edit(plain, PROMPT, PromptSwap(strength=1.0)).pictures[0], same.pictures[0])


@pytest.mark.parametrize("refine", [NullText(), NullText.as_iterinv()])
def test_null_text_slows_down_and_grows_lenient_as_published(first, photo, monkeypatch, refine):
    """The rate is (1 - j / (2 N)) and the tolerance grows by slope j; j counts the paper's 50 steps from the noisy
    end."""
    calls = []

    def fit(self, guided, known, null, rate, limit):
        calls.append((rate, limit))
        return null

    monkeypatch.setattr(NullText, "_fit", fit)
    first.invert(photo, PROMPT, replace(plan("null-text", 5, 3.0), refine=refine))
    assert [rate for rate, _ in calls] == pytest.approx([refine.rate * (1 - j / 10) for j in range(5)])
    assert [limit for _, limit in calls] == pytest.approx([refine.tolerance + refine.slope * 10 * j for j in range(5)])


WIDTH = 6


def worded(size=8):
    """Make a stage whose noise depends on the words, in float64, so that two arithmetics can agree to 1e-12."""

    def denoiser(x, level, condition):
        text = condition["text"]
        bend = (
            torch.tanh(text.mean(1)).mean(1)[:, None, None, None]
            + 0.3 * torch.sin(text.sum((1, 2)))[:, None, None, None]
        )
        eps = gaussian()(x, level).eps + 0.1 * bend * torch.cos(3 * x + bend)
        return Prediction.from_eps(x, level, eps)

    def embed(prompts):
        values = [draw((1, 4, WIDTH), len(prompt or "")).double() for prompt in prompts]
        return Condition({"text": torch.cat(values)})

    return Stage("I", size, denoiser, from_config(STABLE), embed, "worded")


def published_null_text(stage, plan, path, rate, iterations, tolerance, slope, reduction):
    """Run the released loop (Mokady et al., 2023) on tensors of alphas by label: per level it predicts the noise of the
    prompt once and makes a new Adam, takes a step, and then tests the loss from before it."""
    negative, positive = stage.embed([""])["text"], stage.embed([PROMPT])["text"]
    table, labels = stage.schedule.alphas_cumprod, [int(level.t) for level in plan.check(stage)[:-1]]
    before = [*labels[1:], None]
    z, null, nulls, steps = path[0], negative, [], 0

    def noise(z, t, words):
        return stage.denoiser(z, stage.schedule.level(t), Condition({"text": words})).eps

    def earlier(z, e, t, s):
        now, then = table[t], table[s] if s is not None else stage.schedule.clean
        clean = (z - (1 - now) ** 0.5 * e) / now**0.5
        return then**0.5 * clean + (1 - then) ** 0.5 * e

    for j, (t, s) in enumerate(zip(labels, before, strict=True)):
        with torch.no_grad():
            worded = noise(z, t, positive)
        with torch.enable_grad():
            null = null.clone().detach().requires_grad_(True)
            adam = torch.optim.Adam([null], lr=rate * (1 - j / 100))
            for _ in range(iterations):
                empty = noise(z, t, null)
                guided = empty + plan.guidance * (worded - empty)
                loss = torch.nn.functional.mse_loss(earlier(z, guided, t, s), path[j + 1], reduction=reduction)
                adam.zero_grad()
                loss.backward()
                adam.step()
                steps += 1
                if float(loss) < tolerance + j * slope:
                    break
        null = null.detach()
        nulls.append(null)
        empty = noise(z, t, null)
        z = earlier(z, empty + plan.guidance * (worded - empty), t, s)
    return nulls, z, steps


@pytest.mark.parametrize(
    ("refine", "settings"),
    [
        (NullText(), (1e-2, 10, 1e-5, 2e-5, "mean")),
        (replace(NullText.as_iterinv(), iterations=4), (1e-3, 4, 0.0, 0.0, "sum")),
    ],
    ids=["published", "iterinv"],
)
def test_null_text_is_the_released_loop_step_for_step(refine, settings):
    """Over the 50 published steps both take as many steps of Adam and reach the same embeddings and picture."""
    stage = worded()
    how = Plan(DDIM(), Solve(FixedPoint(1)), refine, 50, 7.5)
    x = draw((1, 3, 8, 8), 5).clamp(-2, 2) / 2
    stage_inversion = Cascade((stage,)).invert(x, PROMPT, how).stages[0]
    walk = result(
        Solve(FixedPoint(1))(DDIM(), unguided(stage.denoiser, stage.condition(PROMPT)), x.double(), how.check(stage))
    )
    with torch.no_grad():
        nulls, clean, steps = published_null_text(stage, how, walk.path, *settings)
    assert stage_inversion.report.backward == steps
    if refine.tolerance:
        assert 50 <= steps < 500  # some levels stop early, and none takes no step
    for ours, theirs in zip(stage_inversion.guidance.nulls.values(), nulls, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
    torch.testing.assert_close(stage_inversion.picture, clean, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision_is_fitted_by_adam_in_float32(tiny_folder, tmp_path, photo, dtype):
    """Steps of 1e-3 are lost in bfloat16, and in float16 Adam's epsilon of 1e-8 is 0. A file holds them as they are."""
    how = Plan(DDIM(), Solve(FixedPoint(1)), replace(NullText.as_iterinv(), iterations=5), 4, 7.5)
    moved = []
    for kind in (torch.float32, dtype):
        cascade = load(str(tiny_folder), dtype=kind).up_to(16)
        inversion = cascade.invert(photo[:1], PROMPT, how)
        nulls = torch.stack(list(inversion.stages[0].guidance.nulls.values()))
        assert nulls.dtype == torch.float32
        moved.append(nulls - inversion.stages[0].negative["text"].float())
    assert float((moved[0] - moved[1]).square().mean().sqrt() / moved[0].square().mean().sqrt()) < 0.1
    inversion.save(tmp_path / "a.safetensors")
    again = cascade.open(tmp_path / "a.safetensors").stages[0].guidance.nulls.values()
    assert torch.equal(torch.stack(list(again)), nulls)


def test_a_batch_is_fitted_as_each_picture_alone():
    """One picture may be near long before another."""
    stage, how = worded(), Plan(DDIM(), Solve(FixedPoint(1)), NullText(), 10, 7.5)
    x = torch.cat([draw((1, 3, 8, 8), 5).clamp(-2, 2) / 2, torch.full((1, 3, 8, 8), 0.31)])
    both = Cascade((stage,)).invert(x, [PROMPT, "a cube"], how).stages[0]
    for k, prompt in enumerate((PROMPT, "a cube")):
        alone = Cascade((stage,)).invert(x[k : k + 1], prompt, how).stages[0]
        for ours, theirs in zip(both.guidance.nulls.values(), alone.guidance.nulls.values(), strict=True):
            torch.testing.assert_close(ours[k : k + 1], theirs, rtol=0, atol=1e-12)

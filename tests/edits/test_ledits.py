"""Several edits at once agree with a second implementation and with the algebra of their weights, signs and masks."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import published
from iterinv.cascade import Cascade
from iterinv.edits import Concept, Everywhere, LEdits, Site
from iterinv.levels import Prediction
from iterinv.models.attention import Changes, changed, layers_of, network_of
from iterinv.models.toy import gaussian

from conftest import Hearing, draw, result

PROMPT, TARGET, STEPS = "a red ball", "a blue cube", 4
BLUE, WALL = Concept("a blue ball", 3.0, 0.6), Concept("a green wall", -2.0, 0.3)


def photos(size):
    return draw((2, 3, size, size), 1).clamp(-1, 1)


@pytest.fixture(scope="module", params=["added", "sd", "sdxl"])
def inverted(request, tiny):
    """Return a cascade of one stage, and two pictures inverted by independent noises under guidance."""
    cascade = published.single(request.param, tiny)
    prompts = [PROMPT, "a green cone"]
    return cascade, cascade.invert(photos(cascade.size), prompts, "edit-friendly", STEPS, 2.0)


added = pytest.mark.parametrize("inverted", ["added"], indirect=True)


def edited(inverted, *concepts, targets=TARGET, **settings):
    cascade, inversion = inverted
    return cascade.edit(inversion, targets, LEdits(concepts=concepts, **settings)).pictures[0]


def reconstruction(inverted):
    cascade, inversion = inverted
    return cascade.stages[0].decode(inversion.stages[0].path[-1]).clamp(-1, 1)


def attention_of(cascade, prompt, x, a):
    """Return the smoothed attention (h', w') to the words of a prompt in the layers nearest 16 x 16, for one sample."""
    stage, seen = cascade.stages[0], {}
    words = [k for k, (start, end) in enumerate(stage.tokens(prompt).spans) if end > start]

    def look(call):
        scores = call.module.scale * call.query @ call.key[:, :, : call.text].transpose(-1, -2)
        seen.setdefault(call.positions, []).append(torch.softmax(scores, -1)[0, :, :, words].sum(-1).mean(0))
        return call.fused()

    network = network_of(stage.denoiser)
    with torch.no_grad(), changed(network, Changes({layer: look for layer in layers_of(network) if layer.text})):
        stage.denoiser(x, a, stage.condition(prompt))
    positions = min(seen, key=lambda count: abs(count - 256))
    side = math.isqrt(positions)
    heat = F.pad(sum(seen[positions]).reshape(1, 1, side, side), (1, 1, 1, 1), mode="replicate")
    gauss = torch.tensor([[math.exp(-(i * i + j * j) / (2 * 0.5**2)) for i in (-1, 0, 1)] for j in (-1, 0, 1)])
    return F.conv2d(heat, (gauss / gauss.sum())[None, None].to(heat))


def mask_of(heat, threshold):
    return (heat >= torch.quantile(heat.double(), threshold)).double()


@pytest.mark.parametrize("attention", [True, False])
def test_the_edit_is_that_of_the_equation(inverted, attention):
    """The oracle runs each picture alone, step by step, with torch's quantiles and probabilities of its own."""
    cascade, inversion = inverted
    (stage,) = cascade.stages
    mask = torch.rand(1, 1, *stage.shape[1:], generator=torch.Generator().manual_seed(3))
    concepts = BLUE, replace(WALL, warm_up=0.5, mask=mask)
    edit = edited(inverted, *concepts, strength=0.75, cross_attention=attention)
    for k in range(2):
        row = inversion.stages[0].row(k)
        empty, source = stage.with_prompt(row.condition, None), row.condition
        grid, x = row.grid, row.path[1].double()
        for i in range(1, STEPS):
            a = grid[i]
            with torch.no_grad():
                none, prompt = (stage.denoiser(x, a, each).eps for each in (empty, source))
                eps = none + 2.0 * (prompt - none)
                for concept in concepts if i >= 3 else concepts[:1]:
                    difference = stage.denoiser(x, a, stage.condition(concept.prompt)).eps - none
                    m = mask_of(difference.abs().sum(1, keepdim=True), concept.threshold)
                    if attention:
                        heat = mask_of(attention_of(cascade, concept.prompt, x, a), concept.threshold)
                        m = m * F.interpolate(heat, x.shape[2:], mode="nearest")
                    if concept.mask is not None:
                        m = m * concept.mask
                    assert 0 < float(m.mean()) < 1
                    eps = eps + concept.weight * m * difference
            (x,) = row.rule.step(lambda x, a, eps=eps: Prediction.from_eps(x, a, eps), (x,), grid, i)
        expected = stage.decode(x).clamp(-1, 1)
        torch.testing.assert_close(edit[k : k + 1].double(), expected.double(), rtol=0, atol=1e-4)
        assert float((edit[k] - reconstruction(inverted)[k]).abs().max()) > 1e-2


@pytest.mark.parametrize(
    "settings",
    [
        {"guidance": 0.0},
        {"concepts": (replace(BLUE, weight=0.0),)},
        {"concepts": (replace(BLUE, warm_up=1.0),)},
        {"concepts": (replace(BLUE, mask=torch.zeros(1, 1, 3, 3)), replace(WALL, mask=torch.zeros(2, 1, 8, 8)))},
        {"concepts": (BLUE, replace(BLUE, weight=-BLUE.weight))},
    ],
    ids=["guidance 0", "weight 0", "warm-up 1", "mask of zeros", "opposite signs"],
)
def test_where_nothing_guides_the_picture_comes_back(inverted, settings):
    cascade, inversion = inverted
    edit = cascade.edit(inversion, TARGET, LEdits(**settings)).pictures[0]
    torch.testing.assert_close(edit, reconstruction(inverted).to(edit), rtol=0, atol=1e-4)


@added
def test_weights_add_up_and_a_sign_is_a_direction(inverted):
    plain = replace(BLUE, threshold=0.0)
    whole, half = edited(inverted, plain), replace(plain, weight=plain.weight / 2)
    assert torch.equal(edited(inverted, half, half), whole)
    torch.testing.assert_close(edited(inverted, WALL, plain), edited(inverted, plain, WALL), rtol=0, atol=1e-5)
    back = edited(inverted, replace(plain, weight=-plain.weight))
    ours, theirs = (x - reconstruction(inverted) for x in (whole, back))
    assert float(F.cosine_similarity(ours.flatten(), theirs.flatten(), 0)) < -0.5


@added
def test_without_concepts_the_target_prompt_is_the_only_one(inverted):
    targets = [TARGET, "a green wall"]
    edit = edited(inverted, targets=targets, guidance=3.0)
    for k, target in enumerate(targets):
        torch.testing.assert_close(edit[k], edited(inverted, Concept(target, 3.0))[k], rtol=0, atol=1e-6)


def test_a_batch_is_each_alone_with_its_own_mask(inverted):
    cascade, inversion = inverted
    masks = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    together = cascade.edit(inversion, TARGET, LEdits(concepts=(replace(BLUE, mask=masks), WALL)))
    for k in range(2):
        editor = LEdits(concepts=(replace(BLUE, mask=masks[k : k + 1]), WALL))
        alone = cascade.edit(inversion.row(k), TARGET, editor)
        assert alone.reports[0] == together.reports[k]
        torch.testing.assert_close(alone.pictures[0][0], together.pictures[0][k], rtol=0, atol=1e-5)


@added
def test_a_concept_changes_nothing_outside_its_mask_where_the_network_sees_no_further(inverted):
    """A network that works pixel by pixel keeps every pixel outside the mask."""
    cascade, inversion = inverted
    (stage,) = cascade.stages

    def pixels(x, a, condition):
        return gaussian(condition["text"].double().flatten(1).sum(1).sin().reshape(-1, 1, 1, 1), 0.5)(x, a)

    known = Cascade((replace(stage, denoiser=pixels),))
    inversion = known.invert(photos(16), PROMPT, "edit-friendly", STEPS)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    edit = known.edit(inversion, TARGET, LEdits(concepts=(Concept(TARGET, 2.0, 0.0, mask=mask),)))
    change = (edit.pictures[0] - photos(16)).abs()
    assert float(change[..., 8:].max()) < 1e-5
    assert float(change[..., :8].mean()) > 0.02
    assert edit.reports[0]["cross_attention"] is False


@added
def test_along_other_paths_its_rule_runs_and_the_report_says_the_concepts(inverted):
    cascade, _ = inverted
    inversion = cascade.invert(photos(16), PROMPT, "bdia", STEPS)
    (stage,) = cascade.stages
    site = Site(stage, inversion.stages[0], stage.condition(TARGET), (PROMPT,) * 2, (TARGET,) * 2)
    for report in result(LEdits(0.5, concepts=(BLUE, WALL))(site)).reports:
        assert report == {
            "rule": "DDIM",
            "strength": 0.5,
            "cross_attention": True,
            "concepts": [{"prompt": "a blue ball", "weight": 3.0}, {"prompt": "a green wall", "weight": -2.0}],
        }


@added
@pytest.mark.parametrize(("concepts", "calls"), [((), 3), ((BLUE, WALL), 4), ((replace(BLUE, weight=0.0),), 1)])
def test_predictions_of_a_step_are_the_inversions_the_empty_prompts_and_one_a_concept(inverted, concepts, calls):
    cascade, _ = inverted
    inversion, rows = cascade.invert(photos(16)[:1], PROMPT, "edit-friendly", STEPS), []
    (stage,) = cascade.stages

    class Counted:
        network = stage.denoiser.network

        def __call__(self, x, a, condition):
            rows.append(len(x))
            return stage.denoiser(x, a, condition)

    counted = replace(stage, denoiser=Counted())
    site = Site(counted, inversion.stages[0], stage.condition(TARGET), (PROMPT,), (TARGET,))
    states = list(LEdits(concepts=concepts)(site))
    assert sum(rows) == calls * (len(states) - 1)


@added
def test_what_does_not_fit_is_refused_before_any_call(inverted):
    cascade, inversion = inverted
    stage = cascade.stages[0]
    blind = replace(stage, denoiser=lambda *given: stage.denoiser(*given))
    three = replace(BLUE, mask=torch.ones(3, 1, 8, 8))
    for used, editor, target, words in (
        (stage, LEdits(), " ", "the prompt of a concept is empty"),
        (stage, LEdits(concepts=(three,)), TARGET, "has masks of 3 pictures, and there are 2: give one for each"),
        (blind, LEdits(cross_attention=True), TARGET, "stage I has no attention to text, which cross_attention=True"),
        (replace(stage, tokens=None), LEdits(cross_attention=True), TARGET, "does not say which tokens its words are"),
    ):
        heard = Hearing()
        with pytest.raises(ValueError, match=words):
            Cascade((used,)).edit(inversion, target, editor, observer=heard)
        assert heard.calls == []


def test_settings_are_checked():
    for name, odd in (("prompt", 5), ("weight", "x"), ("threshold", 1.5), ("warm_up", -0.1), ("mask", [1])):
        with pytest.raises((TypeError, ValueError), match=f"{name} is"):
            Concept(**{"prompt": "a cat", name: odd})
    with pytest.raises(ValueError, match="the prompt of a concept is empty"):
        Concept("")
    with pytest.raises(ValueError, match=r"a mask is \(batch or 1, 1, h, w\), not \(8, 8\)"):
        Concept("a cat", mask=torch.ones(8, 8))
    for odd in (2.0, math.nan):
        with pytest.raises(ValueError, match="'a cat' has values outside"):
            Concept("a cat", mask=torch.full((1, 1, 2, 2), odd))
    with pytest.raises(TypeError, match=r"concepts\[0\] is 'a cat'"):
        LEdits(concepts=("a cat",))
    for odd in (0.0, 1.5):
        with pytest.raises(ValueError, match="strength is"):
            LEdits(strength=odd, region=Everywhere())

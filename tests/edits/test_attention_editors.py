"""Attention editors on real diffusers networks: with added keys (IF), and plain (Stable Diffusion, SDXL)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

import published
from iterinv.cascade import Cascade
from iterinv.edits import EDITORS, MasaCtrl, Pix2PixZero, PlugAndPlay, PromptSwap, PromptToPrompt, Site
from iterinv.edits.attention import AttentionEditor, Run, level_index
from iterinv.edits.masactrl import Mutual
from iterinv.edits.pix2pix_zero import KeepMaps
from iterinv.edits.plug_and_play import Layout
from iterinv.edits.prompt_to_prompt import Injected, Maps
from iterinv.levels import Prediction
from iterinv.models.attention import Attended, Changes, changed, layers_of, network_of
from iterinv.steps import DDIM

from conftest import Hearing, draw

PROMPT, TARGET, LONGER = "a red ball", "a blue cube", "a large blue cube on a wooden floor"
NAMES = [name for name, made in EDITORS.items() if isinstance(made, type) and issubclass(made, AttentionEditor)]
STEPS = 3


@pytest.fixture(scope="module", params=["added", "sd", "sdxl"])
def inverted(request, tiny):
    """Return a cascade of one stage, and two pictures with a path whose own rule leads to them by any network."""
    cascade = published.single(request.param, tiny)
    x = draw((2, 3, cascade.size, cascade.size), 1).clamp(-1, 1)
    return cascade, cascade.invert(x, [PROMPT, "a green cone"], "edit-friendly", STEPS)


def clean(cascade, inversion):
    """Return the pictures of the clean states, without what a codec lost."""
    return cascade.stages[0].decode(inversion.stages[0].path[-1]).clamp(-1, 1)


def site_of(cascade, inversion, target, k=0):
    stage, row = cascade.stages[0], inversion.stages[0].row(k)
    return Site(stage, row, stage.condition(target), inversion.prompts[k : k + 1], (target,))


def edited(cascade, inversion, targets, editor):
    return cascade.edit(inversion, targets, editor).pictures[0]


def sharing(cascade, control, prompts=(PROMPT, TARGET)):
    """Run a network on a source row, a row between and a target row, with a control in all layers."""
    stage = cascade.stages[0]
    network, condition = network_of(stage.denoiser), stage.condition([prompts[0], prompts[0], prompts[1]])
    x = draw((3, *stage.shape), 5).double()
    with torch.no_grad(), changed(network, Changes(dict.fromkeys(layers_of(network), control))):
        return stage.denoiser(x, stage.schedule.grid(STEPS)[1], condition)


def by_softmax(query, key, value, module):
    return torch.softmax(module.scale * query @ key.transpose(-1, -2), -1) @ value


RUN = Run(0, STEPS, 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_prompt_is_the_reconstruction_and_another_is_not(inverted, name):
    cascade, inversion = inverted
    own = edited(cascade, inversion, list(inversion.prompts), EDITORS[name](guidance=3.0))
    torch.testing.assert_close(own, clean(cascade, inversion).to(own), rtol=0, atol=1e-4)
    other = edited(cascade, inversion, [LONGER, TARGET], EDITORS[name]())
    assert float((other - own).abs().max()) > 1e-3


@pytest.mark.parametrize("inverted", ["sd"], indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_each_alone(inverted, name):
    cascade, inversion = inverted
    together = cascade.edit(inversion, [LONGER, TARGET], name)
    for k, target in enumerate([LONGER, TARGET]):
        alone = cascade.edit(inversion.row(k), target, name)
        assert alone.reports[0] == together.reports[k]
        torch.testing.assert_close(alone.pictures[0][0], together.pictures[0][k], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "nothing",
    [
        PromptToPrompt(cross_share=0, self_share=0),
        PlugAndPlay(tau_f=0, tau_A=0),
        MasaCtrl(start_step=STEPS),
        MasaCtrl(start_layer=1000),
        Pix2PixZero(cross_attention_guidance=0, guidance=7.5),
    ],
    ids=lambda editor: f"{type(editor).__name__} {getattr(editor, 'start_layer', '')}",
)
def test_an_editor_that_changes_no_layer_is_prompt_swap(inverted, nothing):
    cascade, inversion = inverted
    inversion = inversion.row(0)
    assert torch.equal(
        edited(cascade, inversion, LONGER, nothing), edited(cascade, inversion, LONGER, PromptSwap(1.0, 7.5))
    )


def test_masactrl_attends_to_the_image_of_the_source_and_its_own_text(inverted):
    cascade, _ = inverted
    mutual = Mutual(RUN)

    def control(call):
        text = call.text
        key, value = (torch.cat([x[-1:, :, :text], x[:1, :, text:]], 2) for x in (call.key, call.value))
        expected = by_softmax(call.query[-1:], key, value, call.module)
        torch.testing.assert_close(mutual(call)[-1:], expected, rtol=0, atol=1e-6)
        return call.fused()

    sharing(cascade, control)


def test_plug_and_play_weighs_own_values_by_the_maps_of_the_source(inverted):
    cascade, _ = inverted
    layout = Layout(RUN)

    def control(call):
        out = layout(call)
        if not call.text:
            expected = call.maps()[:1] @ call.value
            torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
        elif call.layer.image:
            key = torch.cat([call.key[-1:, :, : call.text], call.key[:1, :, call.text :]], 2)
            expected = by_softmax(call.query[:1], key, call.value[-1:], call.module)
            torch.testing.assert_close(out[-1:], expected, rtol=0, atol=1e-6)
        return call.fused()

    sharing(cascade, control)


def shortcut(resnet, x):
    return x if resnet.conv_shortcut is None else resnet.conv_shortcut(x)


def test_plug_and_play_injects_features_of_the_second_block_of_the_decoder(inverted):
    cascade, inversion = inverted
    network, branches = network_of(cascade.stages[0].denoiser), []
    resnet = next(block for block in network.up_blocks if getattr(block, "attentions", None)).resnets[1]
    hook = resnet.register_forward_hook(lambda _, given, out: branches.append(out - shortcut(resnet, given[0])))
    try:
        cascade.edit(inversion.row(0), LONGER, PlugAndPlay(tau_f=0.7, tau_A=0))
    finally:
        hook.remove()
    assert [len(each) for each in branches] == [3, 3, 2]  # no source row where nothing is taken from it
    for each in branches[:2]:
        torch.testing.assert_close(each, each[:1].expand_as(each), rtol=0, atol=1e-6)
    assert not torch.allclose(branches[2][:1], branches[2][1:], rtol=0, atol=1e-3)


def used_maps(injected, call):
    """Return the maps (heads, positions, keys) of the target row that a control weighs values by."""
    keys = call.key.shape[2]
    eye = torch.eye(keys, dtype=call.value.dtype).expand(*call.value.shape[:2], keys, keys)
    return injected(Attended(call.layer, call.text, call.query, call.key, eye, call.module))[-1]


def words_of(cascade, source, target, **settings):
    editor = PromptToPrompt(**settings)
    stage = cascade.stages[0]
    return editor.words(Site(stage, None, None, (source,), (target,)), source, target)


def test_full_replacement_is_the_source_rows_maps(inverted):
    """The target row weighs its own values by the maps of the source row, in every layer."""
    cascade, _ = inverted
    injected = Injected(words_of(cascade, PROMPT, PROMPT), None, True, True)

    def control(call):
        out = injected(call)
        torch.testing.assert_close(out[-1], call.maps()[0] @ call.value[-1], rtol=0, atol=1e-6)
        torch.testing.assert_close(out[:-1], call.fused()[:-1], rtol=0, atol=1e-6)
        return out

    sharing(cascade, control, (PROMPT, PROMPT))


@pytest.mark.parametrize("itself", [False, True])
def test_refined_maps_are_the_sources_for_common_words_and_sum_to_one_with_the_images(inverted, itself):
    cascade, _ = inverted
    tokenize = cascade.stages[0].tokens
    injected = Injected(words_of(cascade, PROMPT, LONGER), None, True, itself)
    pairs = tokenize(PROMPT).common(tokenize(LONGER))
    assert injected.words.mode == "refine"
    new = [k for k in range(77) if k not in {b for _, b in pairs}]
    assert new

    def control(call):
        if call.text:
            maps, used = call.maps(), used_maps(injected, call)
            scale = maps.new_ones(1)
            if call.layer.image:
                torch.testing.assert_close(used.sum(-1), torch.ones_like(used[..., 0]), rtol=0, atol=1e-6)
                image = maps[0 if itself else -1, ..., call.text :]
                shape = [x / x.sum(-1, keepdim=True) for x in (used[..., call.text :], image)]
                torch.testing.assert_close(*shape, rtol=0, atol=1e-6)
                total = maps[0, ..., [a for a, _ in pairs]].sum(-1) + maps[-1, ..., new].sum(-1)
                scale = total.clamp_min(1)[..., None]
            for row, old, places in ((0, [a for a, _ in pairs], [b for _, b in pairs]), (-1, new, new)):
                torch.testing.assert_close(used[..., places] * scale, maps[row, ..., old], rtol=0, atol=1e-6)
        return call.fused()

    sharing(cascade, control, (PROMPT, LONGER))


def test_reweighting_adds_to_what_a_word_says(inverted):
    cascade, _ = inverted
    plain, more = (
        Injected(words_of(cascade, PROMPT, TARGET, reweight=weights), None, True, False)
        for weights in ({}, {"blue": 3})
    )
    tokens = cascade.stages[0].tokens(TARGET).of("blue")

    def control(call):
        if call.text:
            expected = used_maps(plain, call).clone()
            expected[..., tokens] *= 3
            torch.testing.assert_close(used_maps(more, call), expected, rtol=0, atol=1e-6)
        return call.fused()

    sharing(cascade, control)


def test_the_blend_restores_the_picture_outside_the_words_that_change(inverted):
    cascade, inversion = inverted
    how = {"local_blend": True, "blend_threshold": 0.97, "guidance": 3.0}
    if cascade.stages[0].codec is not None:
        how["blend_threshold"] = 0.999
    edit = cascade.edit(inversion.row(0), TARGET, PromptToPrompt(**how))
    (mask,), original = edit.masks, inversion.stages[0].origin.picture[:1]
    assert 0 < float(mask.mean()) < 1
    outside = (mask == 0).expand_as(original)
    assert torch.equal(edit.pictures[0][outside].float(), original[outside].float())
    assert not torch.equal(edit.pictures[0][~outside], original[~outside].to(edit.pictures[0]))
    same = edited(cascade, inversion.row(0), PROMPT, PromptToPrompt(local_blend=True))
    torch.testing.assert_close(same, original.to(same), rtol=0, atol=1e-6)  # no word changes
    named = PromptToPrompt(local_blend=True, blend_words=("ball",))
    words = named.words(site_of(cascade, inversion, TARGET), PROMPT, TARGET)
    assert words.changed == (tuple(cascade.stages[0].tokens(PROMPT).of("ball")), ())


def test_the_blends_mask_is_where_either_prompts_words_look():
    class Two:
        changed = ((0,), (1, 2))

    maps = Maps(Two(), (8, 8))
    heat = torch.zeros(2, 16, 4)
    heat[:, 0, 0], heat[:, 15, 2] = 1, 0.5
    maps.add(heat, heat)
    maps.add(torch.ones(1, 4, 4), torch.ones(1, 4, 4))  # layers that are farther from 16 x 16 have no part
    mask = maps.mask(0.3)[0, 0]
    expected = torch.zeros(8, 8)
    expected[:4, :4] = expected[4:, 4:] = 1
    assert torch.equal(mask, expected)
    assert torch.equal(maps.mask(1.0), torch.zeros(1, 1, 8, 8))


def test_the_gradient_of_the_maps_is_that_of_finite_differences(inverted):
    cascade, inversion = inverted
    site = site_of(cascade, inversion, LONGER)
    network = network_of(site.stage.denoiser)
    keep = KeepMaps(DDIM(), site, network, [layer for layer in layers_of(network) if layer.text], 0.1)
    x = site.path[1].double() + 0.1 * draw(site.path[1].shape, 3).double()

    @torch.no_grad()
    def distance(x):
        pairs = zip(
            keep.maps(x, 1, site.target), keep.maps(site.path[1].double(), 1, site.inversion.condition), strict=True
        )
        return sum(float((a - b).double().square().sum((2, 3)).mean()) for a, b in pairs)

    with torch.no_grad():
        gradient = keep.gradient(x, 1)
    assert gradient.shape == x.shape
    along, h = gradient / gradient.norm(), 1e-2
    slope = (distance(x + h * along) - distance(x - h * along)) / (2 * h)
    assert slope == pytest.approx(float(gradient.norm()), rel=0.02)


def test_edits_in_two_threads_are_those_of_one(inverted):
    cascade, inversion = inverted
    inversion = inversion.row(0)
    editors = [MasaCtrl(start_step=0), PlugAndPlay()]
    alone = [edited(cascade, inversion, LONGER, editor) for editor in editors]
    with ThreadPoolExecutor() as pool:
        together = list(pool.map(lambda editor: edited(cascade, inversion, LONGER, editor), editors))
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


class Stop(Hearing):
    """An observer that stops the work in the middle of a network call."""

    def on_call(self, stage):
        super().on_call(stage)
        if len(self.calls) == 3:
            raise InterruptedError("stop")


@pytest.mark.parametrize("name", NAMES)
def test_processors_are_as_they_were_after_an_edit_and_after_an_error(inverted, name):
    cascade, inversion = inverted
    network = network_of(cascade.stages[0].denoiser)
    before, modules = network.attn_processors, dict(network.named_modules())
    with pytest.raises(InterruptedError):
        cascade.edit(inversion, TARGET, name, observer=Stop())
    work = EDITORS[name]()(site_of(cascade, inversion, TARGET))
    with torch.no_grad():
        next(work), next(work)
    work.close()
    for after in (network.attn_processors,):
        assert all(after[key] is before[key] for key in before)
    assert dict(network.named_modules()) == modules
    assert not any(module._forward_hooks for module in network.modules())


def test_the_source_row_is_the_inverted_state_of_each_level(inverted):
    cascade, inversion = inverted
    network, samples = network_of(cascade.stages[0].denoiser), []
    hook = network.register_forward_pre_hook(lambda _, given: samples.append(given[0]))
    try:
        cascade.edit(inversion, TARGET, MasaCtrl(start_step=1))
    finally:
        hook.remove()
    assert [len(x) for x in samples] == [4, 6, 6]  # two pictures; the source row from the first step that uses it
    for i in range(1, STEPS):
        torch.testing.assert_close(samples[i][:2], inversion.stages[0].path[i].double(), rtol=0, atol=0)


def test_prompts_and_words_that_do_not_fit_are_refused_before_any_call(inverted):
    cascade, inversion = inverted
    heard = Hearing()
    for editor, target, words in (
        (PromptToPrompt(mode="replace"), LONGER, r"replace takes as many of both: take mode='refine'"),
        (PromptToPrompt(reweight={"green": 2}), TARGET, "no word 'green' in the prompt: its words are a, blue, cube"),
        (PromptToPrompt(local_blend=True, blend_words=("cone",)), TARGET, "no word 'cone' .* a, red, ball, blue, cube"),
    ):
        with pytest.raises(ValueError, match=words):
            cascade.edit(inversion.row(0), target, editor, observer=heard)
    assert heard.calls == []


def test_settings_are_checked():
    with pytest.raises(ValueError, match="mode is 'swap'; it is 'replace', 'refine' or None"):
        PromptToPrompt(mode="swap")
    with pytest.raises(TypeError, match="the weight of 'red' in reweight is 'x'"):
        PromptToPrompt(reweight={"red": "x"})
    with pytest.raises(ValueError, match="tau_A is 2; it is 0 to 1"):
        PlugAndPlay(tau_A=2)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_attention_is_refused_before_any_call(tiny, name):
    first, heard = Cascade(tiny.stages[:1]), Hearing()
    inversion = first.invert(torch.zeros(1, 3, 16, 16), PROMPT, num_inference_steps=2)
    without = type(tiny.stages[2].denoiser)(tiny.stages[2].denoiser.unet)
    for denoiser in (without, lambda x, a, condition: Prediction(x, x)):
        broken = Cascade((replace(first.stages[0], denoiser=denoiser),))
        match = "changes the attention layers of a UNet, and stage I has none: take automatic, .* or ledits"
        with pytest.raises(ValueError, match=match):
            broken.edit(inversion, TARGET, name, observer=heard)
    assert heard.calls == []


def test_a_stage_whose_tokens_are_not_known_is_refused(inverted):
    cascade, inversion = inverted
    unknown = Cascade((replace(cascade.stages[0], tokens=None),))
    with pytest.raises(ValueError, match="does not say which tokens its words are"):
        unknown.edit(inversion, TARGET, "prompt-to-prompt")


def test_levels_between_those_of_the_grid_have_no_source_row(inverted):
    _, inversion = inverted
    grid = inversion.stages[0].grid
    assert [level_index(grid, level) for level in grid] == list(range(STEPS + 1))
    with pytest.raises(ValueError, match=r"timestep 3\.5, where no inverted state is known: take a rule that stays"):
        level_index(grid, grid[0]._replace(t=3.5))


@pytest.mark.parametrize("method", ["null-text", "edit-friendly"])
def test_they_run_along_refined_and_independent_paths(tiny, method):
    first = Cascade(tiny.stages[:1])
    inversion = first.invert(draw((1, 3, 16, 16), 1).clamp(-1, 1), PROMPT, method, 3, 2.0)
    how = PromptToPrompt(local_blend=True, blend_threshold=1.0)
    edit = first.edit(inversion, TARGET, how)  # no position is above the largest: nothing changes
    torch.testing.assert_close(edit.pictures[0], clean(first, inversion).to(edit.pictures[0]), rtol=0, atol=1e-5)
    assert not torch.equal(first.edit(inversion, TARGET, "prompt-to-prompt").pictures[0], edit.pictures[0])

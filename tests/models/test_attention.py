"""The attention layers of real diffusers networks, with added keys and plain, are changed for one call."""

import threading

import pytest
import torch

import published
from iterinv import families
from iterinv.conditions import Condition
from iterinv.levels import Level
from iterinv.locks import Lock
from iterinv.models import CountingDenoiser, WatchedDenoiser
from iterinv.models.attention import Changes, changed, layers_of, network_of
from iterinv.models.memory import OneAtATime

from conftest import draw

LEVEL = Level(500.0, 0.7, 0.7)


@pytest.fixture(scope="module", params=["added", "sd", "sdxl", "x4"])
def call(request, tiny):
    """Return a network of each kind of attention, and a function that calls it on two rows."""
    stage = tiny.stages[0] if request.param == "added" else families.stage(getattr(published, request.param)())
    low = draw((2, 3, 8, 8), 3).clamp(-1, 1) if stage.low_level else None
    condition = stage.condition(["a red sphere", "a blue cube on a floor"], low)
    x = draw((2, *stage.shape), 0)

    @torch.no_grad()
    def predict():
        return stage.denoiser(x, LEVEL, Condition(condition)).eps

    return network_of(stage.denoiser), predict


def every(network, control):
    return Changes(dict.fromkeys(layers_of(network), control))


@pytest.mark.parametrize("how", ["fused", "maps"])
def test_a_layer_computed_here_is_diffusers_own(call, how):
    network, predict = call
    layers = []

    def control(each):
        layers.append(each.layer)
        return each.fused() if how == "fused" else each.weighted(each.maps())

    plain = predict()
    with changed(network, every(network, control)):
        ours = predict()
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)
    assert layers == layers_of(network)  # in the order in which the network runs them


def test_layers_say_what_their_keys_are(tiny):
    joint = layers_of(tiny.stages[0].denoiser.unet)
    assert all(layer.text and layer.image for layer in joint)
    plain = layers_of(published.sd().unet)
    assert {(layer.name[-1], layer.text, layer.image) for layer in plain} == {("1", False, True), ("2", True, False)}
    upscaler = {layer.name: layer for layer in layers_of(published.x4().unet)}
    first, *_, last = (upscaler[f"down_blocks.{k}.attentions.0.transformer_blocks.0.attn1"] for k in (1, 2, 3))
    assert (first.text, first.image) == (True, False)  # only_cross_attention
    assert (last.text, last.image) == (False, True)
    assert [layer.part for layer in plain] == ["down_blocks"] * 6 + ["mid_block"] * 2 + ["up_blocks"] * 12
    assert plain[-1].features == "up_blocks.3.resnets.1.conv2"
    assert layers_of(tiny.stages[2].denoiser.unet) == []


def test_keys_of_the_text_come_first(call):
    network, predict = call
    lengths = {}

    def control(each):
        lengths[each.layer] = (each.text, each.key.shape[2], each.positions)
        return each.fused()

    with changed(network, every(network, control)):
        predict()
    for layer, (text, keys, positions) in lengths.items():
        assert text == (77 if layer.text else 0)
        assert keys == text + (positions if layer.image else 0)


def test_processors_and_hooks_are_as_they_were_even_after_an_error(call):
    network, predict = call
    before, plain = network.attn_processors, predict()

    def stop(each):
        raise InterruptedError

    def zero(each):
        return each.fused() * 0

    features = {layers_of(network)[-1].features: torch.zeros_like}
    with changed(network, Changes(every(network, zero).attention, features)):
        assert not torch.equal(predict(), plain)
    with pytest.raises(InterruptedError), changed(network, Changes(every(network, stop).attention, features)):
        predict()
    with pytest.raises(AttributeError), changed(network, Changes(every(network, zero).attention, {"nowhere": zero})):
        predict()
    after = network.attn_processors
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert torch.equal(predict(), plain)


def test_a_change_holds_for_its_own_thread_only(call):
    network, predict = call
    plain, other = predict(), []
    features = {layers_of(network)[-1].features: torch.zeros_like}
    with changed(network, Changes(every(network, lambda each: each.fused() * 0).attention, features)):
        thread = threading.Thread(target=lambda: other.append(predict()))
        thread.start()
        thread.join()
        assert not torch.equal(predict(), plain)
    assert torch.equal(other[0], plain)


def test_the_network_is_reached_through_all_denoisers_around_it(tiny):
    denoiser = tiny.stages[0].denoiser
    assert network_of(CountingDenoiser(WatchedDenoiser(OneAtATime(denoiser, Lock()), print))) is denoiser.unet
    assert network_of(lambda x, a, condition: None) is None


def test_a_processor_of_another_kind_is_refused():
    network = published.sd().unet
    network.fuse_qkv_projections()
    with pytest.raises(ValueError, match=r"FusedAttnProcessor2_0, which is not changed here: set diffusers' own"):
        layers_of(network)

"""Which text features and weights CLIP keeps, and when it computes them anew."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import tiny_clip

NAMES = ("cat", "dog, hound", "sky")


@pytest.fixture(params=["attention", "oft_both"])
def clip(request):
    torch.manual_seed(0)
    return tiny_clip(request.param).eval()


def features(clip, names=NAMES):
    with torch.no_grad():
        return clip.encode_text(names)


def recomputed(clip, names=NAMES):
    """The features without any memory."""
    with torch.no_grad():
        return F.normalize(clip._embed(names, clip._adapted_weights()), dim=-1)


def count_calls(clip, monkeypatch):
    calls = {"text": 0, "adapter": 0}
    text, adapter = clip.text.forward, clip.adapter.forward

    def counting(name, forward):
        def run(*args):
            calls[name] += 1
            return forward(*args)

        return run

    monkeypatch.setattr(clip.text, "forward", counting("text", text))
    monkeypatch.setattr(clip.adapter, "forward", counting("adapter", adapter))
    return calls


def test_both_are_computed_once_while_nothing_changes(clip, monkeypatch):
    calls = count_calls(clip, monkeypatch)
    first = features(clip)
    assert torch.equal(features(clip), first)
    assert calls == {"text": 1, "adapter": 1}


def test_other_names_are_encoded(clip):
    features(clip)
    found = features(clip, ("car",))
    torch.testing.assert_close(found, recomputed(clip, ("car",)))
    torch.testing.assert_close(features(clip), recomputed(clip))


def trained_in_text(clip):
    """A parameter that trains and that the text features depend on."""
    adapter = dict(clip.adapter.named_parameters())
    return adapter.get("generators", clip.text.transformer.resblocks[0].attn.v_proj.weight)


def test_an_optimizer_step_is_seen(clip):
    before = features(clip)
    parameter = trained_in_text(clip)
    clip.train()
    clip.encode_text(NAMES).sin().sum().backward()
    assert parameter.grad.abs().sum() > 0
    torch.optim.AdamW([parameter], lr=0.05).step()
    clip.eval()
    assert not torch.allclose(features(clip), before)
    torch.testing.assert_close(features(clip), recomputed(clip))


def test_a_step_without_a_change_of_mode_is_seen(clip):
    before = features(clip)
    with torch.no_grad():
        trained_in_text(clip).mul_(1.1).add_(0.01 * torch.randn_like(trained_in_text(clip)))
    assert not torch.allclose(features(clip), before)
    torch.testing.assert_close(features(clip), recomputed(clip))


def test_a_change_of_a_frozen_parameter_is_seen(clip):
    before = features(clip)
    with torch.no_grad():
        clip.text.ln_final.weight.mul_(torch.rand(128))
    assert not torch.allclose(features(clip), before)
    torch.testing.assert_close(features(clip), recomputed(clip))


@pytest.mark.parametrize("assign", [False, True])
def test_a_loaded_state_is_seen(clip, assign):
    before = features(clip)
    state = {
        name: value + 0.05 * torch.randn_like(value) for name, value in clip.state_dict().items()
    }
    clip.load_state_dict(state, assign=assign)
    assert not torch.allclose(features(clip), before)
    torch.testing.assert_close(features(clip), recomputed(clip))


def test_a_change_behind_autograd_is_seen_after_eval(clip):
    before = features(clip)
    clip.train()
    parameter = trained_in_text(clip)
    parameter.data += 0.05 * torch.randn_like(parameter)
    clip.eval()
    assert not torch.allclose(features(clip), before)
    torch.testing.assert_close(features(clip), recomputed(clip))


def test_image_weights_follow_as_well(clip):
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = clip.encode_image(images).dense
        for parameter in clip.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
        after = clip.encode_image(images).dense
        expected = clip.image(images, clip._adapted_weights().image).dense
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, expected)


def test_training_after_inference_mode(clip):
    with torch.inference_mode():
        clip.encode_text(NAMES)
    for mode in (True, False):
        clip.train(mode)
        clip.zero_grad()
        clip.encode_text(NAMES).sin().sum().backward()
        assert trained_in_text(clip).grad.abs().sum() > 0


def test_a_frozen_clip_in_training_after_inference_mode():
    """Its kept features go into the aggregator's graph."""
    clip = tiny_clip("frozen")
    with torch.inference_mode():
        clip.encode_text(NAMES)
    weight = torch.ones(64, requires_grad=True)
    (clip.encode_text(NAMES) * weight).sum().backward()
    assert torch.isfinite(weight.grad).all()


def test_features_are_unit_vectors_per_template():
    clip = tiny_clip("frozen", "imagenet_select")
    found = features(clip)
    assert found.shape == (3, 8, 64)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3, 8), atol=1e-5, rtol=0)

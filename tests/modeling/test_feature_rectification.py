"""AFR against its formula, written plainly."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cat_seg.modeling.hyperspherical_innovations import AdaptiveFeatureRectification
from tests.tiny import shake

CHANNELS = 16


def make_afr(reduction=4):
    torch.manual_seed(0)
    afr = AdaptiveFeatureRectification(CHANNELS, reduction)
    shake(afr, 0.5)
    return afr


@pytest.mark.parametrize("given", [(), (0.5,)])
def test_all_biases_start_at_one_value(given):
    afr = AdaptiveFeatureRectification(CHANNELS, 4, *given)
    biases = torch.cat([p for name, p in afr.named_parameters() if name.endswith("bias")])
    assert biases.unique().tolist() == [*(given or (2.0,))]


def plain_afr(afr, x):
    """AFR's formulas on the named parameters; returns the output and the regularizer."""
    p = dict(afr.named_parameters())

    def mlp(name, inputs):
        hidden = torch.relu(inputs @ p[f"{name}.2.weight"].T + p[f"{name}.2.bias"])
        return torch.sigmoid(hidden @ p[f"{name}.4.weight"].T + p[f"{name}.4.bias"])

    pooled = x.mean(dim=(2, 3))
    channel = mlp("channel_gate", pooled)
    uncertainty = mlp("uncertainty_estimator", pooled)
    assert uncertainty.shape == (len(x), 1)
    first = F.conv2d(x, p["spatial_gate.0.weight"], p["spatial_gate.0.bias"]).relu()
    spatial = F.conv2d(first, p["spatial_gate.2.weight"], p["spatial_gate.2.bias"]).sigmoid()
    mix = torch.sigmoid(p["mix_weight"]) * (1 - uncertainty)
    mix = mix[:, :, None, None]
    gate = channel[:, :, None, None] * spatial
    out = (1 - mix) * x + mix * x * gate
    down = (spatial[:, :, 1:] - spatial[:, :, :-1]).abs().mean()
    across = (spatial[..., 1:] - spatial[..., :-1]).abs().mean()
    return out, 0.1 * (gate - 0.5).abs().mean() + 0.01 * (down + across)


def test_afr_follows_its_formula():
    afr = make_afr()
    torch.manual_seed(1)
    x = torch.randn(3, CHANNELS, 5, 7)
    out, regularizer = afr(x)
    expected, expected_regularizer = plain_afr(afr, x)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(regularizer, expected_regularizer, atol=1e-7, rtol=1e-5)
    assert out.shape == x.shape and regularizer.shape == ()


def test_afr_gates_each_image_by_itself():
    afr = make_afr()
    torch.manual_seed(1)
    x = torch.randn(2, CHANNELS, 4, 4)
    alone = torch.cat([afr(x[:1])[0], afr(x[1:])[0]])
    torch.testing.assert_close(afr(x)[0], alone, atol=1e-6, rtol=1e-5)


def test_afr_trains_in_every_part_and_into_the_features():
    afr = make_afr()
    torch.manual_seed(1)
    x = torch.randn(2, CHANNELS, 4, 4, requires_grad=True)
    out, regularizer = afr(x)
    (out.square().mean() + regularizer).backward()
    for name, parameter in afr.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert x.grad.abs().sum() > 0
    (grad,) = torch.autograd.grad(afr(x)[1], x)
    assert grad.abs().sum() > 0  # the regularizer, too, reaches the features


def test_afr_start_values():
    torch.manual_seed(0)
    afr = AdaptiveFeatureRectification(512, 16)
    p = dict(afr.named_parameters())
    assert p["channel_gate.2.weight"].shape == (32, 512)
    assert p["channel_gate.4.weight"].shape == (512, 32)
    assert p["spatial_gate.0.weight"].shape == (32, 512, 1, 1)
    assert p["spatial_gate.2.weight"].shape == (1, 32, 1, 1)
    assert p["uncertainty_estimator.4.weight"].shape == (1, 32)
    assert p["mix_weight"].tolist() == [0.0]
    for name, value in p.items():
        if name.endswith("bias"):
            assert (value == 2.0).all(), name
        elif value.dim() == 2:  # Xavier uniform, gain 0.1
            assert value.abs().max() <= 0.1 * math.sqrt(6 / sum(value.shape)), name
    std = p["spatial_gate.0.weight"].std().item()  # Kaiming, fan_out 32
    assert std == pytest.approx(math.sqrt(2 / 32), rel=0.05)

"""Class aggregation against a plain computation over explicitly padded classes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cat_seg.modeling.aggregator import ClassAggregation
from tests.tiny import shake

CHANNELS, GUIDANCE, HEADS, LENGTH = 8, 6, 4, 7


def make(pooling=(1, 1), length=LENGTH, train_padding=True):
    torch.manual_seed(0)
    module = ClassAggregation(CHANNELS, GUIDANCE, HEADS, pooling, length, train_padding)
    shake(module, 0.3)
    return module


def plain(module, x, guidance, pooling, length):
    """x (B, T, H, W, C), guidance (B, T, C'), position by position."""
    images, classes, height, width, _ = x.shape
    p = dict(module.named_parameters())
    rows, columns = height // pooling[0], width // pooling[1]
    pooled = x.new_zeros(images, classes, rows, columns, CHANNELS)
    for i in range(rows):
        for j in range(columns):
            ys = slice(i * pooling[0], (i + 1) * pooling[0])
            xs = slice(j * pooling[1], (j + 1) * pooling[1])
            pooled[:, :, i, j] = x[:, :, ys, xs].mean(dim=(2, 3))

    def norm(name, value):
        return F.layer_norm(value, (CHANNELS,), p[f"{name}.weight"], p[f"{name}.bias"])

    def linear(name, value):
        return F.linear(value, p[f"{name}.weight"], p[f"{name}.bias"])

    result = torch.zeros_like(pooled)
    missing = max(length - classes, 0)
    for b in range(images):
        text = torch.cat([guidance[b], p["padding_guidance"][0].expand(missing, -1)])
        for i in range(rows):
            for j in range(columns):
                token = torch.cat([pooled[b, :, i, j], p["padding_token"][0].expand(missing, -1)])
                normed = norm("norm1", token)
                q = linear("attn.q", torch.cat([normed, text], dim=1))
                k = linear("attn.k", torch.cat([normed, text], dim=1))
                v = linear("attn.v", normed)
                mixed = []
                for h in range(HEADS):
                    part = slice(h * CHANNELS // HEADS, (h + 1) * CHANNELS // HEADS)
                    qh, kh = F.elu(q[:, part]) + 1, F.elu(k[:, part]) + 1
                    keys = len(token)
                    kv = kh.T @ (v[:, part] / keys)
                    z = 1 / (qh @ kh.sum(dim=0) + 1e-6)
                    mixed.append((qh @ kv) * z[:, None] * keys)
                token = token + torch.cat(mixed, dim=1)
                hidden = torch.relu(linear("mlp.fc1", norm("norm2", token)))
                token = token + linear("mlp.fc2", hidden)
                result[b, :, i, j] = token[:classes]
    if pooling != (1, 1):
        maps = result.flatten(0, 1).permute(0, 3, 1, 2)
        maps = F.interpolate(maps, (height, width), mode="bilinear", align_corners=True)
        result = maps.permute(0, 2, 3, 1).unflatten(0, (images, classes))
    return x + result


@pytest.mark.parametrize("pooling", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("classes", [1, 4, LENGTH])
def test_equals_the_plainly_padded_computation(pooling, classes):
    module = make(pooling)
    torch.manual_seed(1)
    x, guidance = torch.randn(2, classes, 6, 4, CHANNELS), torch.randn(2, classes, GUIDANCE)
    expected = plain(module, x, guidance, pooling, LENGTH)
    torch.testing.assert_close(module(x, guidance), expected, atol=1e-5, rtol=1e-5)


def test_the_number_of_padding_tokens_matters():
    torch.manual_seed(1)
    x, guidance = torch.randn(1, 3, 4, 4, CHANNELS), torch.randn(1, 3, GUIDANCE)
    assert not torch.allclose(make(length=5)(x, guidance), make(length=9)(x, guidance))


def test_each_image_and_position_is_by_itself():
    module = make()
    torch.manual_seed(1)
    x, guidance = torch.randn(2, 3, 4, 4, CHANNELS), torch.randn(2, 3, GUIDANCE)
    changed = x.clone()
    changed[0, :, 0, 0] += torch.randn(3, CHANNELS)
    difference = (module(changed, guidance) - module(x, guidance)).abs().sum(dim=(1, 4))
    assert difference[0, 0, 0] > 0
    difference[0, 0, 0] = 0
    assert difference.max() < 1e-5


def test_the_padding_trains_only_where_training_pads():
    x, guidance = torch.randn(1, 3, 4, 4, CHANNELS), torch.randn(1, 3, GUIDANCE)
    module = make()
    module(x, guidance).square().sum().backward()
    assert module.padding_token.grad.abs().sum() > 0
    assert module.padding_guidance.grad.abs().sum() > 0
    frozen = make(train_padding=False)
    assert not frozen.padding_token.requires_grad and not frozen.padding_guidance.requires_grad

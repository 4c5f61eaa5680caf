"""The decoder stage against the plain layers over the concatenation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cat_seg.modeling.aggregator.decoder import DecoderStage
from tests.tiny import shake


def make():
    torch.manual_seed(0)
    stage = DecoderStage(24, 8, 32)
    shake(stage, 0.1)
    return stage


def plain(stage, x, guidance):
    """Transposed convolution, concatenation, twice convolution, group norm and ReLU."""
    p = dict(stage.named_parameters())
    x = F.conv_transpose2d(x, p["up.weight"], p["up.bias"], stride=2)
    maps = len(x) // len(guidance)
    x = torch.cat([x, guidance.repeat_interleave(maps, dim=0)], dim=1)
    for index in (1, 2):
        x = F.conv2d(x, p[f"conv{index}.weight"], padding=1)
        weight, bias = p[f"norm{index}.weight"], p[f"norm{index}.bias"]
        x = F.group_norm(x, 32 // 16, weight, bias, eps=1e-5).relu()
    return x


@pytest.mark.parametrize(("images", "classes", "size"), [(2, 3, (4, 5)), (1, 1, (1, 2))])
def test_stage_equals_plain_layers(images, classes, size):
    stage = make()
    x = torch.randn(images * classes, 24, *size, requires_grad=True)
    guidance = torch.randn(images, 8, 2 * size[0], 2 * size[1], requires_grad=True)
    found, expected = stage(x, *stage.prepare(guidance)), plain(stage, x, guidance)
    assert found.shape == (images * classes, 32, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    inputs = (x, guidance, *stage.parameters())
    grads = torch.autograd.grad(found.sin().sum(), inputs)
    wanted = torch.autograd.grad(expected.sin().sum(), inputs)
    for one, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_stage_in_bfloat16_is_close_to_float32():
    stage = make()
    x, guidance = torch.randn(6, 24, 4, 5), torch.randn(2, 8, 8, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = stage(x, *stage.prepare(guidance))
    torch.testing.assert_close(found.float(), plain(stage, x, guidance), atol=0.1, rtol=0.1)


def test_convolutions_have_no_bias():
    names = dict(make().named_parameters())
    assert "conv1.bias" not in names and "conv2.bias" not in names
    assert "up.bias" in names

"""Convolutions as matrix products against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cat_seg.modeling.aggregator.convolutions import EmbeddingConv2d, OutputConv2d


def embedding(channels, side):
    return EmbeddingConv2d(channels, 6, side), lambda maps: maps.permute(0, 2, 3, 1)


def output(channels, side):
    return OutputConv2d(channels, side), lambda maps: maps.squeeze(1)


@pytest.mark.parametrize("make", [embedding, output])
@pytest.mark.parametrize(("channels", "side"), [(1, 7), (3, 3), (4, 1)])
def test_values_and_gradients_are_those_of_conv2d(make, channels, side):
    torch.manual_seed(0)
    layer, arrange = make(channels, side)
    layer.double()
    x = torch.randn(2, channels, 5, 8, dtype=torch.float64, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)
    found, expected = layer(x), arrange(F.conv2d(*inputs, padding=side // 2))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    gradients, wanted = (torch.autograd.grad(y.sin().sum(), inputs) for y in (found, expected))
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_half_precision_sums_the_taps_in_float32():
    torch.manual_seed(0)
    layer, x = OutputConv2d(32, 3), torch.randn(2, 32, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.float32
    rounded = F.conv2d(x.bfloat16().float(), layer.weight.bfloat16().float(), layer.bias, padding=1)
    torch.testing.assert_close(found, rounded[:, 0], atol=0.01, rtol=0)

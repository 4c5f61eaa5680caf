"""A layer with shared guidance against the plain layer over the concatenation."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from cat_seg.modeling.aggregator.guided import GuidedLinear


def test_linear_equals_the_plain_layer_over_the_concatenation():
    torch.manual_seed(0)
    layer = GuidedLinear(6, 3, 5)
    x, guidance = torch.randn(2, 4, 7, 6), torch.randn(2, 1, 7, 3)
    joint = torch.cat([x, guidance.expand(2, 4, 7, 3)], dim=-1)
    expected = F.linear(joint, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x, guidance), expected, atol=1e-6, rtol=1e-5)


def test_linear_trains_as_the_plain_layer():
    torch.manual_seed(0)
    layer = GuidedLinear(6, 3, 5)
    x = torch.randn(2, 4, 6, requires_grad=True)
    guidance = torch.randn(2, 1, 3, requires_grad=True)
    inputs = (x, guidance, *layer.parameters())
    grads = torch.autograd.grad(layer(x, guidance).sin().sum(), inputs)
    joint = torch.cat([x, guidance.expand(2, 4, 3)], dim=-1)
    expected = torch.autograd.grad(F.linear(joint, layer.weight, layer.bias).sin().sum(), inputs)
    for grad, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, wanted, atol=1e-5, rtol=1e-5)

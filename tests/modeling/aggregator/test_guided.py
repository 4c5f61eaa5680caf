"""Projections with shared guidance against plain layers over the concatenation."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from cat_seg.modeling.aggregator.guided import GuidedAttention


def found_and_expected(attention, x, guidance):
    joint = torch.cat([x, guidance.expand(*x.shape[:-1], -1)], dim=-1)
    plain = [attention.q(joint), attention.k(joint), F.linear(x, *attention.v.parameters())]
    return attention.project(x, attention.guide(guidance)), torch.cat(plain, dim=-1)


def make():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 7, 6, requires_grad=True)
    guidance = torch.randn(2, 1, 7, 3, requires_grad=True)
    return GuidedAttention(6, 3, heads=2), x, guidance


def test_projections_equal_plain_layers_over_the_concatenation():
    found, expected = found_and_expected(*make())
    assert found.shape == (2, 4, 7, 18)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_projections_train_as_plain_layers():
    attention, x, guidance = make()
    inputs = (x, guidance, *attention.parameters())
    grads, wanted = (
        torch.autograd.grad(projected.sin().sum(), inputs)
        for projected in found_and_expected(attention, x, guidance)
    )
    for grad, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, other, atol=1e-5, rtol=1e-5)

"""Counted operations against those worked out by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tools.benchmarking import flops


def count(work):
    with flops.FlopCounter() as counter:
        work()
    return counter.total


def test_a_small_network_forward_and_backward():
    # Convolution: 5 outputs of 8x8 pixels, each a sum over 3 channels of 3x3 pixels.
    convolution = 2 * 2 * 5 * 8 * 8 * 3 * 3 * 3
    linear = 2 * 2 * 5 * 7
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7)
    )
    images = torch.rand(2, 3, 8, 8)
    assert count(lambda: model(images)) == convolution + linear
    result = model(images).sum()
    # Weights and inputs have a gradient each, but the images need none.
    assert count(result.backward) == convolution + 2 * linear


def test_inference_counts_the_same():
    model = nn.Linear(6, 4)
    with torch.no_grad():
        assert count(lambda: model(torch.rand(3, 5, 6))) == 2 * 15 * 6 * 4


def test_attention():
    q, k, v = (torch.rand(2, 3, 10, 8, requires_grad=True) for _ in range(3))
    products = 2 * 2 * 3 * 10 * 10 * 8
    assert count(lambda: F.scaled_dot_product_attention(q, k, v)) == 2 * products


def test_linear_systems():
    n, k = 6, 2
    matrix = (torch.rand(4, n, n) + 4 * torch.eye(n)).requires_grad_()
    right = torch.rand(4, n, k)
    solve = 4 * (2 * n**3 // 3 + 2 * n * n * k)
    assert count(lambda: torch.linalg.solve(matrix, right)) == solve
    assert count(lambda: torch.linalg.inv(matrix)) == 4 * 2 * n**3
    result = torch.linalg.solve(matrix, right).sum()
    # The same system, factored already, then one product for the matrix's gradient.
    assert count(result.backward) == 4 * 2 * n * n * k + 4 * 2 * n * k * n


def test_the_unit():
    assert flops.product_flops(2048) == 2 * 2048**3

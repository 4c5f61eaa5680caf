"""The Poincare ball of curvature -c: maps at the origin, Moebius product, distance.

Points and tangent vectors are the last axis. Source: Ganea et al., Hyperbolic Neural Networks,
NeurIPS 2018. All results are finite, with finite gradients, wherever the input is finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_NORM = 1e-5
BOUNDARY = 1e-3  # points are kept this share of the radius away from the boundary
LARGEST_TANH = 15.0
LARGEST_ARTANH = 1 - 1e-5


def exp0(v: Tensor, c: float) -> Tensor:
    """Exponential map at the origin of tangent vectors v (..., C)."""
    scaled = c**0.5 * _norm(v)
    return _tanh(scaled) * v / scaled


def log0(y: Tensor, c: float) -> Tensor:
    """Logarithmic map at the origin of points y (..., C), the inverse of exp0."""
    scaled = c**0.5 * _norm(y)
    return _artanh(scaled) * y / scaled


def project(x: Tensor, c: float) -> Tensor:
    """Pull points x (..., C) from the boundary and beyond to norm (1 - 1e-3) / sqrt(c)."""
    norm = _norm(x)
    largest = (1 - BOUNDARY) / c**0.5
    return torch.where(norm > largest, x / norm * largest, x)


def mobius_matvec(blocks: Tensor, x: Tensor, c: float) -> Tensor:
    """Moebius product of a block-diagonal matrix with points, projected into the ball.

    Args:
        blocks: (..., B, n, n), the matrix's diagonal blocks.
        x: points (..., N, B * n).

    Returns:
        (..., N, B * n); 0 where the plain product is 0.
    """
    split = x.unflatten(-1, blocks.shape[-3:-1]).transpose(-2, -3)
    product = (split @ blocks.transpose(-1, -2)).transpose(-2, -3).flatten(-2)
    norm, product_norm = _norm(x), _norm(product)
    length = _tanh(product_norm / norm * _artanh(c**0.5 * norm))
    moved = length * product / (c**0.5 * product_norm)
    vanishes = (product == 0).all(dim=-1, keepdim=True)
    return project(torch.where(vanishes, torch.zeros_like(moved), moved), c)


def distance0(y: Tensor, c: float) -> Tensor:
    """Distance of points y (..., C) from the origin, (2 / sqrt(c)) artanh(sqrt(c) |y|)."""
    return 2 / c**0.5 * _artanh(c**0.5 * _norm(y)).squeeze(-1)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)


def _tanh(x: Tensor) -> Tensor:
    return x.clamp(-LARGEST_TANH, LARGEST_TANH).tanh()


def _artanh(x: Tensor) -> Tensor:
    return x.clamp(-LARGEST_ARTANH, LARGEST_ARTANH).atanh()

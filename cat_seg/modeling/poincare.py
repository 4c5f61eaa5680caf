"""The Poincare ball of curvature -c: maps at the origin and Moebius product.

Points and tangent vectors are the last axis. Source: Ganea et al., Hyperbolic Neural Networks,
NeurIPS 2018. In float32 and float64 all results are finite, with finite gradients, wherever the
input is finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_NORM = 1e-5
LARGEST_ENTRY = 1e30  # of matrices; sums of their products are finite in float32
BOUNDARY = 1e-3  # points are kept this share of the radius away from the boundary
LARGEST_TANH = 15.0
LARGEST_ARTANH = 1 - 1e-5


def exp0(v: Tensor, c: float) -> Tensor:
    """Exponential map at the origin of tangent vectors v (..., C)."""
    norm, direction = _polar(v)
    return _tanh(c**0.5 * norm) * direction / c**0.5


def log0(y: Tensor, c: float) -> Tensor:
    """Logarithmic map at the origin of points y (..., C), the inverse of exp0."""
    norm, direction = _polar(y)
    return _artanh(c**0.5 * norm) * direction / c**0.5


def project(x: Tensor, c: float) -> Tensor:
    """Pull points x (..., C) from the boundary and beyond to norm (1 - 1e-3) / sqrt(c)."""
    norm, direction = _polar(x)
    largest = (1 - BOUNDARY) / c**0.5
    return torch.where(norm > largest, direction * largest, x)


def mobius_matvec(blocks: Tensor, x: Tensor, c: float) -> Tensor:
    """Moebius product of a block-diagonal matrix with points, projected into the ball.

    Args:
        blocks: (..., B, n, n), the matrix's diagonal blocks.
        x: points (..., N, B * n).

    Returns:
        (..., N, B * n); 0 where the plain product is 0.
    """
    norm, direction = _polar(x)
    split = direction.unflatten(-1, blocks.shape[-3:-1]).transpose(-2, -3)
    blocks = blocks.clamp(-LARGEST_ENTRY, LARGEST_ENTRY)
    product = (split @ blocks.transpose(-1, -2)).transpose(-2, -3).flatten(-2)
    stretch, direction = _polar(product)  # stretch is |Mx| / |x|
    return project(_tanh(stretch * _artanh(c**0.5 * norm)) * direction / c**0.5, c)


def _polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Norm (..., 1) of x (..., C), clamped below, and x divided by it."""
    # Squares of large numbers would overflow. The scale cancels out, so it needs no gradient.
    scale = x.detach().abs().amax(dim=-1, keepdim=True).clamp_min(1)
    small = x / scale
    norm = torch.linalg.vector_norm(small, dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)
    return norm * scale, small / norm


def _tanh(x: Tensor) -> Tensor:
    return x.clamp(-LARGEST_TANH, LARGEST_TANH).tanh()


def _artanh(x: Tensor) -> Tensor:
    return x.clamp(-LARGEST_ARTANH, LARGEST_ARTANH).atanh()

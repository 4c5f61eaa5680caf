"""The Poincare ball of curvature -c: exp and log maps at the origin, and the Moebius product.

Points and tangent vectors lie along the last axis. Source: Ganea et al., Hyperbolic Neural
Networks, NeurIPS 2018. In float32 and float64, finite inputs give finite results and gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_NORM = 1e-5
LARGEST_ENTRY = 1e30  # limit on matrix entries, so that products stay finite in float32
BOUNDARY = 1e-3  # distance kept from the boundary, as a fraction of the radius
LARGEST_TANH = 15.0
LARGEST_ARTANH = 1 - 1e-5


def exp0(v: Tensor, c: float) -> Tensor:
    """Map tangent vectors v (..., C) at the origin to points (exponential map)."""
    norm, direction = _polar(v)
    return _tanh(c**0.5 * norm) * direction / c**0.5


def log0(y: Tensor, c: float) -> Tensor:
    """Map points y (..., C) to tangent vectors at the origin (logarithmic map, inverts exp0)."""
    norm, direction = _polar(y)
    return _artanh(c**0.5 * norm) * direction / c**0.5


def project(x: Tensor, c: float) -> Tensor:
    """Limit the norm of points x (..., C) to (1 - 1e-3) / sqrt(c), just inside the ball."""
    norm, direction = _polar(x)
    largest = (1 - BOUNDARY) / c**0.5
    return torch.where(norm > largest, direction * largest, x)


def mobius_matvec(blocks: Tensor, x: Tensor, c: float) -> Tensor:
    """Multiply points by a block-diagonal matrix M in the Moebius sense, and `project` the result.

    Args:
        blocks: diagonal blocks (..., B, n, n) of M.
        x: points (..., N, B * n).

    Returns:
        Points (..., N, B * n); 0 where the ordinary product Mx is 0.
    """
    norm, direction = _polar(x)
    split = direction.unflatten(-1, blocks.shape[-3:-1]).transpose(-2, -3)
    blocks = blocks.clamp(-LARGEST_ENTRY, LARGEST_ENTRY)
    product = (split @ blocks.transpose(-1, -2)).transpose(-2, -3).flatten(-2)
    stretch, direction = _polar(product)  # stretch is |Mx| / |x|
    return project(_tanh(stretch * _artanh(c**0.5 * norm)) * direction / c**0.5, c)


def _polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the norm (..., 1) of x (..., C), clamped below, and x divided by it."""
    # Rescale, because squares of large entries would overflow. The scale cancels out of the
    # result, so it needs no gradient.
    scale = x.detach().abs().amax(dim=-1, keepdim=True).clamp_min(1)
    small = x / scale
    norm = torch.linalg.vector_norm(small, dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)
    return norm * scale, small / norm


def _tanh(x: Tensor) -> Tensor:
    return x.clamp(-LARGEST_TANH, LARGEST_TANH).tanh()


def _artanh(x: Tensor) -> Tensor:
    return x.clamp(-LARGEST_ARTANH, LARGEST_ARTANH).atanh()

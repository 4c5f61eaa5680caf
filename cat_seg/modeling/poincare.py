"""The Poincare ball of curvature -c: exp and log maps at the origin, and the Moebius product.

Points and tangent vectors lie along the last axis. Source: Ganea et al., Hyperbolic Neural
Networks, NeurIPS 2018. Operations are in the order of HyperCLIP's code, because artanh amplifies
rounding a hundredfold near the boundary. In float32 and float64, finite inputs give finite results
and gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_NORM = 1e-5
SMALLEST_PRODUCT = 1e-15  # limit on norms of products, whose squares underflow in float32 below it
LARGEST_ENTRY = 1e15  # limit on entries of points and matrices, so that float32 does not overflow
BOUNDARY = 1e-3  # distance kept from the boundary, as a fraction of the radius
LARGEST_TANH = 15.0
LARGEST_ARTANH = 1 - 1e-5


def exp0(v: Tensor, c: float) -> Tensor:
    """Map tangent vectors v (..., C) at the origin to points (exponential map)."""
    v, _ = _limited(v)
    norm, root = _norm(v, SMALLEST_NORM), c**0.5
    return _tanh(root * norm) * v / (root * norm)


def log0(y: Tensor, c: float) -> Tensor:
    """Map points y (..., C) to tangent vectors at the origin (logarithmic map, inverts exp0)."""
    y, _ = _limited(y)
    norm, root = _norm(y, SMALLEST_NORM), c**0.5
    return y / norm / root * _artanh(root * norm)


def project(x: Tensor, c: float) -> Tensor:
    """Limit the norm of points x (..., C) to (1 - 1e-3) / sqrt(c), just inside the ball."""
    limited, _ = _limited(x)
    norm = _norm(limited, SMALLEST_NORM)
    largest = (1 - BOUNDARY) / c**0.5
    return torch.where(norm > largest, limited / norm * largest, x)


def mobius_matvec(blocks: Tensor, x: Tensor, c: float) -> Tensor:
    """Multiply points by a block-diagonal matrix M in the Moebius sense, and `project` the result.

    Args:
        blocks: diagonal blocks (..., B, n, n) of M.
        x: points (..., N, B * n).

    Returns:
        Points (..., N, B * n); 0 where the ordinary product Mx is 0.
    """
    x, _ = _limited(x)
    norm, root = _norm(x, SMALLEST_NORM), c**0.5
    product, scale = _limited(block_diagonal(blocks.clamp(-LARGEST_ENTRY, LARGEST_ENTRY), x))
    length = _norm(product, SMALLEST_PRODUCT)
    stretch = length * scale / norm  # |Mx| / |x|
    return project(_tanh(stretch * _artanh(root * norm)) * product / (length * root), c)


def transform(v: Tensor, blocks: Tensor, c: float, rotation: Tensor | None = None) -> Tensor:
    """Return log0((M (x) exp0(v)) Q^T) of tangent vectors v (..., N, C).

    Args:
        v: tangent vectors at the origin.
        blocks: diagonal blocks (..., B, n, n) of M.
        c: curvature.
        rotation: diagonal blocks (..., B', n', n') of the orthogonal Q; None for the identity.
    """
    y = mobius_matvec(blocks, exp0(v, c), c)
    return log0(y if rotation is None else block_diagonal(rotation, y), c)


def block_diagonal(blocks: Tensor, x: Tensor) -> Tensor:
    """Multiply vectors x (..., N, B * n) by the matrix with diagonal blocks (..., B, n, n)."""
    split = x.unflatten(-1, blocks.shape[-3:-1]).transpose(-2, -3)
    return (split @ blocks.mT).transpose(-2, -3).flatten(-2)


def _limited(x: Tensor) -> tuple[Tensor, Tensor]:
    """Shrink the vectors x (..., C) that have entries above the limit; also return by how much.

    Results depend on their direction alone, so the factors (..., 1) need no gradient.
    """
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    scale = (largest / LARGEST_ENTRY).clamp_min(1)
    return x / scale, scale


def _norm(x: Tensor, smallest: float) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(smallest)


def _tanh(x: Tensor) -> Tensor:
    return x.clamp(-LARGEST_TANH, LARGEST_TANH).tanh()


def _artanh(x: Tensor) -> Tensor:
    # Not torch.atanh: the two differ by 3 % for rows of norm 1e-5, and HyperCLIP's code takes this.
    x = x.clamp(-LARGEST_ARTANH, LARGEST_ARTANH)
    return (torch.log(1 + x) - torch.log(1 - x)) * 0.5

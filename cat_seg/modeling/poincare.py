"""The Poincare ball of curvature -c: exp and log maps at the origin, and the Moebius product.

Points and tangent vectors lie along the last axis. Source: Ganea et al., Hyperbolic Neural
Networks, NeurIPS 2018. Operations are in the order of HyperCLIP's code, because artanh amplifies
rounding a hundredfold near the boundary. In float32 and float64, finite inputs give finite results
and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    each = v.reshape(-1, *v.shape[-2:]).unbind()
    turns = None if rotation is None else rotation.reshape(-1, *rotation.shape[-3:])
    return transform_each(each, blocks.reshape(-1, *blocks.shape[-3:]), c, turns).view_as(v)


def transform_each(
    v: Sequence[Tensor], blocks: Tensor, c: float, rotation: Tensor | None = None
) -> Tensor:
    """Transform K matrices of tangent vectors, each with an M and a Q of its own.

    Values are those of the functions above, in their order. Gradients are in closed form: between
    exp0 and log0, the Moebius product is an ordinary one that limits the length of its result. That
    takes fewer operations, and artanh does not amplify rounding.

    Args:
        v: K matrices (N, C) of tangent vectors.
        blocks: diagonal blocks (K, B, n, n) of each M.
        c: curvature.
        rotation: diagonal blocks (K, B', n', n') of each Q; None for the identity. The gradient
            lacks the part that would change the length of a vector, as Q is orthogonal.

    Returns:
        (K, N, C).
    """
    return _Transform.apply(c, blocks, rotation, *v)


class _Transform(torch.autograd.Function):
    """Q M v times a factor, for each row v.

    The factor only depends on v and M where it limits a length: that of the result if `project`
    shortened the point, and that of v if exp0(v) is beyond the limit of artanh.
    """

    @staticmethod
    def forward(ctx: Any, c: float, blocks: Tensor, rotation: Tensor | None, *v: Tensor) -> Tensor:
        limit = LARGEST_ENTRY * min(1, c**0.5)  # the product is below LARGEST_ENTRY * C then
        blocks = blocks.clamp(-limit, limit)
        result = v[0].new_empty(len(v), *v[0].shape)
        count = 3 if any(ctx.needs_input_grad[3:]) else 2
        factors = result.new_empty(count, *result.shape[:2], 1)
        for part in _parts(result):
            turn = None if rotation is None else rotation[part]
            rows = torch.stack(v[part])
            _transform_rows(rows, blocks[part], c, turn, result[part], factors[:, part])
        ctx.save_for_backward(blocks, rotation, result, factors, *v)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        blocks, rotation, result, factors, *v = ctx.saved_tensors
        grad_blocks = torch.empty_like(blocks)
        grad_rotation = None if rotation is None else torch.empty_like(rotation)
        grad_v: list[Tensor | None] = []
        for part in _parts(result):
            g, w, rows = gradient[part], result[part], torch.stack(v[part])
            factor, shortened, *limited = factors[:, part]
            if rotation is not None and grad_rotation is not None:
                back = rotation[part].mT
                w = block_diagonal(back, w)
                grad_rotation[part] = _diagonal_of_product(g, w, back)
                g = block_diagonal(back, g)
            g = _without_radial(g, w, shortened).mul_(factor)
            grad_blocks[part] = _diagonal_of_product(g, rows, blocks)
            if limited:
                g = block_diagonal(blocks[part].mT, g)
                grad_v += _without_radial(g, rows, *limited).unbind()
        return None, grad_blocks, grad_rotation, *(grad_v or (None for _ in v))


def _transform_rows(
    x: Tensor, blocks: Tensor, c: float, rotation: Tensor | None, result: Tensor, factors: Tensor
) -> None:
    """Write `transform` of x (K, N, C) to `result`, and what its gradient needs to `factors`.

    Args:
        x: overwritten.
        factors: (2 or 3, K, N, 1): the factor of Q M v; the inverse square of the result's length
            where `project` shortened the point, else 0; and, if v needs a gradient, that of v's
            length where exp0(v) is beyond the limit of artanh, else 0.
    """
    root = c**0.5
    largest = (1 - BOUNDARY) / root
    own = _norm(x, SMALLEST_NORM)
    length = root * own
    tanh = _tanh(length)
    norm = _norm(x.mul_(tanh).div_(length), SMALLEST_NORM)
    y = block_diagonal(blocks, x)
    product = _norm(y, SMALLEST_PRODUCT)
    depth = root * norm
    stretched = _tanh(product / norm * _artanh(depth))
    product.mul_(root)
    height = _norm(y.mul_(stretched).div_(product), SMALLEST_NORM)
    outside = height > largest
    y.div_(height.where(outside, 1)).mul_(height.new_full((), largest).where(outside, 1))
    if rotation is not None:
        y = block_diagonal(rotation, y)
    last = _norm(y, SMALLEST_NORM)
    y.div_(last).div_(root)
    distance = _artanh(last.mul_(root))
    torch.mul(y, distance, out=result)
    factor = tanh.mul_(stretched.clamp_(max=1 - BOUNDARY)).mul_(distance)
    torch.div(factor, length.mul_(product).mul_(last), out=factors[0])
    torch.mul(distance.where(outside, math.inf).pow_(-2), c, out=factors[1])
    if len(factors) == 3:
        torch.mul(depth > LARGEST_ARTANH, own.pow_(-2), out=factors[2])


def _without_radial(g: Tensor, w: Tensor, inverse: Tensor) -> Tensor:
    """Return g minus its part along w, where `inverse` is 1 / |w|^2; g itself where it is 0."""
    return torch.addcmul(g, (g * w).sum(dim=-1, keepdim=True).mul_(inverse), w, value=-1)


def _parts(x: Tensor) -> Iterator[slice]:
    """Yield slices of x (K, N, C) to work on: one matrix on a CPU, for its cache, else all."""
    size = 1 if x.device.type == "cpu" else len(x)
    return (slice(start, start + size) for start in range(0, len(x), size))


def _diagonal_of_product(g: Tensor, x: Tensor, like: Tensor) -> Tensor:
    """Return the diagonal blocks, of the size of those in `like`, of g^T x for (..., N, C)."""
    g, x = (t.unflatten(-1, like.shape[-3:-1]).transpose(-2, -3) for t in (g, x))
    return g.mT @ x


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

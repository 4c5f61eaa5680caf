"""The Poincare ball against geoopt where neither clamps, and the clamps by themselves."""

from __future__ import annotations

import math

import pytest
import torch
from geoopt.manifolds.stereographic import math as geoopt
from torch.testing import assert_close

from cat_seg.modeling import poincare

CURVATURES = (0.01, 1.0, 2.5)
DTYPES = (torch.float32, torch.float64)
BLOCKS, SIDE = 3, 4
WIDTH = BLOCKS * SIDE
# sqrt(c) times the norm of tangent vectors. The points are at tanh of it: up to 0.993 of the
# ball's radius, beyond which the Moebius product would be projected.
LENGTHS = {"origin": (1e-4, 1e-2), "middle": (0.1, 1.5), "boundary": (2.0, 2.9)}

curvatures = pytest.mark.parametrize("c", CURVATURES)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
places = pytest.mark.parametrize("place", LENGTHS)


def directions(count=20):
    vectors = torch.randn(count, WIDTH, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def tangents(place, c):
    """Random tangent vectors (N, C), float64."""
    torch.manual_seed(0)
    low, high = LENGTHS[place]
    lengths = low + (high - low) * torch.rand(20, 1, dtype=torch.float64)
    return directions() * lengths / math.sqrt(c)


def points(place, c):
    v = tangents(place, c)
    lengths = v.norm(dim=1, keepdim=True)
    return v / lengths * torch.tanh(math.sqrt(c) * lengths) / math.sqrt(c)


def matrices():
    torch.manual_seed(1)
    return torch.eye(SIDE) + 0.3 * torch.randn(BLOCKS, SIDE, SIDE, dtype=torch.float64)


def assert_agree(ours, theirs, inputs, dtype):
    """Values and gradients of ours in `dtype` with those of geoopt in float64."""
    expected_inputs = [value.clone().requires_grad_() for value in inputs]
    expected = theirs(*expected_inputs)
    found_inputs = [value.to(dtype).requires_grad_() for value in inputs]
    found = ours(*found_inputs)
    assert found.dtype == dtype
    cotangent = torch.randn_like(expected)
    (expected * cotangent).sum().backward()
    (found * cotangent.to(dtype)).sum().backward()
    # Near the boundary artanh amplifies the rounding of its argument a hundred times.
    relative = 2e-5 if dtype == torch.float32 else 1e-11
    pairs = [(found, expected)]
    pairs += [(a.grad, b.grad) for a, b in zip(found_inputs, expected_inputs, strict=True)]
    for one, other in pairs:
        largest = other.detach().abs().max().item()
        assert largest > 0
        assert_close(one.double(), other, rtol=relative, atol=relative * largest)


def geoopt_curvature(c):
    return torch.tensor(-c, dtype=torch.float64)


@curvatures
@places
@dtypes
def test_exp0_is_geoopts(c, place, dtype):
    k = geoopt_curvature(c)
    ours, theirs = lambda v: poincare.exp0(v, c), lambda v: geoopt.expmap0(v, k=k)
    assert_agree(ours, theirs, [tangents(place, c)], dtype)


@curvatures
@places
@dtypes
def test_log0_is_geoopts(c, place, dtype):
    k = geoopt_curvature(c)
    ours, theirs = lambda y: poincare.log0(y, c), lambda y: geoopt.logmap0(y, k=k)
    assert_agree(ours, theirs, [points(place, c)], dtype)


@curvatures
@places
@dtypes
def test_mobius_matvec_is_geoopts_on_the_full_matrix(c, place, dtype):
    k = geoopt_curvature(c)

    def theirs(blocks, x):
        product = geoopt.mobius_matvec(torch.block_diag(*blocks), x, k=k)
        return geoopt.project(product, k=k, eps=1e-3)

    def ours(blocks, x):
        return poincare.mobius_matvec(blocks, x, c)

    assert_agree(ours, theirs, [matrices(), points(place, c)], dtype)


@curvatures
@dtypes
def test_projection_is_geoopts(c, dtype):
    torch.manual_seed(0)
    x = directions() * torch.linspace(0.5, 3, 20, dtype=torch.float64)[:, None] / math.sqrt(c)
    k = geoopt_curvature(c)
    ours, theirs = lambda x: poincare.project(x, c), lambda x: geoopt.project(x, k=k, eps=1e-3)
    assert_agree(ours, theirs, [x], dtype)


@curvatures
def test_log0_undoes_exp0(c):
    for place in LENGTHS:
        v = tangents(place, c)
        assert_close(poincare.log0(poincare.exp0(v, c), c), v, rtol=1e-12, atol=0)


@curvatures
def test_matrices_of_many_layers_meet_their_own_points(c):
    torch.manual_seed(0)
    blocks = torch.randn(2, 3, BLOCKS, SIDE, SIDE, dtype=torch.float64)
    x = torch.stack([points(place, c) for _ in range(2) for place in LENGTHS])
    x = x.unflatten(0, (2, 3))
    found = poincare.mobius_matvec(blocks, x, c)
    assert found.shape == x.shape
    for layer in range(2):
        for projection in range(3):
            alone = poincare.mobius_matvec(blocks[layer, projection], x[layer, projection], c)
            assert_close(found[layer, projection], alone)


# The clamps


def one_vector(length):
    torch.manual_seed(0)
    return directions(1) * length


@curvatures
def test_norms_below_1e_5_count_as_1e_5(c):
    small, root = one_vector(1e-8), math.sqrt(c)
    scaled = root * 1e-5
    assert_close(poincare.exp0(small, c), math.tanh(scaled) / scaled * small, rtol=1e-14, atol=0)
    # artanh is the difference of two logarithms, here of numbers near 1.
    assert_close(poincare.log0(small, c), math.atanh(scaled) / scaled * small, rtol=1e-9, atol=0)


@curvatures
def test_tanh_and_artanh_are_clamped(c):
    root = math.sqrt(c)
    far = poincare.exp0(one_vector(40 / root), c)
    assert far.norm().item() == pytest.approx(math.tanh(15) / root, rel=1e-14)
    for beyond in (1 - 1e-7, 1.0, 30.0):
        y = one_vector(beyond / root)
        last = math.atanh(1 - 1e-5) / root
        assert poincare.log0(y, c).norm().item() == pytest.approx(last, rel=1e-9)


@curvatures
def test_products_stay_within_the_ball(c):
    x, largest = one_vector(0.9 / math.sqrt(c)), (1 - 1e-3) / math.sqrt(c)
    found = poincare.mobius_matvec(20 * matrices(), x, c)
    assert found.norm().item() == pytest.approx(largest, rel=1e-12)
    inside = poincare.mobius_matvec(0.1 * matrices(), x, c)
    assert inside.norm().item() < 0.5 * largest
    assert torch.equal(poincare.project(inside, c), inside)


@curvatures
@pytest.mark.parametrize("length", [1e-3, 0.5])
def test_transform_is_linear_inside_the_ball_and_rotates_after_the_product(c, length):
    """Between exp0 and log0 of one curvature the Moebius product is an ordinary one."""
    v, blocks = tangents("middle", c)[:5] * length, matrices() * 0.5
    product = v @ torch.block_diag(*blocks).T
    assert_close(poincare.transform(v, blocks, c), product, rtol=1e-9, atol=1e-10)
    q, _ = torch.linalg.qr(torch.randn(2, WIDTH // 2, WIDTH // 2, dtype=torch.float64))
    found = poincare.transform(v, blocks, c, q)
    assert_close(found, product @ torch.block_diag(*q).T, rtol=1e-9, atol=1e-10)


@curvatures
def test_rows_beyond_the_cap_keep_their_direction_and_its_length(c):
    """They are rotated, but not projected again."""
    v, q = one_vector(10 / math.sqrt(c)), torch.eye(WIDTH, dtype=torch.float64).flip(0)[None]
    found = poincare.transform(v, torch.eye(WIDTH, dtype=torch.float64)[None], c, q)
    expected = v.flip(1) / v.norm() * math.atanh(1 - 1e-3) / math.sqrt(c)
    assert_close(found, expected, rtol=1e-9, atol=1e-10)


@curvatures
def test_a_vanishing_product_is_the_origin(c):
    blocks = matrices()
    x = points("middle", c)
    assert not poincare.mobius_matvec(torch.zeros_like(blocks), x, c).any()
    assert not poincare.mobius_matvec(blocks, torch.zeros_like(x), c).any()
    only_first = torch.zeros_like(x)
    only_first[:, :SIDE] = 0.1
    blocks[0] = 0
    assert not poincare.mobius_matvec(blocks, only_first, c).any()


# Every finite input

FUNCTIONS = {
    "exp0": poincare.exp0,
    "log0": poincare.log0,
    "project": poincare.project,
    "product": lambda x, c: poincare.mobius_matvec(matrices().to(x.dtype), x, c),
}


def extremes(dtype, c):
    """Vectors (N, C): zero, tiny, on the boundary, just within and beyond it, huge, the largest."""
    limits = torch.finfo(dtype)
    lengths = [0.0, limits.tiny, 1e-20, 1e-7, 1e-5, 1e4, 1e19, 1e25, 1e37]
    lengths += [share / math.sqrt(c) for share in (1 - 1e-3, 1 - 1e-5, 1 - 1e-7, 1, 1 + 1e-6, 2)]
    torch.manual_seed(0)
    rows = torch.cat([directions(1) * length for length in lengths])
    return torch.cat([rows.to(dtype), torch.full((1, WIDTH), limits.max, dtype=dtype)])


@curvatures
@dtypes
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_are_finite(c, dtype, name):
    x = extremes(dtype, c).requires_grad_()
    found = FUNCTIONS[name](x, c)
    found.sin().sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(x.grad).all()


@curvatures
@dtypes
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e10, 1e30, 3e38])
def test_products_with_extreme_matrices_are_finite(c, dtype, size):
    x = extremes(dtype, c).requires_grad_()
    blocks = torch.full((BLOCKS, SIDE, SIDE), size, dtype=dtype, requires_grad=True)
    found = poincare.mobius_matvec(blocks, x, c)
    found.sin().sum().backward()
    for value in (found, x.grad, blocks.grad):
        assert torch.isfinite(value).all()
    assert (found.norm(dim=1) <= (1 - 1e-3) / math.sqrt(c) * (1 + 1e-6)).all()


@curvatures
@dtypes
def test_huge_vectors_keep_their_direction(c, dtype):
    torch.manual_seed(0)
    direction = directions(5).to(dtype)
    for size in (1e4, 1e25, 3e38):
        vectors = direction * size
        boundary = direction / math.sqrt(c)
        assert_close(poincare.exp0(vectors, c), boundary)
        assert_close(poincare.project(vectors, c), (1 - 1e-3) * boundary)

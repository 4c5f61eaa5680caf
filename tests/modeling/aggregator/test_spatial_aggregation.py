"""Spatial aggregation against Swin attention written with plain loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cat_seg.modeling.aggregator import SpatialAggregation
from cat_seg.modeling.aggregator.spatial_aggregation import SwinBlock, cut_windows
from tests.tiny import shake

CHANNELS, GUIDANCE, HEADS = 8, 6, 4


def make(grid, window):
    torch.manual_seed(0)
    module = SpatialAggregation(CHANNELS, GUIDANCE, HEADS, grid, window)
    shake(module, 0.3)
    return module


def plain_block(block, x, guidance, window, shift):
    """One block on one map x (H, W, C) with normed guidance (H, W, C'), window by window."""
    p = dict(block.named_parameters())
    height, width, _ = x.shape

    def linear(name, value):
        return F.linear(value, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(name, value):
        return F.layer_norm(value, (CHANNELS,), p[f"{name}.weight"], p[f"{name}.bias"])

    def region(index, size):
        """Which of the three bands of the shifted map a shifted index lies in."""
        if not shift or index < size - window:
            return 0
        return 1 if index < size - shift else 2

    normed = norm("norm1", x)
    mixed = torch.zeros_like(x)
    for top in range(0, height, window):
        for left in range(0, width, window):
            places, regions = [], []
            for i in range(top, top + window):
                for j in range(left, left + window):
                    places.append(((i + shift) % height, (j + shift) % width))
                    regions.append((region(i, height), region(j, width)))
            tokens = torch.stack([normed[place] for place in places])
            guide = torch.stack([guidance[place] for place in places])
            q = linear("attn.q", torch.cat([tokens, guide], dim=1))
            k = linear("attn.k", torch.cat([tokens, guide], dim=1))
            v = linear("attn.v", tokens)
            apart = torch.tensor([[-100.0 * (a != b) for b in regions] for a in regions])
            size = CHANNELS // HEADS
            heads = []
            for h in range(HEADS):
                part = slice(h * size, (h + 1) * size)
                scores = q[:, part] @ k[:, part].T * size**-0.5 + apart
                heads.append(scores.softmax(dim=1) @ v[:, part])
            for place, value in zip(places, linear("attn.proj", torch.cat(heads, 1)), strict=True):
                mixed[place] = value
    x = x + mixed
    return x + linear("mlp.fc2", F.gelu(linear("mlp.fc1", norm("norm2", x))))


def plain(module, x, guidance, window, shift):
    """Both blocks on every map, x (B, T, H, W, C), guidance (B, H, W, C')."""
    norm = module.guidance_norm
    guidance = F.layer_norm(guidance, (GUIDANCE,), norm.weight, norm.bias)
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            one = plain_block(module.blocks[0], x[b, t], guidance[b], window, 0)
            out[b, t] = plain_block(module.blocks[1], one, guidance[b], window, shift)
    return out


@pytest.mark.parametrize(
    ("grid", "window", "used", "shift"),
    [
        ((8, 8), 4, 4, 2),
        ((8, 12), 4, 4, 2),
        ((6, 9), 3, 3, 1),
        ((4, 4), 4, 4, 0),  # one window: no shift
        ((3, 3), 12, 3, 0),  # a grid within one window
    ],
)
def test_equals_the_plain_loops(grid, window, used, shift):
    module = make(grid, window)
    torch.manual_seed(1)
    x, guidance = torch.randn(2, 2, *grid, CHANNELS), torch.randn(2, *grid, GUIDANCE)
    expected = plain(module, x, guidance, used, shift)
    torch.testing.assert_close(module(x, guidance), expected, atol=1e-5, rtol=1e-5)


def test_windows_reach_each_other_only_through_the_shift():
    module = make((8, 8), 4)
    torch.manual_seed(1)
    x, guidance = torch.randn(1, 1, 8, 8, CHANNELS), torch.randn(1, 8, 8, GUIDANCE)
    changed = x.clone()
    changed[0, 0, 0, 0] += torch.randn(CHANNELS)
    difference = (module(changed, guidance) - module(x, guidance)).abs().amax(dim=-1)[0, 0]
    # Its window, and from there what the shifted windows join to that window: never row 6 on,
    # which only the cyclic shift makes neighbors of row 0.
    assert difference[5, 5] > 0
    assert difference[6:].max() < 1e-5 and difference[:, 6:].max() < 1e-5


def masked_attention(attention, x, guidance, grid, window, shift):
    """Attention in cyclically shifted windows with a mask, as in the Swin Transformer.

    x is (B, T, HW, C), guidance (B, 1, HW, C').
    """

    def to_windows(maps):
        maps = maps.unflatten(2, grid).roll((-shift, -shift), dims=(2, 3))
        maps = maps.unflatten(3, (-1, window)).unflatten(2, (-1, window))
        return maps.transpose(3, 4).flatten(4, 5).flatten(2, 3)

    def from_windows(windows):
        rows, columns = grid[0] // window, grid[1] // window
        maps = windows.unflatten(3, (window, window)).unflatten(2, (rows, columns))
        maps = maps.transpose(3, 4).flatten(4, 5).flatten(2, 3)
        return maps.roll((shift, shift), dims=(2, 3)).flatten(2, 3)

    bands = [torch.arange(size).ge(shift).long() for size in grid]
    regions = (2 * bands[0][:, None] + bands[1]).flatten()[None, None, :, None]
    regions = to_windows(regions)[0, 0, :, :, 0]
    apart = (regions[:, :, None] != regions[:, None, :])[:, None]
    joint = torch.cat([x, guidance.expand(-1, x.shape[1], -1, -1)], dim=-1)
    projections = attention.q(joint), attention.k(joint), attention.v(x)
    q, k, v = (to_windows(y).unflatten(-1, (HEADS, -1)).transpose(3, 4) for y in projections)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 - 100.0 * apart
    return attention.proj(from_windows((scores.softmax(-1) @ v).transpose(3, 4).flatten(4)))


@pytest.mark.parametrize(
    ("grid", "window", "shift"), [((8, 8), 4, 2), ((8, 12), 4, 2), ((6, 9), 3, 1), ((5, 10), 5, 0)]
)
def test_cut_windows_equal_masked_ones_with_gradients(grid, window, shift):
    torch.manual_seed(0)
    block = SwinBlock(CHANNELS, GUIDANCE, HEADS, grid, window, shift).double()
    tokens = grid[0] * grid[1]
    x = torch.randn(2, 3, tokens, CHANNELS, dtype=torch.float64, requires_grad=True)
    guidance = torch.randn(2, 1, tokens, GUIDANCE, dtype=torch.float64, requires_grad=True)

    ordered = block.attn(x[:, :, block.order], block.guide(guidance), block.windows)
    found = ordered[:, :, block.inverse]
    expected = masked_attention(block.attn, x, guidance, grid, window, shift)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    inputs = (x, guidance, *block.attn.parameters())
    gradients, wanted = (torch.autograd.grad(y.sin().sum(), inputs) for y in (found, expected))
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def test_windows_cover_the_grid_once_and_are_grouped_by_size():
    windows = cut_windows((8, 12), 4, 2)
    assert [same.shape for same in windows] == [(4, 4), (6, 8), (2, 16)]
    assert torch.equal(torch.cat([same.flatten() for same in windows]).sort()[0], torch.arange(96))


def test_windows_are_no_checkpoint_entries():
    assert not [name for name in make((8, 8), 4).state_dict() if "order" in name]

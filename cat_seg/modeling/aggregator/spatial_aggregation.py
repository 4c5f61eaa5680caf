"""Spatial aggregation: window attention within each class's cost map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from cat_seg.modeling.aggregator.guided import GuidedAttention
from cat_seg.modeling.chunking import chunked, recomputed
from cat_seg.modeling.norms import LayerNorm


class WindowAttention(GuidedAttention):
    """Multi-head attention within windows; q and k also read the appearance guidance."""

    def __init__(self, channels: int, guidance_channels: int, heads: int) -> None:
        super().__init__(channels, guidance_channels, heads)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, guide: Tensor, windows: Sequence[tuple[int, int]]) -> Tensor:
        """Attend within each window.

        Args:
            x: (B, T, HW, C), ordered by windows.
            guide: (B, 1, HW, 3 C), the result of `guide`, in the same order.
            windows: the number of windows of each size, and their tokens, in that order.

        Returns:
            (B, T, HW, C), in the same order.
        """
        sizes = [count * tokens for count, tokens in windows]
        parts = self.project(x, guide).split(sizes, dim=2)
        mixed = [self._mix(part, *shape) for part, shape in zip(parts, windows, strict=True)]
        return self.proj(torch.cat(mixed, dim=2) if len(mixed) > 1 else mixed[0])

    def _mix(self, projections: Tensor, windows: int, tokens: int) -> Tensor:
        """Attend within windows of one size, (B, T, windows * tokens, 3 C) to (..., C)."""
        q, k, v = (
            x.unflatten(2, (windows, tokens)).unflatten(-1, (self.heads, -1)).flatten(0, 2)
            for x in projections.chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
        return mixed.transpose(1, 2).reshape(*projections.shape[:3], -1)


class SwinBlock(nn.Module):
    """Swin Transformer block without relative position bias.

    Args:
        channels: channels C of the maps.
        guidance_channels: channels C' of the appearance guidance.
        heads: number of attention heads.
        grid: (H, W) of the maps.
        window: side of the windows in tokens; must divide H and W.
        shift: shift of the windows in tokens, 0 for none.
        recompute_mlp: save only the MLP's input for the backward pass and recompute the rest.
    """

    order: Tensor
    inverse: Tensor

    def __init__(
        self,
        channels: int,
        guidance_channels: int,
        heads: int,
        grid: tuple[int, int],
        window: int,
        shift: int,
        recompute_mlp: bool = True,
    ) -> None:
        super().__init__()
        self.recompute_mlp = recompute_mlp
        self.norm1 = LayerNorm(channels)
        self.attn = WindowAttention(channels, guidance_channels, heads)
        self.norm2 = LayerNorm(channels)
        self.mlp = Mlp(channels, 4 * channels)
        windows = cut_windows(grid, window, shift)
        self.windows = [(len(same), same.shape[1]) for same in windows]
        order = torch.cat([same.flatten() for same in windows])
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse", order.argsort(), persistent=False)

    def guide(self, guidance: Tensor) -> Tensor:
        """Return what guidance (B, 1, HW, C') adds to the projections of the ordered tokens.

        Returns:
            (B, 1, HW, 3 C).
        """
        return self.attn.guide(self._to_windows(guidance))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Map x (B, T, HW, C) to the same shape; `guide` is the result of this block's `guide`."""
        mixed = self.attn(self._to_windows(self.norm1(x)), guide, self.windows)
        x = x + _Reorder.apply(mixed, self.inverse, self.order)
        return x + (recomputed(self._mlp, x) if self.recompute_mlp else self._mlp(x))

    def _mlp(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))

    def _to_windows(self, x: Tensor) -> Tensor:
        """Order the tokens of maps (B, T, HW, C) by windows."""
        return _Reorder.apply(x, self.order, self.inverse)


class SpatialAggregation(nn.Module):
    """Two Swin blocks, the second shifted by half a window (CAT-Seg, arXiv 2303.11797).

    Args:
        channels: channels of the cost embedding.
        guidance_channels: channels of the projected appearance guidance.
        heads: number of attention heads.
        grid: (H, W) of the maps.
        window: side of the windows in tokens. If it is at least the shorter side of the grid, it
            is reduced to that side and the second block is not shifted.
        recompute: save only the input for the backward pass and recompute the rest. If False, only
            the MLPs are recomputed.
    """

    blocks: Sequence[SwinBlock]

    def __init__(
        self,
        channels: int,
        guidance_channels: int,
        heads: int,
        grid: tuple[int, int],
        window: int,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        shift = window // 2 if min(grid) > window else 0
        window = min(window, *grid)
        self.guidance_norm = LayerNorm(guidance_channels)
        blocks = nn.ModuleList(
            SwinBlock(channels, guidance_channels, heads, grid, window, s, not recompute)
            for s in (0, shift)
        )
        self.blocks = cast("Sequence[SwinBlock]", blocks)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Aggregate x (B, T, H, W, C) with appearance guidance (B, H, W, C')."""
        guidance = self.guidance_norm(guidance).flatten(1, 2)[:, None]
        guides = [block.guide(guidance) for block in self.blocks]

        def blocks(part: Tensor) -> Tensor:
            for block, guide in zip(self.blocks, guides, strict=True):
                part = block(part, guide)
            return part

        maps = chunked(blocks, x.flatten(2, 3), dim=1, recompute=self.recompute)
        return maps.unflatten(2, x.shape[2:4])


class _Reorder(torch.autograd.Function):
    """x[:, :, order] for a permutation; its gradient is a gather as well, not a scatter-add."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(2, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradient.index_select(2, inverse), None, None


def cut_windows(grid: tuple[int, int], window: int, shift: int) -> list[Tensor]:
    """Cut a grid into windows, which the grid's border cuts where they are shifted across it.

    Swin Transformer (arXiv 2103.14030) shifts cyclically, joins the pieces from opposite borders
    in one window, and masks the attention between them. The pieces by themselves give the same
    result with less arithmetic, and need no mask.

    Returns:
        For each size, the flat grid index of every token of the windows, (windows, tokens).
    """
    rows, columns = (_bands(size, window, shift) for size in grid)
    by_size: dict[int, list[Tensor]] = {}
    for row, column in product(rows, columns):
        tokens = (row[:, None] * grid[1] + column).flatten()
        by_size.setdefault(len(tokens), []).append(tokens)
    return [torch.stack(windows) for windows in by_size.values()]


def _bands(size: int, window: int, shift: int) -> list[Tensor]:
    cuts = [0, *range(shift or window, size, window), size]
    return [torch.arange(start, stop) for start, stop in pairwise(cuts)]

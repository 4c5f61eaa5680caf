"""Spatial aggregation: window attention within each class's cost map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import Mlp
from torch import Tensor, nn

from cat_seg.modeling.aggregator.guided import GuidedAttention
from cat_seg.modeling.chunking import chunked, recomputed
from cat_seg.modeling.norms import LayerNorm

MASKED = -100.0  # added to the logits of token pairs from different image regions


class WindowAttention(GuidedAttention):
    """Multi-head attention within windows; q and k also read the appearance guidance."""

    def __init__(self, channels: int, guidance_channels: int, heads: int) -> None:
        super().__init__(channels, guidance_channels, heads)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, guide: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within each window.

        Args:
            x: (B, T, windows, tokens, C).
            guide: (B, 1, windows, tokens, 3 C), the result of `guide`.
            mask: (windows, 1, tokens, tokens), added to the attention logits, or None.

        Returns:
            (B, T, windows, tokens, C).
        """
        projections = self.project(x, guide).flatten(0, 2)
        q, k, v = projections.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if mask is not None:
            mask = mask.to(q.dtype).repeat(len(q) // len(mask), 1, 1, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).flatten(2)).unflatten(0, x.shape[:3])


class SwinBlock(nn.Module):
    """Swin Transformer block without relative position bias.

    Args:
        channels: channels C of the maps.
        guidance_channels: channels C' of the appearance guidance.
        heads: number of attention heads.
        grid: (H, W) of the maps.
        window: side of the windows in tokens; must divide H and W.
        shift: cyclic shift of the windows in tokens, 0 for none.
        recompute_mlp: save only the MLP's input for the backward pass and recompute the rest.
    """

    order: Tensor
    inverse: Tensor
    mask: Tensor | None

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
        order = window_order(grid, window, shift)
        self.windows = order.shape
        mask = region_mask(grid, window, shift) if shift else None
        self.register_buffer("order", order.flatten(), persistent=False)
        self.register_buffer("inverse", order.flatten().argsort(), persistent=False)
        self.register_buffer("mask", mask, persistent=False)

    def guide(self, guidance: Tensor) -> Tensor:
        """Return what guidance (B, 1, HW, C') adds to the projections, cut into windows.

        Returns:
            (B, 1, windows, tokens, 3 C).
        """
        return self.attn.guide(self._cut(guidance))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Map x (B, T, HW, C) to the same shape; `guide` is the result of this block's `guide`."""
        mixed = self.attn(self._cut(self.norm1(x)), guide, self.mask)
        x = x + _Reorder.apply(mixed.flatten(2, 3), self.inverse, self.order)
        return x + (recomputed(self._mlp, x) if self.recompute_mlp else self._mlp(x))

    def _mlp(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))

    def _cut(self, x: Tensor) -> Tensor:
        """Cut maps (B, T, HW, C) into windows (B, T, windows, tokens, C)."""
        return _Reorder.apply(x, self.order, self.inverse).unflatten(2, self.windows)


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


def window_order(grid: tuple[int, int], window: int, shift: int) -> Tensor:
    """Return the flat grid index of every token of every shifted window, (windows, tokens)."""
    index = torch.arange(grid[0] * grid[1]).view(grid).roll((-shift, -shift), dims=(0, 1))
    return cut_windows(index, window)


def cut_windows(x: Tensor, window: int) -> Tensor:
    """Cut a map (H, W) into windows (windows, tokens), both in row-major order."""
    return rearrange(x, "(rows h) (columns w) -> (rows columns) (h w)", h=window, w=window)


def region_mask(grid: tuple[int, int], window: int, shift: int) -> Tensor:
    """Return the mask that separates tokens which are neighbors only through the cyclic shift.

    Returns:
        (windows, 1, tokens, tokens): 0 within an image region, -100 between regions.
    """

    def bands(size: int) -> Tensor:
        index = torch.arange(size)
        return (index >= size - window).long() + (index >= size - shift).long()

    regions = cut_windows(3 * bands(grid[0])[:, None] + bands(grid[1]), window)
    apart = regions[:, :, None] != regions[:, None, :]
    return torch.where(apart, MASKED, 0.0)[:, None]

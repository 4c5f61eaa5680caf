"""Spatial aggregation: windowed attention within each class's cost map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import Mlp
from torch import Tensor, nn

from .guided import GuidedLinear

MASKED = -100.0  # added to the logits of token pairs from different image regions


class WindowAttention(nn.Module):
    """Multi-head attention within windows; q and k also read the appearance guidance."""

    def __init__(self, channels: int, guidance_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = GuidedLinear(channels, guidance_channels, channels)
        self.k = GuidedLinear(channels, guidance_channels, channels)
        self.v = nn.Linear(channels, channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, guidance: Tensor, mask: Tensor | None) -> Tensor:
        """Attend.

        Args:
            x: (B, T, windows, tokens, C).
            guidance: (B, 1, windows, tokens, C').
            mask: (windows, 1, tokens, tokens) to add to the logits, or None.
        """
        q = self._split(self.q(x, guidance))
        k = self._split(self.k(x, guidance))
        v = self._split(self.v(x))
        if mask is not None:
            mask = mask.to(q.dtype).repeat(q.shape[0] // mask.shape[0], 1, 1, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).flatten(2)).unflatten(0, x.shape[:3])

    def _split(self, x: Tensor) -> Tensor:
        return x.flatten(0, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)


class SwinBlock(nn.Module):
    """Swin transformer block without relative position bias.

    Args:
        grid: (H, W) of the maps.
        window: side of the windows; must divide the grid.
        shift: cyclic shift of the windows in tokens, 0 for none.
    """

    def __init__(
        self,
        channels: int,
        guidance_channels: int,
        heads: int,
        grid: tuple[int, int],
        window: int,
        shift: int,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, guidance_channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, 4 * channels)
        mask = region_mask(grid, window, shift) if shift else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map x (B, T, H, W, C) under guidance (B, 1, H, W, C')."""
        mixed = self.attn(self._cut(self.norm1(x)), self._cut(guidance), self.mask)
        x = x + self._join(mixed, x.shape[2:4])
        return x + self.mlp(self.norm2(x))

    def _cut(self, x: Tensor) -> Tensor:
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(2, 3))
        return cut_windows(x, self.window)

    def _join(self, windows: Tensor, grid: tuple[int, int]) -> Tensor:
        x = rearrange(
            windows,
            "b t (rows columns) (h w) c -> b t (rows h) (columns w) c",
            rows=grid[0] // self.window,
            h=self.window,
        )
        return x.roll((self.shift, self.shift), dims=(2, 3)) if self.shift else x


class SpatialAggregation(nn.Module):
    """Two Swin blocks, the second shifted by half a window (CAT-Seg, arXiv 2303.11797).

    Args:
        channels: of the cost embedding.
        guidance_channels: of the projected appearance guidance.
        heads: attention heads.
        grid: (H, W) of the maps.
        window: side of the windows; a grid no larger than it is one window, not shifted.
    """

    def __init__(
        self, channels: int, guidance_channels: int, heads: int, grid: tuple[int, int], window: int
    ) -> None:
        super().__init__()
        shift = window // 2 if min(grid) > window else 0
        window = min(window, *grid)
        self.guidance_norm = nn.LayerNorm(guidance_channels)
        self.blocks = nn.ModuleList(
            SwinBlock(channels, guidance_channels, heads, grid, window, s) for s in (0, shift)
        )

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map x (B, T, H, W, C) under guidance (B, H, W, C')."""
        guidance = self.guidance_norm(guidance)[:, None]
        for block in self.blocks:
            x = block(x, guidance)
        return x


def cut_windows(x: Tensor, window: int) -> Tensor:
    """(B, T, H, W, C) into (B, T, windows, tokens of a window, C), row by row."""
    return rearrange(
        x, "b t (rows h) (columns w) c -> b t (rows columns) (h w) c", h=window, w=window
    )


def region_mask(grid: tuple[int, int], window: int, shift: int) -> Tensor:
    """Mask that keeps tokens apart which only the cyclic shift made neighbours.

    Returns:
        (windows, 1, tokens, tokens): 0 within a region, -100 between regions.
    """

    def bands(size: int) -> Tensor:
        index = torch.arange(size)
        return (index >= size - window).long() + (index >= size - shift).long()

    regions = 3 * bands(grid[0])[:, None] + bands(grid[1])
    regions = cut_windows(regions[None, None, ..., None], window)[0, 0, ..., 0]
    apart = regions[:, :, None] != regions[:, None, :]
    return torch.where(apart, MASKED, 0.0)[:, None]

"""Class aggregation: linear attention over the classes at every position."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from .guided import GuidedLinear

EPSILON = 1e-6


class LinearAttention(nn.Module):
    """Multi-head linear attention with feature map elu(.) + 1 and no output projection."""

    def __init__(self, channels: int, guidance_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = GuidedLinear(channels, guidance_channels, channels)
        self.k = GuidedLinear(channels, guidance_channels, channels)
        self.v = nn.Linear(channels, channels)

    def forward(
        self, x: Tensor, guidance: Tensor, padding: Tensor, padding_guidance: Tensor, padded: int
    ) -> Tensor:
        """Attend over T classes and `padded` equal padding tokens.

        Equal tokens need computing once: their part of the sums is one token's times their
        number.

        Args:
            x: (B, T, H, W, C).
            guidance: (B, T, 1, 1, C').
            padding: (1, 1, C), one padding token; padding_guidance (1, 1, C').

        Returns:
            (B, T, H, W, C).
        """
        q = self._positive(self._split(self.q(x, guidance)))
        k = self._positive(self._split(self.k(x, guidance)))
        v = self._split(self.v(x))
        keys = x.shape[1] + padded
        products = k.transpose(-1, -2) @ (v / keys)
        total = k.sum(dim=-2, keepdim=True)
        if padded:
            pad_k = self._positive(self._split_token(self.k(padding, padding_guidance)))
            pad_v = self._split_token(self.v(padding))
            products = products + padded * (pad_k.transpose(-1, -2) @ (pad_v / keys))
            total = total + padded * pad_k
        norm = (q * total).sum(dim=-1, keepdim=True) + EPSILON
        mixed = (q @ products) / norm * keys
        return mixed.permute(0, 4, 1, 2, 3, 5).flatten(-2)

    @staticmethod
    def _positive(x: Tensor) -> Tensor:
        return F.elu(x) + 1

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) into (B, H, W, heads, T, C / heads)."""
        return x.unflatten(-1, (self.heads, -1)).permute(0, 2, 3, 4, 1, 5)

    def _split_token(self, x: Tensor) -> Tensor:
        """(1, 1, C) into (heads, 1, C / heads)."""
        return x.view(self.heads, 1, -1)


class ClassAggregation(nn.Module):
    """Attention over the classes of pooled cost maps, guided by the text features.

    Source: CAT-Seg, arXiv 2303.11797. Up to `padded_length` classes the class axis is padded with
    one learned token.

    Args:
        channels: of the cost embedding.
        guidance_channels: of the projected text guidance.
        heads: attention heads.
        pooling: (height, width) of the average pooling.
        padded_length: length of the class axis with padding.
        train_padding: whether training meets fewer classes than that, so that the token trains.
    """

    def __init__(
        self,
        channels: int,
        guidance_channels: int,
        heads: int,
        pooling: tuple[int, int],
        padded_length: int,
        train_padding: bool,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.padded_length = padded_length
        self.norm1 = nn.LayerNorm(channels)
        self.attn = LinearAttention(channels, guidance_channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, 4 * channels, act_layer=nn.ReLU)
        self.padding_token = nn.Parameter(torch.zeros(1, 1, channels), train_padding)
        self.padding_guidance = nn.Parameter(torch.zeros(1, 1, guidance_channels), train_padding)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map x (B, T, H, W, C) under guidance (B, T, C'); T may not exceed padded_length."""
        pooled = self._resample(x, lambda maps: F.avg_pool2d(maps, self.pooling))
        mixed = self.attn(
            self.norm1(pooled),
            guidance[:, :, None, None],
            self.norm1(self.padding_token),
            self.padding_guidance,
            self.padded_length - x.shape[1],
        )
        pooled = pooled + mixed
        pooled = pooled + self.mlp(self.norm2(pooled))
        return x + self._resample(pooled, lambda maps: self._to_size(maps, x.shape[2:4]))

    def _resample(self, x: Tensor, change) -> Tensor:
        if tuple(self.pooling) == (1, 1):
            return x
        maps = change(x.flatten(0, 1).permute(0, 3, 1, 2))
        return maps.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])

    @staticmethod
    def _to_size(maps: Tensor, size: torch.Size) -> Tensor:
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)

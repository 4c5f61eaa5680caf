"""Class aggregation: linear attention over the classes at each position."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from cat_seg.modeling.aggregator.guided import GuidedAttention
from cat_seg.modeling.chunking import chunked
from cat_seg.modeling.norms import LayerNorm

EPSILON = 1e-6  # added to the denominator of the attention


class LinearAttention(GuidedAttention):
    """Multi-head linear attention with feature map elu(.) + 1 and no output projection."""

    def forward(
        self, x: Tensor, guidance: Tensor, padding: Tensor, padding_guidance: Tensor, padded: int
    ) -> Tensor:
        """Attend over T classes and `padded` identical padding tokens.

        The padding tokens are identical, so one is computed and its contribution to the sums is
        multiplied by their number.

        Args:
            x: tokens (B, T, H, W, C).
            guidance: projected text guidance (B, T, C').
            padding: one padding token (C,).
            padding_guidance: guidance of the padding token (C',).
            padded: number of padding tokens.

        Returns:
            (B, T, H, W, C).
        """
        keys = x.shape[1] + padded
        guide = self.guide(guidance)[:, None, None]
        q, k, v = self._heads(x.permute(0, 2, 3, 1, 4), guide)
        products = k.transpose(-1, -2) @ (v / keys)
        total = k.sum(dim=-2, keepdim=True)
        if padded:
            _, pad_k, pad_v = self._heads(padding[None], self.guide(padding_guidance))
            products = products + padded * (pad_k.transpose(-1, -2) @ (pad_v / keys))
            total = total + padded * pad_k
        norm = (q * total).sum(dim=-1, keepdim=True) + EPSILON
        mixed = (q @ products) * (keys / norm)
        return mixed.permute(0, 4, 1, 2, 3, 5).flatten(-2)

    def _heads(self, x: Tensor, guide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return positive queries and keys, and values, of x (..., N, C) as (..., heads, N, d)."""
        projections = self.project(x, guide)
        split = projections.unflatten(-1, (3, self.heads, -1)).movedim((-3, -2), (0, -3))
        q, k = F.elu(split[:2]) + 1
        return q, k, split[2]


class ClassAggregation(nn.Module):
    """Attention over the classes of pooled cost maps, guided by the text features.

    Source: CAT-Seg, arXiv 2303.11797. The class axis is padded to `padded_length` with copies of
    one learned token, which has a learned guidance vector.

    Args:
        channels: channels of the cost embedding.
        guidance_channels: channels of the projected text guidance.
        heads: number of attention heads.
        pooling: (height, width) of the average pooling; [2, 2] in training and [1, 1] in
            evaluation, as published.
        padded_length: length of the class axis with padding.
        train_padding: whether there are fewer training classes than `padded_length`, so that the
            padding receives gradients.
        recompute: save only the pooled input for the backward pass and recompute the rest.
    """

    def __init__(
        self,
        channels: int,
        guidance_channels: int,
        heads: int,
        pooling: tuple[int, int],
        padded_length: int,
        train_padding: bool,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.pooling = pooling
        self.padded_length = padded_length
        self.norm1 = LayerNorm(channels)
        self.attn = LinearAttention(channels, guidance_channels, heads)
        self.norm2 = LayerNorm(channels)
        self.mlp = Mlp(
            channels,
            4 * channels,
            act_layer=partial(nn.ReLU, inplace=True),  # type: ignore[arg-type]  # timm calls it
        )
        self.padding_token = nn.Parameter(torch.zeros(1, 1, channels), train_padding)
        self.padding_guidance = nn.Parameter(torch.zeros(1, 1, guidance_channels), train_padding)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Aggregate x (B, T, H, W, C) with text guidance (B, T, C'); T is at most padded_length."""
        pooled = self._resample(x, lambda maps: F.avg_pool2d(maps, self.pooling))
        mixed = chunked(lambda rows: self._mix(rows, guidance), pooled, 2, self.recompute)
        return self._resample(mixed, lambda maps: self._to_size(maps, x.shape[2:4])).add_(x)

    def _mix(self, x: Tensor, guidance: Tensor) -> Tensor:
        mixed = self.attn(
            self.norm1(x),
            guidance,
            self.norm1(self.padding_token).flatten(),
            self.padding_guidance.flatten(),
            self.padded_length - x.shape[1],
        )
        x = x + mixed
        return x + self.mlp(self.norm2(x))

    def _resample(self, x: Tensor, change) -> Tensor:
        if tuple(self.pooling) == (1, 1):
            return x
        maps = change(x.flatten(0, 1).permute(0, 3, 1, 2))
        return maps.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])

    @staticmethod
    def _to_size(maps: Tensor, size: torch.Size) -> Tensor:
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)

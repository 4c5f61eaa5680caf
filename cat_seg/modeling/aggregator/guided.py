"""Linear layers over concat(x, guidance), for guidance that many x share.

A linear map of a concatenation is the sum of one linear map per part. The guidance is the same for
all classes of an image (or all positions of a class), so its term is computed once and added by
broadcasting. The concatenation is never built. Parameters are those of the ordinary layers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GuidedLinear(nn.Linear):
    """nn.Linear over concat(x, guidance), computed as one term for each."""

    def __init__(self, channels: int, guidance_channels: int, out_channels: int) -> None:
        super().__init__(channels + guidance_channels, out_channels)
        self.channels = channels

    @property
    def own_weight(self) -> Tensor:
        """The part of the weight that multiplies x, (out_channels, channels)."""
        return self.weight[:, : self.channels]

    def guide(self, guidance: Tensor) -> Tensor:
        """Return the guidance's term of the output, including the bias."""
        return F.linear(guidance, self.weight[:, self.channels :], self.bias)


class GuidedAttention(nn.Module):
    """Projections of an attention whose queries and keys also read guidance.

    q and k project concat(x, guidance); v projects x alone.

    Args:
        channels: channels C of x and of each projection.
        guidance_channels: channels C' of the guidance.
        heads: number of attention heads.
    """

    def __init__(self, channels: int, guidance_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = GuidedLinear(channels, guidance_channels, channels)
        self.k = GuidedLinear(channels, guidance_channels, channels)
        self.v = nn.Linear(channels, channels)

    def guide(self, guidance: Tensor) -> Tensor:
        """Return what guidance (..., C') and the biases add to the projections, (..., 3 C)."""
        q, k = self.q.guide(guidance), self.k.guide(guidance)
        return torch.cat([q, k, self.v.bias.to(q.dtype).expand_as(q)], dim=-1)

    def project(self, x: Tensor, guide: Tensor) -> Tensor:
        """Return queries, keys and values of x (..., C), concatenated to (..., 3 C).

        Args:
            x: tokens, without guidance.
            guide: the result of `guide`; broadcast over x.
        """
        weight = torch.cat([self.q.own_weight, self.k.own_weight, self.v.weight])
        return F.linear(x, weight).add_(guide)

"""Linear layers over concat(x, guidance) where the guidance is shared by many x.

A linear map of a concatenation is the sum of one map over each part. The guidance is the same for
all classes of an image (or for all positions of a class), so its part is computed once and added
by broadcasting; the concatenation is never built. Parameters are those of the plain
layers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GuidedLinear(nn.Linear):
    """nn.Linear over the concatenation of x and guidance channels, in its two parts."""

    def __init__(self, channels: int, guidance_channels: int, out_channels: int) -> None:
        super().__init__(channels + guidance_channels, out_channels)
        self.channels = channels

    @property
    def own_weight(self) -> Tensor:
        """The weight of x alone, (out_channels, channels)."""
        return self.weight[:, : self.channels]

    def guide(self, guidance: Tensor) -> Tensor:
        """The guidance's part of the output, bias included."""
        return F.linear(guidance, self.weight[:, self.channels :], self.bias)


class GuidedAttention(nn.Module):
    """The projections of an attention whose queries and keys also read guidance.

    Args:
        channels: of x, and of each projection.
        guidance_channels: of the guidance.
        heads: attention heads.
    """

    def __init__(self, channels: int, guidance_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = GuidedLinear(channels, guidance_channels, channels)
        self.k = GuidedLinear(channels, guidance_channels, channels)
        self.v = nn.Linear(channels, channels)

    def guide(self, guidance: Tensor) -> Tensor:
        """What guidance (..., C') and the biases add to the projections, (..., 3 C)."""
        q, k = self.q.guide(guidance), self.k.guide(guidance)
        return torch.cat([q, k, self.v.bias.to(q.dtype).expand_as(q)], dim=-1)

    def project(self, x: Tensor, guide: Tensor) -> Tensor:
        """Queries, keys and values of x (..., C) side by side, (..., 3 C).

        Args:
            guide: of `guide`; broadcasts over x.
        """
        weight = torch.cat([self.q.own_weight, self.k.own_weight, self.v.weight])
        return F.linear(x, weight).add_(guide)

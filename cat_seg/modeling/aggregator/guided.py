"""A linear layer over concat(x, guidance) where the guidance is shared by many x.

A linear map of a concatenation is the sum of one map over each part. The guidance is the same for
all classes of an image (or for all positions of a class), so its part is computed once and added
by broadcasting; the concatenation is never built. Parameters are those of the plain
layer.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class GuidedLinear(nn.Linear):
    """nn.Linear over the concatenation of x and guidance channels."""

    def __init__(self, channels: int, guidance_channels: int, out_channels: int) -> None:
        super().__init__(channels + guidance_channels, out_channels)
        self.channels = channels

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map x (..., channels) and guidance (..., guidance channels), which broadcast."""
        return F.linear(x, self.weight[:, : self.channels]) + self.guide(guidance)

    def guide(self, guidance: Tensor) -> Tensor:
        """The guidance's part of the output, bias included."""
        return F.linear(guidance, self.weight[:, self.channels :], self.bias)

"""Layers over concat(x, guidance) where the guidance is shared by many x.

A linear map of a concatenation is the sum of one map over each part. The guidance is the same for
all classes of an image (or for all positions of a class), so its part is computed once and added
by broadcasting; the concatenation is never built. Parameters are those of the plain layer.
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


class GuidedConv2d(nn.Conv2d):
    """3x3 convolution without bias over the concatenation of x and guidance channels."""

    def __init__(self, channels: int, guidance_channels: int, out_channels: int) -> None:
        super().__init__(channels + guidance_channels, out_channels, 3, padding=1, bias=False)
        self.channels = channels

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (B * T, channels, H, W), the T maps of an image one after another.
            guidance: (B, guidance channels, H, W).

        Returns:
            (B * T, out channels, H, W).
        """
        per_map = F.conv2d(x, self.weight[:, : self.channels], padding=1)
        per_image = F.conv2d(guidance, self.weight[:, self.channels :], padding=1)
        return (per_map.unflatten(0, (len(guidance), -1)) + per_image[:, None]).flatten(0, 1)

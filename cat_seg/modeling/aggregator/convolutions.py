"""Convolutions with very few channels on one side, as matrix products.

The kernels behind `torch.nn.functional.conv2d` are made for many channels on both sides.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EmbeddingConv2d(nn.Conv2d):
    """A convolution of few input channels that keeps the size; its output has channels last.

    Args:
        in_channels: input channels P.
        out_channels: output channels C.
        kernel_size: side of the kernel, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, P, H, W) to (N, H, W, C)."""
        side = self.kernel_size[0]
        patches = F.pad(x, 4 * (side // 2,)).unfold(2, side, 1).unfold(3, side, 1)
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (N, H, W, P * side * side)
        return F.linear(patches, self.weight.flatten(1), self.bias)


class OutputConv2d(nn.Conv2d):
    """A convolution to a single channel that keeps the size.

    Each tap of the kernel is a 1x1 convolution. The results are shifted and summed in at least
    float32.

    Args:
        in_channels: input channels C.
        kernel_size: side of the kernel, odd.
    """

    def __init__(self, in_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, H, W)."""
        assert self.bias is not None
        side = self.kernel_size[0]
        # A tap at (i, j) reads the pixel that `fold` moves it away from: hence the flip.
        taps = self.weight[0].flip(1, 2).flatten(1).T[:, :, None, None]
        values = F.conv2d(x, taps).flatten(2)
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        return F.fold(values, x.shape[-2:], side, padding=side // 2).squeeze(1) + self.bias

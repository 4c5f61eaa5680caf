"""The upsampling decoder, applied to each class map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cat_seg.modeling.norms import GroupNorm

CHANNELS_PER_GROUP = 16


class DecoderStage(nn.Module):
    """2x upsampling, concatenation with guidance, and two 3x3 convolutions.

    Args:
        channels: input channels; also those of the upsampled maps and the guidance together.
        guidance_channels: channels of the projected guidance, at the doubled resolution.
        out_channels: output channels.
    """

    def __init__(self, channels: int, guidance_channels: int, out_channels: int) -> None:
        super().__init__()
        upsampled = channels - guidance_channels
        self.up = nn.ConvTranspose2d(channels, upsampled, kernel_size=2, stride=2)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = GroupNorm(out_channels // CHANNELS_PER_GROUP, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = GroupNorm(out_channels // CHANNELS_PER_GROUP, out_channels)

    def prepare(self, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what all class maps of an image share, from guidance (B, C', 2H, 2W).

        `up` and `conv1` follow each other without an activation, so they are merged into one
        transposed convolution, which halves the arithmetic. The contributions of the guidance and
        of the bias of `up` are the same for all class maps of an image, so they are computed once.
        Neither the upsampled maps nor the concatenation are ever materialized.

        Returns:
            Kernel (C, out, 4, 4) and bias (B, 1, out, 2H, 2W) of the merged transposed convolution.
        """
        upsampled = self.up.out_channels
        assert self.up.bias is not None
        bias = self.up.bias[:, None, None].expand(len(guidance), -1, *guidance.shape[-2:])
        shared = self.conv1(torch.cat([bias.to(guidance.dtype), guidance], dim=1))
        kernel = F.conv2d(self.up.weight, self.conv1.weight[:, :upsampled], padding=2)
        return kernel, shared[:, None]

    def forward(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """Map x (B * T, C, H, W) to (B * T, out, 2H, 2W), given the results of `prepare`."""
        x = F.conv_transpose2d(x, kernel, stride=2, padding=1)
        x = x.unflatten(0, (len(bias), -1)).add_(bias).flatten(0, 1)
        x = F.relu(self.norm1(x), inplace=True)
        return F.relu(self.norm2(self.conv2(x)), inplace=True)

"""The upsampling decoder over each class's map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .guided import GuidedConv2d

CHANNELS_PER_GROUP = 16


class DecoderStage(nn.Module):
    """Doubles the resolution, then two 3x3 convolutions, the first also over guidance.

    Args:
        channels: of the maps coming in.
        guidance_channels: of the projected guidance at the doubled resolution.
        out_channels: of the maps going out.
    """

    def __init__(self, channels: int, guidance_channels: int, out_channels: int) -> None:
        super().__init__()
        upsampled = channels - guidance_channels
        self.up = nn.ConvTranspose2d(channels, upsampled, kernel_size=2, stride=2)
        self.conv1 = GuidedConv2d(upsampled, guidance_channels, out_channels)
        self.norm1 = nn.GroupNorm(out_channels // CHANNELS_PER_GROUP, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(out_channels // CHANNELS_PER_GROUP, out_channels)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map x (B * T, C, H, W) and guidance (B, C', 2H, 2W) to (B * T, out, 2H, 2W)."""
        x = F.relu(self.norm1(self.conv1(self.up(x), guidance)), inplace=True)
        return F.relu(self.norm2(self.conv2(x)), inplace=True)

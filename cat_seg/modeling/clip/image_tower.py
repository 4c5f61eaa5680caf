"""CLIP's image tower, returning a feature for every patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.transformer import AttentionWeights, Transformer
from cat_seg.modeling.encoder import ImageFeatures


class ImageTower(nn.Module):
    """Vision transformer whose last block keeps only every token's value path.

    Args:
        architecture: the CLIP that the weights belong to.
        grid: (H, W), the patches of an input image; the positional embedding is resized to it.
    """

    def __init__(self, architecture: Architecture, grid: tuple[int, int]) -> None:
        super().__init__()
        spec = architecture.image
        self.grid = grid
        self.width = spec.width
        self.embed_dim = architecture.embed_dim
        self.patch_size = architecture.patch_size
        self.pretrained_grid = architecture.pretrained_grid
        self.taps = (spec.layers // 3 - 1, 2 * spec.layers // 3 - 1)
        self.conv1 = nn.Conv2d(
            3, spec.width, kernel_size=self.patch_size, stride=self.patch_size, bias=False
        )
        self.class_embedding = nn.Parameter(torch.zeros(spec.width))
        self.positional_embedding = nn.Parameter(
            torch.zeros(self.pretrained_grid**2 + 1, spec.width)
        )
        self.ln_pre = nn.LayerNorm(spec.width)
        self.transformer = Transformer(spec, architecture.quick_gelu)
        self.ln_post = nn.LayerNorm(spec.width)
        self.proj = nn.Parameter(torch.zeros(spec.width, architecture.embed_dim))

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of an input image, in pixels."""
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size

    def forward(self, images: Tensor, weights: Sequence[AttentionWeights]) -> ImageFeatures:
        """Encode normalised images (B, 3, *input_size)."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        cls = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat([cls, patches], dim=1) + self._positions())
        x, tapped = self.transformer.forward_dense(x, weights, self.taps)
        middle = [t[:, 1:].transpose(1, 2).unflatten(2, self.grid) for t in tapped]
        return ImageFeatures(self.ln_post(x) @ self.proj, middle)

    def _positions(self) -> Tensor:
        side = self.pretrained_grid
        if self.grid == (side, side):
            return self.positional_embedding
        cls, patches = self.positional_embedding[:1], self.positional_embedding[1:]
        square = patches.T.unflatten(1, (side, side))[None]
        resized = F.interpolate(square, size=self.grid, mode="bicubic", align_corners=False)
        return torch.cat([cls, resized[0].flatten(1).T])

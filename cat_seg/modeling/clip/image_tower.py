"""CLIP's image tower with dense output: one feature per patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.transformer import AttentionWeights, Transformer
from cat_seg.modeling.encoder import ImageFeatures
from cat_seg.modeling.norms import LayerNorm


class ImageTower(nn.Module):
    """Vision transformer whose last block replaces attention by each token's value path.

    Args:
        architecture: architecture of the CLIP that the weights come from.
        grid: (H, W), number of patches of an input image. The positional embedding is resized to
            it bicubically.
    """

    def __init__(self, architecture: Architecture, grid: tuple[int, int]) -> None:
        super().__init__()
        spec = architecture.image
        self.grid = grid
        self.width = spec.width
        self.embed_dim = architecture.embed_dim
        self.patch_size = architecture.patch_size
        self.pretrained_grid = architecture.pretrained_grid
        # Blocks whose output becomes guidance: indices 3 and 7 of 12 (ViT-B), 7 and 15 of 24 (L).
        self.taps = (spec.layers // 3 - 1, 2 * spec.layers // 3 - 1)
        self.conv1 = nn.Conv2d(
            3, spec.width, kernel_size=self.patch_size, stride=self.patch_size, bias=False
        )
        self.class_embedding = nn.Parameter(torch.zeros(spec.width))
        self.positional_embedding = nn.Parameter(
            torch.zeros(self.pretrained_grid**2 + 1, spec.width)
        )
        self.ln_pre = LayerNorm(spec.width)
        self.transformer = Transformer(spec, architecture.quick_gelu)
        self.ln_post = LayerNorm(spec.width)
        self.proj = nn.Parameter(torch.zeros(spec.width, architecture.embed_dim))

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of an input image, in pixels."""
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size

    def forward(self, images: Tensor, weights: Sequence[AttentionWeights]) -> ImageFeatures:
        """Encode normalized images.

        Args:
            images: (B, 3, *input_size).
            weights: effective attention weights, one entry per block.

        Returns:
            Dense features (B, 1 + HW, C), CLS first, and two middle maps (B, width, H, W).
        """
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

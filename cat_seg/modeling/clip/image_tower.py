"""CLIP's image tower with dense output: one feature per patch, and what all image towers share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.transformer import AttentionWeights, Transformer
from cat_seg.modeling.encoder import ImageFeatures
from cat_seg.modeling.norms import LayerNorm


class DenseImageTower(nn.Module):
    """Base class of image towers: patches, their positions, and the blocks.

    Args:
        architecture: architecture of the model that the weights come from.
        grid: (H, W), number of patches of an input image. The positional embedding is resized to
            it bicubically.
        cls: whether a CLS token stands before the patches.
        bias: whether the projection of the patches has a bias.
    """

    transformer: Transformer

    def __init__(
        self, architecture: Architecture, grid: tuple[int, int], cls: bool, bias: bool
    ) -> None:
        super().__init__()
        spec = architecture.image
        self.grid = grid
        self.width = spec.width
        self.embed_dim = architecture.embed_dim
        self.patch_size = architecture.patch_size
        self.pretrained_grid = architecture.pretrained_grid
        # Blocks whose output becomes guidance: indices 3 and 7 of 12 (ViT-B), 7 and 15 of 24 (L).
        self.taps = (spec.layers // 3 - 1, 2 * spec.layers // 3 - 1)
        self.prefix = int(cls)
        self.conv1 = nn.Conv2d(
            3, spec.width, kernel_size=self.patch_size, stride=self.patch_size, bias=bias
        )
        if cls:
            self.class_embedding = nn.Parameter(torch.zeros(spec.width))
        self.positional_embedding = nn.Parameter(
            torch.zeros(self.pretrained_grid**2 + self.prefix, spec.width)
        )

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of an input image, in pixels."""
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size

    def tokens(self, images: Tensor) -> Tensor:
        """Return the embedded tokens of images (B, 3, *input_size), (B, [1 +] HW, width)."""
        x = self.conv1(images).flatten(2).transpose(1, 2)
        if self.prefix:
            cls = self.class_embedding.expand(len(x), 1, -1)
            x = torch.cat([cls, x], dim=1)
        return x + self._positions()

    def maps(self, tapped: Sequence[Tensor]) -> list[Tensor]:
        """Return tokens (B, [1 +] HW, width) as maps (B, width, H, W)."""
        return [t[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid) for t in tapped]

    def forward(self, images: Tensor, weights: Sequence[AttentionWeights]) -> ImageFeatures:
        """Encode normalized images.

        Args:
            images: (B, 3, *input_size).
            weights: effective attention weights, one entry per block.

        Returns:
            Dense features (B, [1 +] HW, C), CLS first, and two middle maps (B, width, H, W).
        """
        raise NotImplementedError

    def unused(self) -> list[nn.Module]:
        """Return the parts of the last block that do not affect the dense features."""
        attention = self.transformer.resblocks[-1].attn
        return [attention.q_proj, attention.k_proj]

    def _positions(self) -> Tensor:
        side = self.pretrained_grid
        if self.grid == (side, side):
            return self.positional_embedding
        cls, patches = self.positional_embedding.tensor_split([self.prefix])
        square = patches.T.unflatten(1, (side, side))[None]
        resized = F.interpolate(square, size=self.grid, mode="bicubic", align_corners=False)
        return torch.cat([cls, resized[0].flatten(1).T])


class ImageTower(DenseImageTower):
    """CLIP's, whose last block replaces attention by each token's value path.

    Args:
        architecture, grid: as in `DenseImageTower`.
    """

    def __init__(self, architecture: Architecture, grid: tuple[int, int]) -> None:
        super().__init__(architecture, grid, cls=True, bias=False)
        spec = architecture.image
        self.ln_pre = LayerNorm(spec.width)
        self.transformer = Transformer(spec)
        self.ln_post = LayerNorm(spec.width)
        self.proj = nn.Parameter(torch.zeros(spec.width, architecture.embed_dim))

    def forward(self, images: Tensor, weights: Sequence[AttentionWeights]) -> ImageFeatures:
        """Encode normalized images; see `DenseImageTower.forward`."""
        x = self.ln_pre(self.tokens(images))
        x, tapped = self.transformer(x, weights[:-1], self.taps)
        x = self.transformer.resblocks[-1].forward_dense(x, weights[-1])
        return ImageFeatures(self.ln_post(x) @ self.proj, self.maps(tapped))

"""EVA02-CLIP's image tower with dense output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import build_rotary_pos_embed
from torch import Tensor, nn

from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.image_tower import DenseImageTower
from cat_seg.modeling.clip.timm_towers import ROPE_SIDE
from cat_seg.modeling.clip.transformer import AttentionWeights, Transformer
from cat_seg.modeling.encoder import ImageFeatures
from cat_seg.modeling.norms import LayerNorm


class EVAImageTower(DenseImageTower):
    """EVA02-CLIP's (Sun et al., EVA-CLIP, arXiv 2303.15389), with rotary positions.

    The last block is applied in one of two ways:

    - "value": each token's value path in place of attention, its own residual, and the MLP, as
      MaskCLIP does (Zhou et al., ECCV 2022, arXiv 2112.01071).
    - "csa": correlative self-attention without residual and MLP, and features of unit length, as
      DeCLIP trains its weights and CAT-Seg on them (Wang et al., CVPR 2025, arXiv 2505.04410).

    Args:
        architecture, grid: as in `DenseImageTower`.
        dense: which way.
    """

    def __init__(
        self, architecture: Architecture, grid: tuple[int, int], dense: str = "value"
    ) -> None:
        super().__init__(architecture, grid, cls=True, bias=True)
        spec = architecture.image
        self.correlative = dense == "csa"
        self.transformer = Transformer(spec)
        self.ln_post = LayerNorm(spec.width, spec.norm_eps)
        self.proj = nn.Linear(spec.width, architecture.embed_dim)

    def forward(self, images: Tensor, weights: Sequence[AttentionWeights]) -> ImageFeatures:
        """Encode normalized images; see `DenseImageTower.forward`. "csa" returns no CLS token."""
        x = self.tokens(images)
        x, tapped = self.transformer(x, weights[:-1], self.taps, self.rope(x.device))
        last, own = self.transformer.resblocks[-1], weights[-1]
        if self.correlative:
            x = last.attn.correlative(last.ln_1(x), own)[:, 1:]
            dense = F.normalize(self.proj(self.ln_post(x)), dim=-1)
        else:
            x = last.forward_dense(x, own, cls_residual=False)
            dense = self.proj(self.ln_post(x))
        return ImageFeatures(dense, self.maps(tapped))

    def unused(self) -> list[nn.Module]:
        """Return the parts of the last block that do not affect the dense features."""
        last = self.transformer.resblocks[-1]
        return [last.ln_2, last.mlp] if self.correlative else super().unused()

    def rope(self, device: torch.device) -> Tensor:
        """Return the rotary embedding of the patches, (HW, 2 width / heads)."""
        sines, cosines = build_rotary_pos_embed(
            list(self.grid),
            dim=self.width // self.transformer.resblocks[0].attn.heads,
            in_pixels=False,
            ref_feat_shape=[ROPE_SIDE, ROPE_SIDE],
            device=device,
        )
        return torch.cat([sines, cosines], dim=-1)

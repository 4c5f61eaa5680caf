"""Fine-tuning of CLIP's attention in hyperbolic space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cat_seg.errors import UserError
from cat_seg.modeling import poincare
from cat_seg.modeling.clip.adapters.base import Adapter, TowerWeights
from cat_seg.modeling.clip.architecture import Architecture, TowerSpec
from cat_seg.modeling.clip.transformer import AttentionWeights


@dataclass(frozen=True)
class HyperbolicSettings:
    """MODEL.HYPERBOLIC: curvature of each tower's Poincare ball, side of the adapters' blocks.

    Raises:
        UserError: for a curvature or a block size that is no positive number.
    """

    text_curvature: float = 1.0
    image_curvature: float = 0.01
    block_size: int = 128

    def __post_init__(self) -> None:
        for key in ("text_curvature", "image_curvature", "block_size"):
            value = getattr(self, key)
            if not 0 < value < math.inf:
                raise UserError(
                    f"MODEL.HYPERBOLIC.{key.upper()}: {value} is no positive number; set it to"
                    f" one such as {getattr(type(self), key)}"
                )


class HyperbolicAdapter(Adapter):
    """HyperCLIP's adapter (Peng et al., CVPR 2025, pp. 4562-4572).

    The rows of every query, key and value weight are taken to the Poincare ball by the
    exponential map, multiplied by a block-diagonal matrix in Moebius' sense, and taken back. The
    matrices start at the identity. Output projections are not adapted.

    Args:
        architecture: widths and depths of both towers.
        settings: curvatures and block size.

    Raises:
        UserError: if a tower's width is not a multiple of the block size.
    """

    def __init__(self, architecture: Architecture, settings: HyperbolicSettings) -> None:
        super().__init__()
        self.settings = settings
        # One tensor a tower: (layers, q/k/v, blocks, side, side).
        self.text = self._identity(architecture.text, "text", architecture.open_clip_name)
        self.image = self._identity(architecture.image, "image", architecture.open_clip_name)

    def forward(self, frozen: TowerWeights) -> TowerWeights:
        """Adapt query, key and value weights of both towers."""
        text = self._adapt(frozen.text, self.text, self.settings.text_curvature)
        image = self._adapt(frozen.image, self.image, self.settings.image_curvature)
        return TowerWeights(text, image)

    def _identity(self, spec: TowerSpec, tower: str, clip: str) -> nn.Parameter:
        side = self.settings.block_size
        if spec.width % side:
            raise UserError(
                f"MODEL.HYPERBOLIC.BLOCK_SIZE: {side} does not divide the width {spec.width} of"
                f" the {tower} tower of {clip}"
            )
        return nn.Parameter(torch.eye(side).repeat(spec.layers, 3, spec.width // side, 1, 1))

    @staticmethod
    def _adapt(
        frozen: list[AttentionWeights], matrices: Tensor, c: float
    ) -> list[AttentionWeights]:
        adapted = []
        with torch.autocast(matrices.device.type, enabled=False):
            for weights, blocks in zip(frozen, matrices, strict=True):
                points = poincare.exp0(torch.stack(weights[:3]), c)
                moved = poincare.log0(poincare.mobius_matvec(blocks, points, c), c)
                adapted.append(AttentionWeights(*moved, weights.out))
        return adapted

"""HyperCLIP's adapter: fine-tuning of CLIP's attention weights in hyperbolic space."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from cat_seg.modeling import poincare
from cat_seg.modeling.clip.adapters.base import Adapter, TowerWeights
from cat_seg.modeling.clip.architecture import Architecture, TowerSpec
from cat_seg.modeling.clip.transformer import AttentionWeights


@dataclass(frozen=True)
class HyperbolicSettings:
    """Curvature c of each tower's Poincare ball, and the side of the adapter's diagonal blocks.

    Raises:
        ValueError: a curvature or the block size is not a positive finite number.
    """

    text_curvature: float = 1.0
    image_curvature: float = 0.01
    block_size: int = 128

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise ValueError(
                    f"{field.name} must be a positive number such as {field.default}; it is {value}"
                )


class HyperbolicAdapter(Adapter):
    """HyperCLIP's adapter (Peng et al., CVPR 2025, pp. 4562-4572).

    Each row w of every query, key and value weight becomes log0(M (x) exp0(w)): the exponential
    map takes it to the Poincare ball, a block-diagonal matrix M multiplies it in the Moebius sense,
    and the logarithmic map takes it back. Every M starts at the identity. Output projections are
    not adapted.

    Args:
        architecture: gives the width and depth of both towers.
        settings: curvatures and block size.

    Raises:
        ValueError: the width of a tower is not a multiple of the block size.
    """

    def __init__(self, architecture: Architecture, settings: HyperbolicSettings) -> None:
        super().__init__()
        self.settings = settings
        # One parameter per tower: (layers, 3 for q, k, v, width / side, side, side).
        self.text = self._identity(architecture.text, "text", architecture.open_clip_name)
        self.image = self._identity(architecture.image, "image", architecture.open_clip_name)

    def forward(self, frozen: TowerWeights) -> TowerWeights:
        """Return both towers' weights with query, key and value adapted."""
        text = self._adapt(frozen.text, self.text, self.settings.text_curvature)
        image = self._adapt(frozen.image, self.image, self.settings.image_curvature)
        return TowerWeights(text, image)

    def _identity(self, spec: TowerSpec, tower: str, clip: str) -> nn.Parameter:
        side = self.settings.block_size
        if spec.width % side:
            raise ValueError(
                f"block_size must divide the width {spec.width} of the {tower} tower of {clip}; it"
                f" is {side}"
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
                query, key, value = poincare.log0(poincare.mobius_matvec(blocks, points, c), c)
                adapted.append(AttentionWeights(query, key, value, weights.out))
        return adapted

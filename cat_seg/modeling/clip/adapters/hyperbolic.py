"""HyperCLIP's adapter: fine-tuning of CLIP's attention weights in hyperbolic space."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cat_seg.modeling.clip.adapters.base import Adapter, TowerWeights
from cat_seg.modeling.clip.adapters.diagonal import adapt_rows, check_positive, identities
from cat_seg.modeling.clip.architecture import Architecture


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
        check_positive(self)


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
        side = settings.block_size
        # One parameter per tower: (layers, 3 for q, k, v, width / side, side, side).
        self.text = nn.Parameter(identities(architecture, "text", "block_size", side))
        self.image = nn.Parameter(identities(architecture, "image", "block_size", side))

    def forward(self, frozen: TowerWeights) -> TowerWeights:
        """Return both towers' weights with query, key and value adapted."""
        text = adapt_rows(frozen.text, self.text, self.settings.text_curvature)
        image = adapt_rows(frozen.image, self.image, self.settings.image_curvature)
        return TowerWeights(text, image)

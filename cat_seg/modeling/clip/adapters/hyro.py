"""HyRo's adapter: HyperCLIP's, with a rotation of the rows inside the Poincare ball."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from cat_seg.modeling.clip.adapters.base import Adapter, TowerWeights
from cat_seg.modeling.clip.adapters.diagonal import adapt_rows, check_positive, identities
from cat_seg.modeling.clip.adapters.oft import cayley
from cat_seg.modeling.clip.architecture import Architecture


@dataclass(frozen=True)
class HyRoSettings:
    """Curvature c of each tower's Poincare ball, and the sides of the diagonal blocks.

    Raises:
        ValueError: a value is not a positive finite number.
    """

    text_curvature: float = 1.0
    image_curvature: float = 0.01
    block_size: int = 128
    rotation_size: int = 256

    def __post_init__(self) -> None:
        check_positive(self)


class HyRoAdapter(Adapter):
    """HyRo's adapter (CVPR 2026 workshop, arXiv 2605.08874).

    Each row w of every query, key and value weight becomes log0((M (x) exp0(w)) Q^T). M is
    HyperCLIP's block-diagonal matrix. Q is an orthogonal matrix with blocks twice as large, the
    Cayley map of free matrices T: Q = (I - S)^-1 (I + S), S = T - T^T. M starts at the identity and
    T at 0, so Q starts at the identity too. Output projections are not adapted.

    Args:
        architecture: gives the width and depth of both towers.
        settings: curvatures and block sizes.

    Raises:
        ValueError: the width of a tower is not a multiple of a block size.
    """

    def __init__(self, architecture: Architecture, settings: HyRoSettings) -> None:
        super().__init__()
        self.settings = settings
        # Each (layers, 3 for q, k, v, width / side, side, side).
        scaling = "block_size", settings.block_size
        rotation = "rotation_size", settings.rotation_size
        self.scaling_text = nn.Parameter(identities(architecture, "text", *scaling))
        self.scaling_image = nn.Parameter(identities(architecture, "image", *scaling))
        self.rotation_text = nn.Parameter(identities(architecture, "text", *rotation).zero_())
        self.rotation_image = nn.Parameter(identities(architecture, "image", *rotation).zero_())

    def forward(self, frozen: TowerWeights) -> TowerWeights:
        """Return both towers' weights with query, key and value adapted."""
        curvatures = self.settings.text_curvature, self.settings.image_curvature
        with torch.autocast(self.rotation_text.device.type, enabled=False):
            q_text, q_image = cayley(-2 * self.rotation_text), cayley(-2 * self.rotation_image)
        text = adapt_rows(frozen.text, self.scaling_text, curvatures[0], q_text)
        image = adapt_rows(frozen.image, self.scaling_image, curvatures[1], q_image)
        return TowerWeights(text, image)

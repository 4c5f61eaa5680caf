"""HyperCLIP++'s adapter: shared matrices act on attention weights in hyperbolic space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from cat_seg.modeling.clip.adapters.base import Adapter, TowerWeights
from cat_seg.modeling.clip.adapters.diagonal import adapt_rows, check_positive
from cat_seg.modeling.clip.adapters.slots import SLOT, SlotCounts, mix_rows, mix_slots
from cat_seg.modeling.clip.architecture import Architecture

EXPANSION = 4  # width of a mixer's middle, relative to its ends


@dataclass(frozen=True)
class HyperbolicPlusSettings:
    """Curvature c of each tower's Poincare ball.

    Raises:
        ValueError: a curvature is not a positive finite number.
    """

    text_curvature: float = 0.01
    image_curvature: float = 0.01

    def __post_init__(self) -> None:
        check_positive(self)


class HyperbolicPlusAdapter(Adapter):
    """HyperCLIP++'s adapter (the journal extension of HyperCLIP, code of 2025-10-03).

    Each row w of every query, key, value and output weight becomes log0(M (x) exp0(w)), as in
    HyperCLIP. The block-diagonal matrices M are mixed from one shared tensor, as in H-CLIP; see
    `cat_seg.modeling.clip.adapters.slots`. Both kinds of mixers are products of two matrices with
    a middle four times as wide. All matrices act on the input side and none is orthogonal.

    The shared tensor starts at the identity and the mixers at random, as published. M then starts
    as a small random multiple of the identity, not as the identity.

    Args:
        architecture: gives the width and depth of both towers.
        settings: curvatures.

    Raises:
        ValueError: the width of a tower is not a multiple of 128.
    """

    def __init__(self, architecture: Architecture, settings: HyperbolicPlusSettings) -> None:
        super().__init__()
        counts = SlotCounts.of(architecture, "HyperCLIP++")
        blocks, slots, rows = counts.blocks, counts.slots, counts.rows
        self.settings = settings
        self.text_slots = counts.text
        self.shared = nn.Parameter(torch.eye(SLOT)[:, :, None, None].repeat(1, 1, rows, slots))
        self.slot_in = _mixer(blocks, EXPANSION * slots, slots)
        self.slot_out = _mixer(blocks, slots, EXPANSION * slots)
        self.row_in = _mixer(EXPANSION * rows, rows)
        self.row_out = _mixer(rows, EXPANSION * rows)

    def forward(self, frozen: TowerWeights) -> TowerWeights:
        """Return both towers' attention weights, all four adapted."""
        with torch.autocast(self.shared.device.type, enabled=False):
            rows = mix_rows(self.shared, self.row_out @ self.row_in)
            mixers = self.slot_out @ self.slot_in
            text = mix_slots(rows, mixers[:, : self.text_slots], len(frozen.text))
            image = mix_slots(rows, mixers[:, self.text_slots :], len(frozen.image))
            return TowerWeights(
                adapt_rows(frozen.text, text, self.settings.text_curvature),
                adapt_rows(frozen.image, image, self.settings.image_curvature),
            )


def _mixer(*shape: int) -> nn.Parameter:
    """Return a mixer with the start values of nn.Linear, rounded to float16 as published."""
    bound = shape[-1] ** -0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound).half().float())

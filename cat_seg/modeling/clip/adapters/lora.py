"""Low-rank adapters (LoRA) on CLIP's attention weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cat_seg.modeling.clip.adapters.base import Adapter, TowerWeights
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.transformer import AttentionWeights

# Names of the projections in settings -> fields of AttentionWeights, in their order.
PROJECTIONS = dict(zip(("q", "k", "v", "out"), AttentionWeights._fields, strict=True))


@dataclass(frozen=True)
class LoRASettings:
    """Rank, scale and place of the adapters.

    Attributes:
        rank: rank r of the added matrices.
        alpha: they are multiplied by alpha / rank.
        dropout: probability with which an input channel is dropped from an added matrix in a
            training step, the same channels for all tokens.
        text_projections, image_projections: adapted projections of each tower, of "q", "k", "v"
            and "out"; none leaves the tower as it is.

    Raises:
        ValueError: a value is out of range, or a projection is unknown or named twice.
    """

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    text_projections: tuple[str, ...] = ("q", "v")
    image_projections: tuple[str, ...] = ("q", "v")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be 1 or more; it is {self.rank}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be a positive number such as 8.0; it is {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1; it is {self.dropout}")
        for field in ("text_projections", "image_projections"):
            names = getattr(self, field)
            if len(set(names)) < len(names) or not set(names) <= set(PROJECTIONS):
                raise ValueError(
                    f"{field} must be different ones of {', '.join(PROJECTIONS)}; it is"
                    f" {list(names)}"
                )
        if not self.text_projections and not self.image_projections:
            raise ValueError("image_projections must name a projection if text_projections do not")


class LoRAAdapter(Adapter):
    """Low-rank adapters (Hu et al., LoRA, ICLR 2022, arXiv 2106.09685).

    An adapted weight is W + alpha / rank * B A, with A (rank, C) and B (C, rank), both stacked over
    the blocks of a tower in one parameter. A starts as an
    nn.Linear's weight does and B at 0, so CLIP starts unchanged.

    Dropout removes input channels of A. The original drops channels of every token's input
    independently, which no change of the weights can express; here one choice per step and
    projection holds for all tokens. The expected output is the same.

    Args:
        architecture: gives the width and depth of both towers.
        settings: rank, scale and place.

    Raises:
        ValueError: the rank exceeds the width of an adapted tower.
    """

    def __init__(self, architecture: Architecture, settings: LoRASettings) -> None:
        super().__init__()
        self.settings = settings
        for tower, spec, projections in (
            ("text", architecture.text, settings.text_projections),
            ("image", architecture.image, settings.image_projections),
        ):
            if projections and settings.rank > spec.width:
                raise ValueError(
                    f"rank must be at most the width {spec.width} of the {tower} tower of"
                    f" {architecture.open_clip_name}; it is {settings.rank}"
                )
            shape, bound = (spec.layers, settings.rank, spec.width), spec.width**-0.5
            for projection in projections:
                down = torch.empty(shape).uniform_(-bound, bound)
                up = torch.zeros(spec.layers, spec.width, settings.rank)
                self.register_parameter(f"lora_{tower}_{projection}_down", nn.Parameter(down))
                self.register_parameter(f"lora_{tower}_{projection}_up", nn.Parameter(up))

    def forward(self, frozen: TowerWeights) -> TowerWeights:
        """Return both towers' weights with the products added to the chosen projections."""
        return TowerWeights(
            self._adapt(frozen.text, "text", self.settings.text_projections),
            self._adapt(frozen.image, "image", self.settings.image_projections),
        )

    def _adapt(
        self, weights: list[AttentionWeights], tower: str, projections: tuple[str, ...]
    ) -> list[AttentionWeights]:
        for projection in projections:
            name, added = PROJECTIONS[projection], self._product(f"lora_{tower}_{projection}")
            weights = [
                block._replace(**{name: getattr(block, name) + delta})
                for block, delta in zip(weights, added, strict=True)
            ]
        return weights

    def _product(self, name: str) -> Tensor:
        """Return alpha / rank * B A of every block, (layers, C, C)."""
        down, up = self.get_parameter(f"{name}_down"), self.get_parameter(f"{name}_up")
        with torch.autocast(down.device.type, enabled=False):
            channels = down.new_ones(down.shape[0], 1, down.shape[2])
            kept = F.dropout(channels, self.settings.dropout, self.training)
            return self.settings.alpha / self.settings.rank * (up @ (down * kept))

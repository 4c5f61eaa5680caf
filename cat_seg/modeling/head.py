"""CATSegHead: CLIP and the aggregator, behind detectron2's head registry."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ..checkpoint import checkpoint_holds_clip
from ..config_checks import check_head
from ..data.vocabularies import load_vocabulary
from .aggregator import (
    AggregationLayer,
    Aggregator,
    ClassAggregation,
    Guidance,
    SpatialAggregation,
    cost_volume,
    scatter_logits,
    select_classes,
)
from .clip import CLIP, ImageFeatures, build_clip
from .clip.adapters import HyperbolicSettings


@SEM_SEG_HEADS_REGISTRY.register()
class CATSegHead(nn.Module):
    """Encodes images and class names with CLIP and aggregates their similarity.

    Args:
        clip: both CLIP towers.
        aggregator: from the cost volume to logits.
        upsample1, upsample2: bring CLIP's middle features to twice and four times the grid.
        most_classes: classes that go on to the aggregator at most.
        geodesic: geodesic similarity in the cost volume in place of the cosine.
    """

    @configurable
    def __init__(
        self,
        *,
        clip: CLIP,
        aggregator: Aggregator,
        upsample1: nn.ConvTranspose2d,
        upsample2: nn.ConvTranspose2d,
        most_classes: int,
        geodesic: bool,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.aggregator = aggregator
        self.upsample1 = upsample1
        self.upsample2 = upsample2
        self.most_classes = most_classes
        self.geodesic = geodesic

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec] | None = None
    ) -> dict[str, Any]:
        """Build the parts from a config; CLIP itself is the backbone, so no input shape."""
        head = cfg.MODEL.SEM_SEG_HEAD
        check_head(head)
        clip = build_clip(
            head.CLIP_PRETRAINED,
            None if checkpoint_holds_clip(cfg.MODEL.WEIGHTS) else head.CLIP_WEIGHTS,
            head.CLIP_FINETUNE,
            cfg.MODEL.PROMPT_ENSEMBLE_TYPE,
            tuple(head.FEATURE_RESOLUTION),
            HyperbolicSettings(
                cfg.MODEL.HYPERBOLIC.TEXT_CURVATURE,
                cfg.MODEL.HYPERBOLIC.IMAGE_CURVATURE,
                cfg.MODEL.HYPERBOLIC.BLOCK_SIZE,
            ),
        )
        width = clip.image.width
        first, second = head.DECODER_GUIDANCE_DIMS
        return {
            "clip": clip,
            "aggregator": _build_aggregator(cfg, clip),
            "upsample1": nn.ConvTranspose2d(width, first, kernel_size=2, stride=2),
            "upsample2": nn.ConvTranspose2d(width, second, kernel_size=4, stride=4),
            "most_classes": head.PAD_LEN,
            "geodesic": cfg.MODEL.HYPERSPHERICAL.GEODESIC_CORRELATION,
        }

    def guidance(self, features: ImageFeatures) -> Guidance:
        """The three levels of appearance guidance."""
        first, second = features.middle
        return Guidance(features.dense_map(), self.upsample1(first), self.upsample2(second))

    def forward(self, features: Tensor, text: Tensor, guidance: Guidance) -> Tensor:
        """Logits (B, T, 4H, 4W).

        Args:
            features: dense image features (B, C, H, W).
            text: L2-normalised text features (T, P, C).
            guidance: what guides the aggregation.
        """
        cost = cost_volume(features, text, self.geodesic)
        # One feature a class: the mean direction of its prompts.
        mean = text[:, 0] if text.shape[1] == 1 else F.normalize(text.mean(dim=1), dim=-1)
        classes = len(mean)
        mean = mean.expand(len(cost), -1, -1)
        if classes <= self.most_classes:
            return self.aggregator(cost, mean, guidance)
        selected = select_classes(cost, self.most_classes)
        cost = cost.take_along_dim(selected[:, :, None, None, None], dim=1)
        mean = mean.take_along_dim(selected[:, :, None], dim=1)
        return scatter_logits(self.aggregator(cost, mean, guidance), selected, classes)


def _build_aggregator(cfg: CfgNode, clip: CLIP) -> Aggregator:
    head = cfg.MODEL.SEM_SEG_HEAD
    grid, window, channels = tuple(head.FEATURE_RESOLUTION), head.WINDOW_SIZES, head.HIDDEN_DIMS
    train_classes = len(load_vocabulary(head.TRAIN_CLASS_JSON))
    recompute = cfg.MODEL.ACTIVATION_CHECKPOINTING
    layers = [
        AggregationLayer(
            SpatialAggregation(
                channels,
                head.APPEARANCE_GUIDANCE_PROJ_DIM,
                head.NUM_HEADS,
                grid,
                window,
                recompute,
            ),
            ClassAggregation(
                channels,
                head.TEXT_GUIDANCE_PROJ_DIM,
                head.NUM_HEADS,
                tuple(head.POOLING_SIZES),
                head.PAD_LEN,
                train_padding=train_classes < head.PAD_LEN,
                recompute=recompute,
            ),
        )
        for _ in range(head.NUM_LAYERS)
    ]
    return Aggregator(
        layers,
        channels,
        templates=len(clip.prompts),
        clip_channels=clip.image.embed_dim,
        text_channels=head.TEXT_GUIDANCE_PROJ_DIM,
        image_channels=head.APPEARANCE_GUIDANCE_PROJ_DIM,
        decoder_channels=tuple(head.DECODER_DIMS),
        guidance_channels=tuple(head.DECODER_GUIDANCE_DIMS),
        projected_channels=tuple(head.DECODER_GUIDANCE_PROJ_DIMS),
        output_bias=head.OUTPUT_BIAS_INIT,
        recompute=recompute,
    )

"""CATSegHead: an encoder and the aggregator, registered as a detectron2 head."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from cat_seg.configuration.checks import check_head
from cat_seg.data.vocabularies import load_vocabulary
from cat_seg.modeling.aggregator import (
    AggregationLayer,
    Aggregator,
    ClassAggregation,
    Guidance,
    SpatialAggregation,
    cost_volume,
    scatter_logits,
    select_classes,
)
from cat_seg.modeling.clip import CLIP  # noqa: F401 (registers the encoder)
from cat_seg.modeling.encoder import Encoder, ImageFeatures, build_encoder


@SEM_SEG_HEADS_REGISTRY.register()
class CATSegHead(nn.Module):
    """Encoder of images and class names, with the aggregator of their similarity.

    Args:
        encoder: CLIP, or another vision-language model; see `cat_seg.modeling.encoder`.
        aggregator: maps the cost volume to logits.
        upsample1, upsample2: upsample the encoder's two middle maps to 2x and 4x the grid.
        max_classes: maximum number of classes passed to the aggregator.
        most_in_evaluation: the same in evaluation mode, if lower; 0 for no other limit.
        geodesic: use geodesic similarity instead of cosine in the cost volume.
    """

    @configurable
    def __init__(
        self,
        *,
        encoder: Encoder,
        aggregator: Aggregator,
        upsample1: nn.ConvTranspose2d,
        upsample2: nn.ConvTranspose2d,
        max_classes: int,
        geodesic: bool,
        most_in_evaluation: int = 0,
    ) -> None:
        super().__init__()
        self.clip = encoder  # named as in checkpoints
        self.aggregator = aggregator
        self.upsample1 = upsample1
        self.upsample2 = upsample2
        self.max_classes = max_classes
        self.most_in_evaluation = most_in_evaluation
        self.geodesic = geodesic

    @property
    def encoder(self) -> Encoder:
        """The vision-language model."""
        return self.clip

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec] | None = None
    ) -> dict[str, Any]:
        """Return the constructor arguments for a config.

        `input_shape` is unused: the encoder takes the place of a backbone.
        """
        head = cfg.MODEL.SEM_SEG_HEAD
        check_head(head)
        encoder = build_encoder(cfg)
        width = encoder.middle_dim
        first, second = head.DECODER_GUIDANCE_DIMS
        return {
            "encoder": encoder,
            "aggregator": _build_aggregator(cfg, encoder),
            "upsample1": nn.ConvTranspose2d(width, first, kernel_size=2, stride=2),
            "upsample2": nn.ConvTranspose2d(width, second, kernel_size=4, stride=4),
            "max_classes": head.PAD_LEN,
            "geodesic": cfg.MODEL.HYPERSPHERICAL.GEODESIC_CORRELATION,
            "most_in_evaluation": cfg.TEST.MOST_CLASSES,
        }

    @property
    def class_limit(self) -> int:
        """Maximum number of classes passed to the aggregator in the current mode."""
        if self.training or not self.most_in_evaluation:
            return self.max_classes
        return min(self.most_in_evaluation, self.max_classes)

    def guidance(self, features: ImageFeatures) -> Guidance:
        """Return the three levels of appearance guidance."""
        first, second = features.middle
        return Guidance(features.dense_map(), self.upsample1(first), self.upsample2(second))

    def forward(self, features: Tensor, text: Tensor, guidance: Guidance) -> Tensor:
        """Return logits (B, T, 4H, 4W).

        Args:
            features: dense image features (B, C, H, W).
            text: L2-normalized text features (T, P, C).
            guidance: appearance guidance of the aggregation.
        """
        cost = cost_volume(features, text, self.geodesic)
        # One text feature per class: the normalized mean over its P prompts.
        mean = text[:, 0] if text.shape[1] == 1 else F.normalize(text.mean(dim=1), dim=-1)
        classes = len(mean)
        mean = mean.expand(len(cost), -1, -1)
        if classes <= self.class_limit:
            return self.aggregator(cost, mean, guidance)
        selected = select_classes(cost, self.class_limit)
        cost = cost.take_along_dim(selected[:, :, None, None, None], dim=1)
        mean = mean.take_along_dim(selected[:, :, None], dim=1)
        return scatter_logits(self.aggregator(cost, mean, guidance), selected, classes)


def _build_aggregator(cfg: CfgNode, encoder: Encoder) -> Aggregator:
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
        templates=encoder.templates,
        clip_channels=encoder.embed_dim,
        text_channels=head.TEXT_GUIDANCE_PROJ_DIM,
        image_channels=head.APPEARANCE_GUIDANCE_PROJ_DIM,
        decoder_channels=tuple(head.DECODER_DIMS),
        guidance_channels=tuple(head.DECODER_GUIDANCE_DIMS),
        projected_channels=tuple(head.DECODER_GUIDANCE_PROJ_DIMS),
        output_bias=head.OUTPUT_BIAS_INIT,
        recompute=recompute,
    )

"""Cost aggregation: from the cost volume to one logit map per class."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cat_seg.modeling.aggregator.class_aggregation import ClassAggregation
from cat_seg.modeling.aggregator.convolutions import EmbeddingConv2d, OutputConv2d
from cat_seg.modeling.aggregator.decoder import DecoderStage
from cat_seg.modeling.aggregator.spatial_aggregation import SpatialAggregation
from cat_seg.modeling.chunking import chunked, part_sizes


class Guidance(NamedTuple):
    """Appearance guidance: image features of B images that guide the aggregation.

    Attributes:
        res3: (B, C, H, W) dense CLIP features.
        res4: (B, C4, 2H, 2W), upsampled from about one third of the image tower's depth.
        res5: (B, C5, 4H, 4W), upsampled from about two thirds of it.
    """

    res3: Tensor
    res4: Tensor
    res5: Tensor


class AggregationLayer(nn.Module):
    """Spatial aggregation followed by class aggregation."""

    def __init__(self, spatial: SpatialAggregation, classes: ClassAggregation) -> None:
        super().__init__()
        self.spatial = spatial
        self.classes = classes

    def forward(self, x: Tensor, image_guidance: Tensor, text_guidance: Tensor) -> Tensor:
        """Aggregate x, guided by images and class names.

        Args:
            x: cost embedding (B, T, H, W, C).
            image_guidance: projected appearance guidance (B, H, W, C').
            text_guidance: projected text features (B, T, C'').

        Returns:
            (B, T, H, W, C).
        """
        return self.classes(self.spatial(x, image_guidance), text_guidance)


class Aggregator(nn.Module):
    """CAT-Seg's cost aggregation (arXiv 2303.11797).

    Args:
        layers: the aggregation layers, in order.
        channels: channels of the cost embedding.
        templates: number P of prompt templates, the input channels of the cost embedding.
        clip_channels: channels of CLIP's joint image-text space.
        text_channels: channels of the projected text guidance.
        image_channels: channels of the projected res3.
        decoder_channels: output channels of the two decoder stages.
        guidance_channels: channels of res4 and res5.
        projected_channels: channels of res4 and res5 after projection.
        output_bias: initial bias of the output convolution; None for PyTorch's default.
        recompute: save only the decoder's input for the backward pass and recompute the rest.
    """

    def __init__(
        self,
        layers: list[AggregationLayer],
        channels: int,
        templates: int,
        clip_channels: int,
        text_channels: int,
        image_channels: int,
        decoder_channels: tuple[int, int],
        guidance_channels: tuple[int, int],
        projected_channels: tuple[int, int],
        output_bias: float | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.cost_embedding = EmbeddingConv2d(templates, channels, kernel_size=7)
        self.image_guidance = nn.Conv2d(clip_channels, image_channels, 3, padding=1)
        self.text_guidance = nn.Linear(clip_channels, text_channels)
        self.decoder_guidance = nn.ModuleList(
            nn.Conv2d(raw, projected, 3, padding=1)
            for raw, projected in zip(guidance_channels, projected_channels, strict=True)
        )
        self.layers = nn.ModuleList(layers)
        self.decoder1 = DecoderStage(channels, projected_channels[0], decoder_channels[0])
        self.decoder2 = DecoderStage(
            decoder_channels[0], projected_channels[1], decoder_channels[1]
        )
        self.head = OutputConv2d(decoder_channels[1], kernel_size=3)
        if output_bias is not None:
            assert self.head.bias is not None
            nn.init.constant_(self.head.bias, output_bias)

    def forward(self, cost: Tensor, text: Tensor, guidance: Guidance) -> Tensor:
        """Aggregate the cost volume and decode it to logits.

        Args:
            cost: cost volume (B, T, P, H, W) over T classes and P templates.
            text: L2-normalized text features (B, T, C).
            guidance: see `Guidance`.

        Returns:
            Logits (B, T, 4H, 4W).
        """
        if torch.is_grad_enabled():
            return self._aggregate(cost, text, guidance)
        # Images are independent. No more at a time than fill a part take the least memory.
        elements = cost[:, :, 0].numel() * self.cost_embedding.out_channels
        sizes = part_sizes(len(cost), elements, cost.device)
        images = zip(*(each.split(sizes) for each in (cost, text, *guidance)), strict=True)
        return torch.cat([self._aggregate(c, t, Guidance(*levels)) for c, t, *levels in images])

    def _aggregate(self, cost: Tensor, text: Tensor, guidance: Guidance) -> Tensor:
        image_guidance = F.relu(self.image_guidance(guidance.res3)).permute(0, 2, 3, 1)
        text_guidance = F.relu(self.text_guidance(text))
        x = self.cost_embedding(cost.flatten(0, 1)).unflatten(0, cost.shape[:2])
        for layer in self.layers:
            x = layer(x, image_guidance, text_guidance)
        return self._decode(x, guidance.res4, guidance.res5)

    def _decode(self, x: Tensor, res4: Tensor, res5: Tensor) -> Tensor:
        first, second = self.decoder_guidance
        prepared1 = self.decoder1.prepare(F.relu(first(res4)))
        prepared2 = self.decoder2.prepare(F.relu(second(res5)))

        def decode(part: Tensor) -> Tensor:
            maps = part.flatten(0, 1).permute(0, 3, 1, 2)
            maps = self.decoder2(self.decoder1(maps, *prepared1), *prepared2)
            return self.head(maps).unflatten(0, part.shape[:2])

        return chunked(decode, x, dim=1, recompute=self.recompute)

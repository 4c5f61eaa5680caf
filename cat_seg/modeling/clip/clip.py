"""CLIP as the segmentation models use it: both towers under one adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .adapters import Adapter, TowerWeights
from .cache import ParameterCache
from .image_tower import ImageFeatures, ImageTower
from .prompts import Prompts
from .text_tower import TextTower


class CLIP(nn.Module):
    """Image and text encoder into one space.

    Args:
        text, image: the towers.
        adapter: what turns their attention weights into those in effect.
        prompts: how class names become prompts.
    """

    def __init__(
        self, text: TextTower, image: ImageTower, adapter: Adapter, prompts: Prompts
    ) -> None:
        super().__init__()
        self.text = text
        self.image = image
        self.adapter = adapter
        self.prompts = prompts
        self._weights: ParameterCache[TowerWeights] = ParameterCache()
        self._text_features: ParameterCache[Tensor] = ParameterCache()

    def train(self, mode: bool = True) -> CLIP:
        """Switch mode, and forget what was kept (version counters miss changes of `.data`)."""
        self._weights.clear()
        self._text_features.clear()
        return super().train(mode)

    def attention_weights(self) -> TowerWeights:
        """The attention weights in effect; computed once while no parameter changes."""
        return self._weights.get(None, self.parameters(), self._adapted_weights)

    def encode_image(self, images: Tensor, weights: TowerWeights) -> ImageFeatures:
        """Encode normalised images (B, 3, *image.input_size) under the weights in effect."""
        return self.image(images, weights.image)

    def encode_text(self, names: Sequence[str], weights: TowerWeights) -> Tensor:
        """L2-normalised features (T, P, C) of T class names in P templates.

        They are computed once while neither the names nor a parameter changes.
        """
        names = tuple(names)
        parameters = [*self.text.parameters(), *self.adapter.parameters()]
        return self._text_features.get(names, parameters, lambda: self._encode(names, weights))

    def embed_text(self, names: Sequence[str], weights: TowerWeights) -> Tensor:
        """Features (T, P, C) of T class names in P templates before normalisation; none is kept."""
        features = self.text(self.prompts.tree(names), weights.text)
        return features.unflatten(0, (len(names), len(self.prompts)))

    def _adapted_weights(self) -> TowerWeights:
        return self.adapter(
            TowerWeights(
                self.text.transformer.attention_weights(),
                self.image.transformer.attention_weights(),
            )
        )

    def _encode(self, names: tuple[str, ...], weights: TowerWeights) -> Tensor:
        return F.normalize(self.embed_text(names, weights), dim=-1)

"""CLIP as the segmentation models use it: both towers under one adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from .adapters import Adapter, TowerWeights
from .cache import ParameterCache
from .image_tower import ImageFeatures, ImageTower
from .prompts import Prompts
from .shared import SharedTensor
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
        self._joint_text: SharedTensor | None = None

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
        if self._joint_text is not None:
            return self._joint_text.take()
        names = tuple(names)
        parameters = [*self.text.parameters(), *self.adapter.parameters()]
        return self._text_features.get(names, parameters, lambda: self._encode(names, weights))

    @contextmanager
    def joint_batch(self, names: Sequence[str], parts: int) -> Iterator[None]:
        """Within this, so many training steps share one encoding of T class names.

        Each encodes its images and back-propagates on its own; the last back-propagates through
        the text tower for all of them.
        """
        self._joint_text = SharedTensor(self.encode_text(names, self.attention_weights()), parts)
        try:
            yield
        finally:
            self._joint_text = None

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

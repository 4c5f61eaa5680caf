"""CLIP, EVA02-CLIP and SigLIP as the segmentation models use them: two towers and one adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cat_seg.modeling.clip.adapters import Adapter, TowerWeights
from cat_seg.modeling.clip.cache import ParameterCache
from cat_seg.modeling.clip.image_tower import DenseImageTower
from cat_seg.modeling.clip.prompts import Prompts
from cat_seg.modeling.clip.shared import SharedTensor
from cat_seg.modeling.clip.siglip import SigLIPTextTower
from cat_seg.modeling.clip.text_tower import TextTower
from cat_seg.modeling.encoder import ImageFeatures
from cat_seg.modeling.wording import DEFAULT, Wording, all_synonyms

# Number of vocabularies whose text features are kept.
MOST_VOCABULARIES = 4


class CLIP(nn.Module):
    """Image and text encoders of a CLIP; implements `cat_seg.modeling.encoder.Encoder`.

    Args:
        text, image: the towers, of any kind.
        adapter: maps the towers' own attention weights to the effective ones.
        prompts: turns class names into prompts.
    """

    def __init__(
        self,
        text: TextTower | SigLIPTextTower,
        image: DenseImageTower,
        adapter: Adapter,
        prompts: Prompts,
    ) -> None:
        super().__init__()
        self.text = text
        self.image = image
        self.adapter = adapter
        self.prompts = prompts
        self._weights: ParameterCache[TowerWeights] = ParameterCache()
        self._text_features: ParameterCache[Tensor] = ParameterCache(MOST_VOCABULARIES)
        self._joint_text: SharedTensor | None = None

    def train(self, mode: bool = True) -> CLIP:
        """Set the mode and clear the caches, whose version counters miss changes of `.data`."""
        self._weights.clear()
        self._text_features.clear()
        return super().train(mode)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of an input image, in pixels."""
        return self.image.input_size

    @property
    def embed_dim(self) -> int:
        """Channels C of the joint image-text space."""
        return self.image.embed_dim

    @property
    def middle_dim(self) -> int:
        """Channels of the intermediate maps."""
        return self.image.width

    @property
    def templates(self) -> int:
        """Number P of prompts per class name."""
        return len(self.prompts)

    def check_names(self, names: Sequence[str], source: str, wording: Wording = DEFAULT) -> None:
        """Check class names; see `cat_seg.modeling.clip.prompts.Prompts.check`.

        Raises:
            ValueError: see `Prompts.check`; or `wording` has prompts and this model has more than
                one template.
        """
        if wording.prompts and self.templates > 1:
            raise ValueError(
                f"prompts replace the template of a model that has one, and this one has "
                f"{self.templates}, each with an input channel of its own; leave prompts out"
            )
        # What is said of equal names holds for their first synonyms alone.
        if wording.synonyms == "first":
            self._prompts(wording).check(names, source)

    def attention_weights(self) -> TowerWeights:
        """Return the effective attention weights; evaluation caches them until they change."""
        if self.training:  # the next optimizer step changes them, so caching is useless
            return self._adapted_weights()
        return self._weights.get(None, self.parameters(), self._adapted_weights)

    def encode(
        self, images: Tensor, names: Sequence[str], wording: Wording = DEFAULT
    ) -> tuple[ImageFeatures, Tensor]:
        """Encode images and class names, computing the adapted weights only once.

        Args:
            images: normalized images (B, 3, *input_size).
            names: T class names.
            wording: which synonyms and prompts to use.

        Returns:
            The results of `encode_image` and `encode_text`.
        """
        weights = self.attention_weights()
        return self.image(images, weights.image), self._text(names, weights, wording)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """Encode normalized images (B, 3, *input_size)."""
        return self.image(images, self.attention_weights().image)

    def encode_text(self, names: Sequence[str], wording: Wording = DEFAULT) -> Tensor:
        """Return L2-normalized features (T, P, C) of T class names in P templates.

        Those of the last MOST_VOCABULARIES requests are cached until a parameter changes, unless
        gradients are needed.
        """
        return self._text(names, self.attention_weights(), wording)

    @contextmanager
    def accumulated_batch(self, names: Sequence[str], parts: int) -> Iterator[None]:
        """Share one encoding of T class names among `parts` training steps within this context.

        Each step encodes its own images and runs its own backward pass. The backward pass of the
        last step goes through the text tower on behalf of all of them.
        """
        self._joint_text = SharedTensor(self.encode_text(names), parts)
        try:
            yield
        finally:
            self._joint_text = None

    def embed_text(self, names: Sequence[str]) -> Tensor:
        """Return unnormalized features (T, P, C) of T class names in P templates; not cached."""
        return self._embed(names, self.attention_weights())

    def _adapted_weights(self) -> TowerWeights:
        return self.adapter(
            TowerWeights(
                self.text.transformer.attention_weights(),
                self.image.transformer.attention_weights(),
            )
        )

    def _text(
        self, names: Sequence[str], weights: TowerWeights, wording: Wording = DEFAULT
    ) -> Tensor:
        if self._joint_text is not None:
            return self._joint_text.take()
        names = tuple(names)
        parameters = [*self.text.parameters(), *self.adapter.parameters()]
        return self._text_features.get(
            (names, wording), parameters, lambda: self._worded(names, weights, wording)
        )

    def _prompts(self, wording: Wording) -> Prompts:
        return self.prompts.replaced(wording.prompts) if wording.prompts else self.prompts

    def _worded(self, names: Sequence[str], weights: TowerWeights, wording: Wording) -> Tensor:
        """Return L2-normalized features (T, P, C) of T class names."""
        if wording == DEFAULT:
            return F.normalize(self._embed(names, weights), dim=-1)
        is_average, prompts = wording.synonyms == "average", self._prompts(wording)
        synonyms = [all_synonyms(name) if is_average else [name] for name in names]
        words = [word for group in synonyms for word in group]
        features = self.text(prompts.arranged(words, self.text.device), weights.text)
        features = F.normalize(features.unflatten(0, (len(words), len(prompts))), dim=-1)
        if wording.prompts:
            features = F.normalize(features.mean(dim=1, keepdim=True), dim=-1)
        if is_average:
            groups = features.split([len(group) for group in synonyms])
            features = F.normalize(torch.stack([g.mean(dim=0) for g in groups]), dim=-1)
        return features

    def _embed(self, names: Sequence[str], weights: TowerWeights) -> Tensor:
        features = self.text(self.prompts.arranged(names, self.text.device), weights.text)
        return features.unflatten(0, (len(names), len(self.prompts)))

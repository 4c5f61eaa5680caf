"""Interface between the head and a vision-language model, and the registry of such models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from cat_seg.errors import UserError
from cat_seg.modeling.wording import DEFAULT, Wording

KEY = "MODEL.SEM_SEG_HEAD.ENCODER"

ENCODER_REGISTRY = Registry("ENCODER")
ENCODER_REGISTRY.__doc__ = """
Functions from a whole config to an `Encoder`, by the value of MODEL.SEM_SEG_HEAD.ENCODER.
"""


class ImageFeatures(NamedTuple):
    """Features of B images on an (H, W) grid of patches.

    Attributes:
        dense: (B, HW, C), or (B, 1 + HW, C) with a CLS token first, in the joint image-text
            space, not normalized.
        middle: two maps (B, middle_dim, H, W), from about one third and two thirds of the depth.
    """

    dense: Tensor
    middle: list[Tensor]

    def dense_map(self) -> Tensor:
        """Return the dense features of the patches as a map (B, C, H, W)."""
        height, width = self.middle[0].shape[-2:]
        patches = self.dense[:, -height * width :].transpose(1, 2)
        return patches.unflatten(2, (height, width))


class Encoder(Protocol):
    """An nn.Module that encodes images densely and class names into one joint space.

    It owns its tokenizer, prompts and fine-tuning. Nothing else in the project depends on which
    model it is.

    Attributes:
        input_size: (height, width) of an input image, in pixels.
        embed_dim: channels C of the joint image-text space.
        middle_dim: channels of the intermediate maps.
        templates: number P of prompts per class name.
    """

    @property
    def input_size(self) -> tuple[int, int]: ...

    @property
    def embed_dim(self) -> int: ...

    @property
    def middle_dim(self) -> int: ...

    @property
    def templates(self) -> int: ...

    def check_names(self, names: Sequence[str], source: str, wording: Wording = DEFAULT) -> None:
        """Warn about names that the tokenizer cannot tell apart.

        Args:
            names: class names.
            source: where they come from, for warnings.
            wording: as for `encode`.

        Raises:
            ValueError: "names ...", if the tokenizer truncates different names to the same prompt;
                "prompts ..." or "synonyms ...", if the encoder does not support `wording`.
        """
        ...

    def encode(
        self, images: Tensor, names: Sequence[str], wording: Wording = DEFAULT
    ) -> tuple[ImageFeatures, Tensor]:
        """Encode normalized images (B, 3, *input_size) and T class names in one step.

        `wording` is passed only if a caller asked for other synonyms or prompts than in training.
        """
        ...

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """Encode normalized images (B, 3, *input_size)."""
        ...

    def encode_text(self, names: Sequence[str]) -> Tensor:
        """Return L2-normalized features (T, P, C) of T class names."""
        ...

    def embed_text(self, names: Sequence[str]) -> Tensor:
        """Return features (T, P, C) of T class names before normalization."""
        ...

    def accumulated_batch(self, names: Sequence[str], parts: int) -> AbstractContextManager[None]:
        """Return a context in which `parts` training steps share one encoding of `names`."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Return all parameters, trainable or not; CLIP_MULTIPLIER scales their learning rate."""
        ...


def build_encoder(cfg: CfgNode) -> Encoder:
    """Build the encoder named by MODEL.SEM_SEG_HEAD.ENCODER.

    Raises:
        UserError: there is no such encoder, or it rejects a value in the config.
    """
    name = cfg.MODEL.SEM_SEG_HEAD.ENCODER
    if name not in ENCODER_REGISTRY:
        known = ", ".join(sorted(known for known, _ in ENCODER_REGISTRY))
        raise UserError(f"{KEY} is {name!r}; set it to one of {known}")
    return ENCODER_REGISTRY.get(name)(cfg)

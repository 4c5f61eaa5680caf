"""Small image towers of EVA02-CLIP and SigLIP as timm models, for the quickstart and tests."""

from __future__ import annotations

from typing import Any

import timm
from timm.models import register_model
from torch import nn

__all__: list[str] = []  # timm appends the names of registered models

_SIZE: dict[str, Any] = {"img_size": 64, "embed_dim": 128, "depth": 4, "num_heads": 4}


@register_model
def eva02_mini_patch16_clip_64(pretrained: bool = False, **settings: Any) -> nn.Module:
    """EVA02-CLIP's image tower with 128 channels and 4 blocks, for images of 64 pixels."""
    return timm.create_model("eva02_base_patch16_clip_224", pretrained, **_SIZE, **settings)


@register_model
def vit_mini_patch16_siglip_64(pretrained: bool = False, **settings: Any) -> nn.Module:
    """SigLIP's image tower with 128 channels and 4 blocks, for images of 64 pixels."""
    return timm.create_model("vit_base_patch16_siglip_224", pretrained, **_SIZE, **settings)

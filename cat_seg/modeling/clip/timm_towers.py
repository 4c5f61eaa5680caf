"""Sizes of timm's image towers in open_clip models: those of EVA02-CLIP and SigLIP."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import timm
import torch
from timm.layers.activations import GELUTanh
from torch import nn

import cat_seg.modeling.clip.miniatures  # noqa: F401 (registers timm models)
from cat_seg.modeling.clip.spec import TowerSpec

ROPE_SIDE = 16  # sides of the grid that EVA02's rotary positions are scaled to
_LINEAR = ("weight", "bias")
# Kind -> the parameters of such a tower, with block numbers left out.
_PARAMETERS = {
    "eva02": {
        *("cls_token", "pos_embed", "blocks.attn.k_proj.weight"),
        *map(
            ".".join,
            product(
                (
                    *("patch_embed.proj", "norm", "head", "blocks.norm1", "blocks.norm2"),
                    *("blocks.attn.q_proj", "blocks.attn.v_proj", "blocks.attn.norm"),
                    *("blocks.attn.proj", "blocks.mlp.norm"),
                    *("blocks.mlp.fc1_g", "blocks.mlp.fc1_x", "blocks.mlp.fc2"),
                ),
                _LINEAR,
            ),
        ),
    },
    "siglip": {
        *("pos_embed", "attn_pool.latent"),
        *map(
            ".".join,
            product(
                (
                    *("patch_embed.proj", "norm", "blocks.norm1", "blocks.norm2"),
                    *("blocks.attn.qkv", "blocks.attn.proj", "blocks.mlp.fc1", "blocks.mlp.fc2"),
                    *("attn_pool.q", "attn_pool.kv", "attn_pool.proj", "attn_pool.norm"),
                    *("attn_pool.mlp.fc1", "attn_pool.mlp.fc2"),
                ),
                _LINEAR,
            ),
        ),
    },
}


class ImageSize(NamedTuple):
    """Size of an image tower.

    kind: "clip", "eva02" or "siglip".
    spec: its blocks.
    patch_size: pixels of a patch's side.
    grid: patches of a side of the images of the pretraining.
    """

    kind: str
    spec: TowerSpec
    patch_size: int
    grid: int


def image_tower(vision: dict[str, Any]) -> ImageSize | None:
    """Return the size of EVA02-CLIP's or SigLIP's image tower, None for another tower.

    Args:
        vision: vision_cfg of an open_clip model config.
    """
    name = vision.get("timm_model_name")
    if not name:
        return None
    return _read(name, vision.get("timm_pool", "avg"), vision.get("timm_proj", "linear"))


@cache
def _read(name: str, pool: str, projection: str | None) -> ImageSize | None:
    if (pool, projection) not in (("token", None), ("map", "none")):
        return None
    if not timm.models.is_model_in_modules(name, ("eva", "vision_transformer", "miniatures")):
        return None
    with torch.device("meta"):
        trunk: Any = timm.create_model(name, num_classes=1 if projection is None else 0)
    names = {re.sub(r"blocks\.\d+", "blocks", parameter) for parameter in trunk.state_dict()}
    kind = next((kind for kind, expected in _PARAMETERS.items() if names == expected), None)
    if kind is None:
        return None
    block = trunk.blocks[0]
    if kind == "eva02":
        if tuple(trunk.rope.ref_feat_shape) != (ROPE_SIDE, ROPE_SIDE):
            return None
        hidden, activation = block.mlp.fc1_g.out_features, "silu"
    else:
        hidden, activation = block.mlp.fc1.out_features, _activation(block.mlp.act)
    spec = TowerSpec(
        width=trunk.embed_dim,
        layers=len(trunk.blocks),
        heads=block.attn.num_heads,
        mlp_width=hidden,
        activation=activation,
        norm_eps=block.norm1.eps,
        eva=kind == "eva02",
    )
    side, other = trunk.patch_embed.grid_size
    return ImageSize(kind, spec, trunk.patch_embed.patch_size[0], side) if side == other else None


def _activation(layer: nn.Module) -> str:
    tanh = isinstance(layer, GELUTanh) or getattr(layer, "approximate", "none") == "tanh"
    return "gelu_tanh" if tanh else "gelu"

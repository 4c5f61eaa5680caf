"""Refuses config values that no model can be built from, before anything is built."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

from .errors import UserError

MODELS, HEADS = "CATSeg or EnhancedCATSeg", "CATSegHead"
NORM_GROUP = 16  # channels of a decoder's norm group


def check_registered(model: CfgNode) -> None:
    """Check that what MODEL names is there to be built.

    Raises:
        UserError: naming the key, its value, and what this project has.
    """
    for key, name, registry, known in (
        ("META_ARCHITECTURE", model.META_ARCHITECTURE, META_ARCH_REGISTRY, MODELS),
        ("SEM_SEG_HEAD.NAME", model.SEM_SEG_HEAD.NAME, SEM_SEG_HEADS_REGISTRY, HEADS),
    ):
        if name not in registry:
            raise UserError(f"MODEL.{key} is {name!r}; set it to {known}")


def check_head(head: CfgNode) -> None:
    """Check MODEL.SEM_SEG_HEAD.

    Raises:
        UserError: naming the key, its value, and what it takes.
    """
    node = "MODEL.SEM_SEG_HEAD"
    grid, pooling = head.FEATURE_RESOLUTION, head.POOLING_SIZES
    _require(_are_positive(grid, 2), node, head, "FEATURE_RESOLUTION", "two numbers from 1 on")
    _require(
        _are_positive(pooling, 2) and all(p <= g for p, g in zip(pooling, grid, strict=True)),
        *(node, head, "POOLING_SIZES"),
        f"two sizes from 1 to FEATURE_RESOLUTION {list(grid)}",
    )
    for key in ("HIDDEN_DIMS", "NUM_LAYERS", "NUM_HEADS", "WINDOW_SIZES", "PAD_LEN"):
        _require(_are_positive([head[key]], 1), node, head, key, "a number from 1 on")
    window = min(head.WINDOW_SIZES, *grid)
    _require(
        not any(side % window for side in grid),
        *(node, head, "WINDOW_SIZES"),
        f"a divisor of both sides of FEATURE_RESOLUTION {list(grid)}",
    )
    _require(
        head.HIDDEN_DIMS % head.NUM_HEADS == 0,
        *(node, head, "HIDDEN_DIMS"),
        f"a multiple of NUM_HEADS {head.NUM_HEADS}",
    )
    for key in ("DECODER_DIMS", "DECODER_GUIDANCE_DIMS", "DECODER_GUIDANCE_PROJ_DIMS"):
        _require(_are_positive(head[key], 2), node, head, key, "two numbers, one a decoder stage")
    _require(
        not any(dim % NORM_GROUP for dim in head.DECODER_DIMS),
        *(node, head, "DECODER_DIMS"),
        f"multiples of {NORM_GROUP}, the channels of a norm group",
    )
    incoming = (head.HIDDEN_DIMS, head.DECODER_DIMS[0])
    _require(
        all(p < i for p, i in zip(head.DECODER_GUIDANCE_PROJ_DIMS, incoming, strict=True)),
        *(node, head, "DECODER_GUIDANCE_PROJ_DIMS"),
        f"fewer channels than come into the stages, {list(incoming)}",
    )


def check_hyperspherical(hyperspherical: CfgNode, channels: int) -> None:
    """Check MODEL.HYPERSPHERICAL for features of so many channels.

    Raises:
        UserError: naming the key, its value, and what it takes.
    """
    node = "MODEL.HYPERSPHERICAL"
    values = (node, hyperspherical)
    momentum, reduction = hyperspherical.HPA_MOMENTUM, hyperspherical.AFR_REDUCTION
    _require(0 <= momentum <= 1, *values, "HPA_MOMENTUM", "a share from 0 to 1")
    _require(hyperspherical.HPA_TEMPERATURE > 0, *values, "HPA_TEMPERATURE", "a positive number")
    _require(1 <= reduction <= channels, *values, "AFR_REDUCTION", f"1 to {channels} (channels)")


def _are_positive(values: Any, count: int) -> bool:
    return len(values) == count and all(isinstance(v, int) and v >= 1 for v in values)


def _require(holds: bool, node: str, values: CfgNode, key: str, wanted: str) -> None:
    if not holds:
        raise UserError(f"{node}.{key} is {values[key]}; it takes {wanted}")

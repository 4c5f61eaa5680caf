"""What adapters with block-diagonal matrices share: their start values, checks and map."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cat_seg.modeling import poincare
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.transformer import AttentionWeights

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_positive(settings: DataclassInstance) -> None:
    """Check that all fields of a dataclass are positive finite numbers.

    Raises:
        ValueError: naming the first field that is not.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not 0 < value < math.inf:
            raise ValueError(
                f"{field.name} must be a positive number such as {field.default}; it is {value}"
            )


def identities(
    architecture: Architecture, tower: Literal["text", "image"], setting: str, side: int
) -> Tensor:
    """Return the diagonal blocks of the identity for every query, key and value of a tower.

    Args:
        architecture: gives the tower's width and depth.
        tower: which one.
        setting: name of the setting that `side` comes from, for the message.
        side: side of a block.

    Returns:
        Tensor (layers, 3 for q, k, v, width / side, side, side).

    Raises:
        ValueError: `side` does not divide the width.
    """
    spec = architecture.text if tower == "text" else architecture.image
    if spec.width % side:
        raise ValueError(
            f"{setting} must divide the width {spec.width} of the {tower} tower of"
            f" {architecture.open_clip_name}; it is {side}"
        )
    return torch.eye(side).repeat(spec.layers, 3, spec.width // side, 1, 1)


def adapt_rows(
    frozen: list[AttentionWeights], matrices: Tensor, c: float, rotations: Tensor | None = None
) -> list[AttentionWeights]:
    """Transform the first weights of every block of a tower; see `poincare.transform`.

    Args:
        frozen: the weights of each block.
        matrices: (layers, 3, width / side, side, side), diagonal blocks for query, key and value;
            (layers, 4, ...) to transform the output weights too.
        c: curvature of the ball.
        rotations: orthogonal diagonal blocks, with a side of their own; None for no rotation.
    """
    count = matrices.shape[1]
    rows = [weight for weights in frozen for weight in weights[:count]]
    turns = None if rotations is None else rotations.flatten(0, 1)
    with torch.autocast(matrices.device.type, enabled=False):
        adapted = poincare.transform_each(rows, matrices.flatten(0, 1), c, turns).unbind()
    return [
        AttentionWeights(*adapted[count * layer : count * (layer + 1)], *weights[count:])
        for layer, weights in enumerate(frozen)
    ]

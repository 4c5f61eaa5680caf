"""What adapters with block-diagonal matrices share: their start values and checks."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cat_seg.modeling.clip.architecture import Architecture

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

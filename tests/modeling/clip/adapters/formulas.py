"""The published formulas written out row by row, and weights to apply them to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cat_seg.modeling.clip.adapters import TowerWeights
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.spec import TowerSpec
from cat_seg.modeling.clip.transformer import AttentionWeights


def frozen_weights(architecture: Architecture) -> TowerWeights:
    """Random weights whose rows are about as long as CLIP's."""
    torch.manual_seed(0)
    return TowerWeights(_tower(architecture.text), _tower(architecture.image))


def _tower(spec: TowerSpec) -> list[AttentionWeights]:
    def matrix() -> Tensor:
        return torch.randn(spec.width, spec.width) * spec.width**-0.5

    return [AttentionWeights(*(matrix() for _ in range(4))) for _ in range(spec.layers)]


def on_the_ball(weight: Tensor, m: Tensor, c: float, rotation: Tensor | None = None) -> Tensor:
    """log0((M (x) exp0(w)) Q^T) of each row w, with M and Q as a whole, in double precision."""
    root = math.sqrt(c)
    rows = []
    for w in weight.double():
        x = math.tanh(root * w.norm()) * w / (root * w.norm())
        mx = m.double() @ x
        length = math.tanh(mx.norm() / x.norm() * math.atanh(root * x.norm()))
        y = min(length, 1 - 1e-3) * mx / (root * mx.norm())
        if rotation is not None:
            y = rotation.double() @ y
        rows.append(math.atanh(root * y.norm()) * y / (root * y.norm()))
    return torch.stack(rows).float()

"""The cost volume between image patches and class prompts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cat_seg.modeling.hyperspherical_innovations import geodesic_similarity

UNSELECTED = -100.0  # logit of classes that are not passed to the aggregator


def cost_volume(features: Tensor, text: Tensor, geodesic: bool = False) -> Tensor:
    """Return the similarity of every patch to every prompt.

    Args:
        features: dense image features (B, C, H, W) of any norm.
        text: L2-normalized text features (T, P, C).
        geodesic: use 1 - angle / pi instead of the cosine.

    Returns:
        Cost volume (B, T, P, H, W).
    """
    cost = torch.einsum("bchw,tpc->btphw", F.normalize(features, dim=1), text)
    return geodesic_similarity(cost) if geodesic else cost


def select_classes(cost: Tensor, most: int) -> Tensor:
    """Select the `most` classes of each image by their highest similarity.

    Args:
        cost: cost volume (B, T, P, H, W); the maximum is over positions and templates.
        most: number of classes to select, at most T.

    Returns:
        Class indices (B, most), ascending.
    """
    best = cost.flatten(2).amax(dim=2)
    return best.topk(most, dim=1).indices.sort(dim=1).values


def scatter_logits(logits: Tensor, selected: Tensor, classes: int) -> Tensor:
    """Scatter logits (B, S, H, W) of selected classes (B, S) to all classes, -100 elsewhere.

    Returns:
        Logits (B, classes, H, W).
    """
    full = logits.new_full((len(logits), classes, *logits.shape[2:]), UNSELECTED)
    return full.scatter(1, selected[:, :, None, None].expand_as(logits), logits)

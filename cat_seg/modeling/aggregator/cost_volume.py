"""The cost volume between image patches and class prompts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cat_seg.modeling.hyperspherical_innovations import geodesic_similarity

UNSELECTED = -100.0  # logit of a class that did not go on to the aggregator


def cost_volume(features: Tensor, text: Tensor, geodesic: bool = False) -> Tensor:
    """Similarity of every patch with every prompt.

    Args:
        features: dense image features (B, C, H, W), any norm.
        text: L2-normalised text features (T, P, C).
        geodesic: 1 - angle / pi in place of the cosine.

    Returns:
        (B, T, P, H, W).
    """
    cost = torch.einsum("bchw,tpc->btphw", F.normalize(features, dim=1), text)
    return geodesic_similarity(cost) if geodesic else cost


def select_classes(cost: Tensor, most: int) -> Tensor:
    """Each image's `most` classes with the highest similarity anywhere in any template.

    Args:
        cost: (B, T, P, H, W).

    Returns:
        Class indices (B, most), ascending.
    """
    best = cost.flatten(2).amax(dim=2)
    return best.topk(most, dim=1).indices.sort(dim=1).values


def scatter_logits(logits: Tensor, selected: Tensor, classes: int) -> Tensor:
    """Put logits (B, S, H, W) of selected classes (B, S) back among all `classes`."""
    full = logits.new_full((len(logits), classes, *logits.shape[2:]), UNSELECTED)
    return full.scatter(1, selected[:, :, None, None].expand_as(logits), logits)

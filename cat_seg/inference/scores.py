"""Per-pixel confidence from the probabilities of all classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Scores(NamedTuple):
    """The answer of a model for one image of H x W pixels.

    Attributes:
        winner: (H, W) int64, index of the most probable class.
        confidence: (H, W) float32 in 0..1, its probability.
        margin: (H, W) float32 in 0..1, how far it is above the second most probable class; the
            probability itself if there is one class only.
        entropy: (H, W) float32 in 0..1, entropy of the probabilities normalized to sum 1, divided
            by the logarithm of the number of classes; 0 if there is one class only.
    """

    winner: Tensor
    confidence: Tensor
    margin: Tensor
    entropy: Tensor


def score(maps: Tensor, groups: Sequence[Sequence[int]], size: tuple[int, int]) -> Scores:
    """Find the winning class of each pixel and how certain it is.

    The maps are taken one class at a time, so that no second copy of them is needed.

    Args:
        maps: probabilities (N, h, w) of N names; smaller maps are upsampled bilinearly.
        groups: the indices of each class's names; its probability is the highest of theirs.
        size: (H, W) of the result.
    """
    winner = torch.zeros(size, dtype=torch.int64, device=maps.device)
    first, second, total, information = (torch.zeros(size, device=maps.device) for _ in range(4))
    for index, names in enumerate(groups):
        one = maps[list(names)].float().amax(dim=0) if len(names) > 1 else maps[names[0]].float()
        if one.shape != size:
            one = F.interpolate(one[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        higher = one > first
        winner.masked_fill_(higher, index)
        second = torch.where(higher, first, torch.maximum(second, one))
        first = torch.maximum(first, one)
        total += one
        information += torch.special.xlogy(one, one)
    return Scores(winner, first, first - second, _entropy(total, information, len(groups)))


def _entropy(total: Tensor, information: Tensor, classes: int) -> Tensor:
    """Return the normalized entropy of p / sum(p) from sum(p) and sum(p log p)."""
    if classes == 1:
        return torch.zeros_like(total)
    entropy = (total.log() - information / total) / math.log(classes)
    # Where all probabilities are 0, nothing is known.
    return entropy.nan_to_num(nan=1.0).clamp(0, 1)

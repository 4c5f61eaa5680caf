"""Training losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def sem_seg_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of every class, averaged over every pixel and class.

    Pixels whose label is outside 0..T-1 (the ignored ones) stay in the average with an all-zero
    target (CAT-Seg). No one-hot target is built: cross-entropy with target z is
    softplus(x) - z x.

    Args:
        logits: (B, T, h, w), upsampled bilinearly to the labels' size.
        labels: class indices (B, H, W).
    """
    size = labels.shape[-2:]
    logits = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
    labelled = (labels >= 0) & (labels < logits.shape[1])
    index = labels.where(labelled, labels.new_zeros(()))
    targets = logits.gather(1, index[:, None])[:, 0]
    return (F.softplus(logits).sum() - (targets * labelled).sum()) / logits.numel()

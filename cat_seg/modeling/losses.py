"""Training losses."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cat_seg.modeling.chunking import part_sizes

CHUNK = 16  # minimum number of classes whose full-size logits exist at the same time


def sem_seg_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy averaged over all pixels and classes.

    As in CAT-Seg, ignored pixels (label outside 0..T-1) stay in the average with an all-zero
    target.

    To save memory, no one-hot target is built: the cross-entropy of logit x and target z is
    softplus(x) - z x. The gradient is computed in the forward pass, so full-size logits exist for
    only a few classes at a time.

    Args:
        logits: (B, T, h, w); upsampled bilinearly to the label size.
        labels: class indices (B, H, W).
    """
    return _UpsampledCrossEntropy.apply(logits, labels)


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        elements = labels.numel() * logits.shape[1]
        total = logits.new_zeros((), dtype=torch.float32)
        gradients = []
        size = CHUNK
        if logits.device.type != "cpu":  # larger chunks, for fewer operations
            size = max(size, part_sizes(logits.shape[1], elements, logits.device)[0])
        for start in range(0, logits.shape[1], size):
            chunk = logits[:, start : start + size].detach().float().requires_grad_()
            with torch.enable_grad():
                loss = _summed_cross_entropy(chunk, labels - start) / elements
            gradients.append(torch.autograd.grad(loss, chunk)[0])
            total += loss.detach()
        ctx.dtype = logits.dtype
        ctx.save_for_backward(torch.cat(gradients, dim=1))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        # Cast to half precision after scaling: the loss scale prevents underflow.
        return (gradient * scale).to(ctx.dtype), None


def _summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    size = labels.shape[-2:]
    logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    labeled = (labels >= 0) & (labels < logits.shape[1])
    index = labels.where(labeled, labels.new_zeros(()))
    targets = logits.gather(1, index[:, None])[:, 0]
    return F.softplus(logits).sum() - (targets * labeled).sum()

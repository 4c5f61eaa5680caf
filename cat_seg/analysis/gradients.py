"""Gradients of each loss of a training step with respect to each part of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

IMAGE, TEXT = "image", "text"  # CLIP's towers
ALL = "all"  # all trained parameters
REFERENCE = "loss_sem_seg"  # the loss whose gradient the others are compared with
# Part -> prefixes of its parameters.
PARTS = {
    "image_tower": ("sem_seg_head.clip.image.",),
    "text_tower": ("sem_seg_head.clip.text.",),
    "adapter": ("sem_seg_head.clip.adapter.",),
    "aggregator": ("sem_seg_head.aggregator.", "sem_seg_head.upsample"),
    "afr": ("afr.",),
    "hpa": ("hpa.",),
}
OTHER = "other"
# The attention weights that an adapter computes for each tower. They are no parameters, but show
# how a gradient is shared between towers when the adapter's parameters serve both.
ADAPTED = {IMAGE: "image_attention", TEXT: "text_attention"}

Parts = Mapping[str, Sequence[Tensor]]


def trained_parts(model: nn.Module) -> dict[str, list[Tensor]]:
    """Return the trained parameters of a model by part, without empty parts."""
    found: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = (part for part, prefixes in PARTS.items() if name.startswith(prefixes))
            found.setdefault(next(part, OTHER), []).append(parameter)
    return found


def measure_gradients(
    model: nn.Module,
    batch: Sequence[Mapping[str, Any]],
    autocast: AbstractContextManager | None = None,
    scale: float = 1.0,
) -> dict[str, float]:
    """Measure the gradient of each loss on a training batch, without touching any `.grad`.

    The gradients of the losses add up to that of the training step. Buffers and random generators
    change as in a training step; the caller has to restore them.

    Args:
        model: a `TrainableSegmentor` in training mode.
        batch: one micro-batch.
        autocast: context of the forward pass.
        scale: factor of the losses in the backward pass, against underflow in half precision.

    Returns:
        LOSS/PART/norm: Euclidean norm of the gradient of a loss with respect to a part (PARTS,
        ADAPTED or ALL). LOSS/PART/cosine: cosine between this gradient and that of loss_sem_seg.
        LOSS is the name of a loss without "loss_". Pairs without a gradient are left out.
    """
    with _adapted_weights(model) as adapted, autocast or nullcontext():
        losses: dict[str, Tensor] = model(batch)
    parts = trained_parts(model)
    parts[ALL] = [parameter for part in parts.values() for parameter in part]
    parts |= adapted
    losses = {name: scale * loss for name, loss in losses.items() if loss.requires_grad}
    reference = _gradients(losses[REFERENCE], parts) if REFERENCE in losses else None
    measured = {}
    for name, loss in losses.items():
        gradients = reference if reference and name == REFERENCE else _gradients(loss, parts)
        for part, own in gradients.items():
            if all(gradient is None for gradient in own):
                continue
            key, norm = f"{name.removeprefix('loss_')}/{part}", _norm(own)
            measured[f"{key}/norm"] = norm / scale
            if reference and name != REFERENCE:
                product = norm * _norm(reference[part])
                if product > 0:
                    measured[f"{key}/cosine"] = _dot(own, reference[part]) / product
    return measured


def _gradients(loss: Tensor, parts: Parts) -> dict[str, list[Tensor | None]]:
    tensors = {id(tensor): tensor for part in parts.values() for tensor in part}
    found = torch.autograd.grad(loss, list(tensors.values()), retain_graph=True, allow_unused=True)
    by_tensor = dict(zip(tensors, found, strict=True))
    return {part: [by_tensor[id(tensor)] for tensor in own] for part, own in parts.items()}


def _norm(gradients: Sequence[Tensor | None]) -> float:
    given = [gradient.float() for gradient in gradients if gradient is not None]
    return float(nn.utils.get_total_norm(given))


def _dot(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> float:
    pairs = zip(first, second, strict=True)
    products = [
        (one.float() * other.float()).sum()
        for one, other in pairs
        if one is not None and other is not None
    ]
    return float(torch.stack(products).sum()) if products else 0.0


@contextmanager
def _adapted_weights(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the weights that CLIP's adapter computes in the context, by ADAPTED."""
    found: dict[str, list[Tensor]] = {}

    def collect(adapter: nn.Module, inputs: Any, towers: Any) -> None:
        for tower, part in ADAPTED.items():
            weights = [w for block in getattr(towers, tower) for w in block if w.requires_grad]
            if weights:
                found[part] = weights

    adapter = getattr(
        getattr(getattr(model, "sem_seg_head", None), "encoder", None), "adapter", None
    )
    if adapter is None or not any(True for _ in adapter.parameters()):
        yield found
        return
    handle = adapter.register_forward_hook(collect)
    try:
        yield found
    finally:
        handle.remove()

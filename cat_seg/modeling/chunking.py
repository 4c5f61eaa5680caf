"""Run a step over parts of its input.

The intermediate results of a step are several times larger than its input. Processed in parts,
they stay in the CPU cache. If they are also recomputed in the backward pass, they exist for only
one part at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Maximum input elements per part. A CPU is fastest when a part's intermediate results fit in its
# cache, a GPU when a part is large enough to occupy it fully.
PART_ELEMENTS = {"cpu": 2**18, "cuda": 2**24}

# Where a GPU keeps the activations of all parts for the backward pass, smaller parts save little
# memory. Larger ones need fewer kernels.
KEPT_PARTS = 2


def chunked(
    step: Callable[[Tensor], Tensor], x: Tensor, dim: int, recompute: bool = False
) -> Tensor:
    """Return step(x), computed part by part along a dimension that the step does not mix.

    Args:
        step: maps (..., n, ...) to (..., n, ...) for any size n of dimension `dim`.
        x: input of any shape.
        dim: dimension to split.
        recompute: save only the input for the backward pass.
    """
    kept = torch.is_grad_enabled() and not recompute
    sizes = part_sizes(x.shape[dim], x.numel(), x.device, kept)
    run = partial(recomputed, step) if recompute else step
    if len(sizes) == 1:
        return run(x)
    parts = x.split(sizes, dim)
    if torch.is_grad_enabled():
        return torch.cat([run(part) for part in parts], dim)
    first = run(parts[0])
    whole = first.new_empty((*first.shape[:dim], x.shape[dim], *first.shape[dim + 1 :]))
    places = whole.split(sizes, dim)
    places[0].copy_(first)
    for place, part in zip(places[1:], parts[1:], strict=True):
        place.copy_(run(part))
    return whole


def part_sizes(count: int, elements: int, device: torch.device, kept: bool = False) -> list[int]:
    """Return how many of `count` items with `elements` elements in total to process at a time.

    Parts differ by at most one item.

    Args:
        count: number of items.
        elements: their elements in total.
        device: where they are.
        kept: whether the activations of all parts are kept.
    """
    # torch.compile unrolls the loop over parts, so fewer and larger parts compile faster.
    in_cache = device.type == "cpu" and not torch.compiler.is_compiling()
    limit = (
        PART_ELEMENTS["cpu"] if in_cache else PART_ELEMENTS["cuda"] * (KEPT_PARTS if kept else 1)
    )
    largest = max(1, limit * count // elements)
    parts = -(-count // largest)
    return [count // parts + (index < count % parts) for index in range(parts)]


def recomputed(step: Callable[..., Tensor], *inputs: object) -> Tensor:
    """Return step(*inputs); the backward pass recomputes its intermediate results."""
    if not torch.is_grad_enabled():
        return step(*inputs)
    return checkpoint(step, *inputs, use_reentrant=False, preserve_rng_state=False)

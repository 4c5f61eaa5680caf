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
    size = part_size(x.shape[dim], x.numel(), x.device)
    run = partial(recomputed, step) if recompute else step
    if size >= x.shape[dim]:
        return run(x)
    parts = x.split(size, dim)
    if torch.is_grad_enabled():
        return torch.cat([run(part) for part in parts], dim)
    first = run(parts[0])
    whole = first.new_empty((*first.shape[:dim], x.shape[dim], *first.shape[dim + 1 :]))
    whole.narrow(dim, 0, size).copy_(first)
    for start, part in enumerate(parts[1:], 1):
        whole.narrow(dim, start * size, part.shape[dim]).copy_(run(part))
    return whole


def part_size(count: int, elements: int, device: torch.device) -> int:
    """Return how many of `count` items with `elements` elements in total to process at once."""
    # torch.compile unrolls the loop over parts, so fewer and larger parts compile faster.
    in_cache = device.type == "cpu" and not torch.compiler.is_compiling()
    return max(1, PART_ELEMENTS["cpu" if in_cache else "cuda"] * count // elements)


def recomputed(step: Callable[..., Tensor], *inputs: object) -> Tensor:
    """Return step(*inputs); the backward pass recomputes its intermediate results."""
    if not torch.is_grad_enabled():
        return step(*inputs)
    return checkpoint(step, *inputs, use_reentrant=False, preserve_rng_state=False)

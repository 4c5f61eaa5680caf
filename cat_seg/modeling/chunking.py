"""Running a step over parts of its input.

What a step needs in between is several times its input. In parts it stays in the processor's
cache; and where it is recomputed in the backward pass, it exists for one part at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Elements of the input that a part has at most. A CPU is fastest where a part's intermediate
# results fit its cache, a GPU where a part fills it.
PART_ELEMENTS = {"cpu": 2**18, "cuda": 2**24}


def chunked(
    step: Callable[[Tensor], Tensor], x: Tensor, dim: int, recompute: bool = False
) -> Tensor:
    """Return step(x), computed part by part along a dimension that the step does not mix.

    Args:
        step: maps x (..., n, ...) to (..., n, ...), n standing at `dim`, for any n.
        x: of any shape.
        dim: dimension to divide.
        recompute: keep nothing but the input for the backward pass.
    """
    # A compiled graph repeats the step for every part: of few it is compiled in less time.
    in_cache = x.device.type == "cpu" and not torch.compiler.is_compiling()
    limit = PART_ELEMENTS["cpu" if in_cache else "cuda"]
    size = max(1, limit * x.shape[dim] // x.numel())
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


def recomputed(step: Callable[..., Tensor], *inputs: object) -> Tensor:
    """Return step(*inputs); the backward pass computes it again instead of keeping it."""
    if not torch.is_grad_enabled():
        return step(*inputs)
    return checkpoint(step, *inputs, use_reentrant=False, preserve_rng_state=False)

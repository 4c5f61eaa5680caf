"""A tensor that the micro-batches of a step have in common."""

from __future__ import annotations

import torch
from torch import Tensor


class SharedTensor:
    """Computed once, used by each of several forward and backward passes in turn.

    The backward pass of every use but the last ends at a copy that sums up the gradients; that of
    the last goes on through the computation, with the gradients of all.
    """

    def __init__(self, tensor: Tensor, uses: int) -> None:
        """Share `tensor` so many times, at least once."""
        self._tensor = tensor
        self._left = uses
        # At least float32, so that a sum of many gradients keeps what each adds.
        dtype = torch.promote_types(tensor.dtype, torch.float32)
        self._copy = tensor.detach().to(dtype, copy=True).requires_grad_(tensor.requires_grad)

    def take(self) -> Tensor:
        """Return the tensor for the next use.

        Raises:
            RuntimeError: after the last use.
        """
        if not self._left:
            raise RuntimeError("a shared tensor was taken more often than it is shared")
        self._left -= 1
        if self._left:
            return self._copy.to(self._tensor.dtype)
        last = self._tensor.view_as(self._tensor)
        if last.requires_grad:
            last.register_hook(self._add_gradients)
        return last

    def _add_gradients(self, gradient: Tensor) -> Tensor:
        if self._copy.grad is None:  # a single use
            return gradient
        return (gradient + self._copy.grad).to(gradient.dtype)

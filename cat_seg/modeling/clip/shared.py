"""A tensor shared by the micro-batches of a training step."""

from __future__ import annotations

import torch
from torch import Tensor


class SharedTensor:
    """Tensor computed once and used by several forward and backward passes in turn.

    All uses but the last get a detached copy, which accumulates their gradients. The backward pass
    of the last use adds these to its own gradient and continues through the original computation.
    """

    def __init__(self, tensor: Tensor, uses: int) -> None:
        """Share `tensor` among `uses` passes, at least one."""
        self._tensor = tensor
        self._left = uses
        # Accumulate in at least float32, so that small gradients are not rounded away.
        dtype = torch.promote_types(tensor.dtype, torch.float32)
        self._copy = tensor.detach().to(dtype, copy=True).requires_grad_(tensor.requires_grad)

    def take(self) -> Tensor:
        """Return the tensor for the next use.

        Raises:
            RuntimeError: the last use has already been taken.
        """
        if not self._left:
            raise RuntimeError("take() was called more often than `uses` allows")
        self._left -= 1
        if self._left:
            return self._copy.to(self._tensor.dtype)
        last = self._tensor.view_as(self._tensor)
        if last.requires_grad:
            last.register_hook(self._add_gradients)
        return last

    def _add_gradients(self, gradient: Tensor) -> Tensor:
        if self._copy.grad is None:  # this is the only use
            return gradient
        return (gradient + self._copy.grad).to(gradient.dtype)

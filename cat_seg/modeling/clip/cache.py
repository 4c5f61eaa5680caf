"""A memory for results that are functions of parameters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")


class ParameterCache(Generic[R]):
    """Keeps the last result until a parameter that it came from, or the request, changes.

    Nothing is kept where autograd would need the computation.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the kept result."""
        self._key: Hashable | None = None
        self._result: R | None = None

    def get(self, request: Hashable, parameters: Iterable[Tensor], compute: Callable[[], R]) -> R:
        """Return compute(), or its kept result if neither request nor parameters have changed.

        Args:
            request: what else than the parameters the result depends on.
            parameters: every tensor that compute() reads; each change in place is noticed
                through the tensor's version counter, each replacement through its address.
        """
        parameters = list(parameters)
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            return compute()
        device = parameters[0].device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        state = tuple((p.data_ptr(), p._version) for p in parameters)
        key = (request, state, autocast, torch.is_inference_mode_enabled())
        if key != self._key:
            self._result, self._key = compute(), key
        return self._result

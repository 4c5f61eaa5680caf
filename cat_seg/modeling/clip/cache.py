"""Cache of results computed from parameters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")


class ParameterCache(Generic[R]):
    """Cache of results by request, valid until a parameter that they depend on changes.

    Nothing is cached when autograd needs the computation.

    Args:
        most: number of results to keep; the one unused for the longest time is dropped first.
    """

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self.clear()

    def clear(self) -> None:
        """Drop the cached results."""
        self._state: Hashable | None = None
        self._results: OrderedDict[Hashable, R] = OrderedDict()

    def get(self, request: Hashable, parameters: Iterable[Tensor], compute: Callable[[], R]) -> R:
        """Return compute(), or its cached result if no parameter has changed since.

        Args:
            request: everything other than the parameters that the result depends on.
            parameters: every tensor that compute() reads. In-place changes are detected through
                the tensor's version counter, replacements through its address.
            compute: computes the result.
        """
        parameters = list(parameters)
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            return compute()
        device = parameters[0].device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        state = tuple((p.data_ptr(), p._version) for p in parameters)
        if state != self._state:
            self.clear()
        key = (request, autocast, torch.is_inference_mode_enabled())
        if key not in self._results:
            self._results[key] = compute()
            self._state = state
        self._results.move_to_end(key)
        while len(self._results) > self._most:
            self._results.popitem(last=False)
        return self._results[key]
